"""Rotary positions (arXiv 2104.09864), halves convention: feature i turns with feature i + d/2.

Exports that want neighbouring pairs (GGUF, DeepSeek's own code) get permuted weights, see `names.interleave`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def angles(positions: Tensor, dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position and frequency.

    Args:
        positions: (..., T) integers.
        dim: even number of rotated features.
        theta: base of the frequencies.

    Returns:
        two fp32 tensors (..., T, dim / 2).
    """
    frequency = theta ** (-torch.arange(0, dim // 2, dtype=torch.float32, device=positions.device) * 2 / dim)
    angle = positions.float().unsqueeze(-1) * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn x (B, heads, T, dim) by cos, sin (B, 1, T, dim / 2)."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, left * sin + right * cos), dim=-1)
