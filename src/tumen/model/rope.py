"""Rotary positions (arXiv 2104.09864) in halves: features i and i + d/2 form a pair.

Formats with neighbouring pairs (GGUF, DeepSeek's own code) get permuted weights, see
`public_names.interleave`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tumen.core.shape import Yarn


def angles(
    positions: Tensor, dim: int, theta: float, yarn: Yarn | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position and frequency.

    Args:
        positions: (..., T) integers.
        dim: even number of rotated features.
        theta: base of the frequencies.
        yarn: stretches them; its temperature is part of the result.

    Returns:
        two fp32 tensors (..., T, dim / 2).
    """
    places = torch.arange(0, dim // 2, dtype=torch.float32, device=positions.device)  # (dim / 2,)
    frequency = theta ** (-places * 2 / dim)  # (dim / 2,)
    if yarn is not None:
        frequency = _stretched(frequency, theta, yarn)
    angle = positions.float().unsqueeze(-1) * frequency  # (..., T, dim / 2)
    if yarn is None:
        return angle.cos(), angle.sin()
    return angle.cos() * yarn.turn_scale, angle.sin() * yarn.turn_scale


def _stretched(frequency: Tensor, theta: float, yarn: Yarn) -> Tensor:
    """YaRN's frequencies (arXiv 2309.00071, section 3.2).

    The ramp over indices is that of DeepSeek-V2's published code.
    """
    count = len(frequency)
    context = yarn.original_max_position_embeddings

    def index(turns: float) -> float:
        """The frequency that makes so many turns within the original context."""
        wave = math.log(context / (turns * 2 * math.pi))
        return count * wave / math.log(theta)

    low = max(math.floor(index(yarn.beta_fast)), 0)
    high = min(math.ceil(index(yarn.beta_slow)), 2 * count - 1)
    places = torch.arange(count, dtype=torch.float32, device=frequency.device)
    slow = ((places - low) / (high - low or 1e-3)).clamp(0, 1)  # (dim / 2,) share that is divided
    return frequency * (1 - slow) + frequency / yarn.factor * slow


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (B, heads, T, dim) by cos, sin (B, 1, T, dim / 2)."""
    left, right = x.chunk(2, dim=-1)  # (B, heads, T, dim / 2) each
    first = left * cos - right * sin
    second = left * sin + right * cos
    return torch.cat((first, second), dim=-1)
