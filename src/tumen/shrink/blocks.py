"""The exact bytes of a block: codes and scales in ggml's order (ggml-common.h, ggml-quants.c of github.com/ggml-org/llama.cpp).

N blocks; codes (N, weights of a block) and levels (N, parts) are whole numbers that are not negative, in uint8. What is written
here, `gguf.quants.dequantize` reads back to the bit (tests/shrink/test_grid.py).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

Halves = tuple[Tensor, Tensor]  # d and dmin of every block as two bytes each (N, 2)
Pack = Callable[
    [Tensor, Tensor, Tensor, Halves], Tensor
]  # codes, levels, depths, halves -> (N, bytes of a block)


def half_bytes(number: Tensor) -> Tensor:
    """Numbers (N, 1, 1) in half precision, as bytes (N, 2)."""
    return number.reshape(-1, 1).half().view(torch.uint8)


def stacked(codes: Tensor, groups: int, lanes: int, bits: int) -> Tensor:
    """Codes (N, ... groups * lanes) of `bits` bits, a byte holding one of each group, the first lowest."""
    grouped = codes.reshape(len(codes), -1, groups, lanes)
    whole = torch.zeros_like(grouped[:, :, 0])
    for group in range(groups):
        whole |= grouped[:, :, group] << (bits * group)
    return whole.flatten(1)


def nibbles(codes: Tensor, lanes: int) -> Tensor:
    """Four bits a code."""
    return stacked(codes & 15, 2, lanes, 4)


def quarters(codes: Tensor) -> Tensor:
    """Two bits a code, 128 codes to 32 bytes."""
    return stacked(codes & 3, 4, 32, 2)


def bits(codes: Tensor) -> Tensor:
    """One bit a code, 256 codes to 32 bytes."""
    return stacked(codes & 1, 8, 32, 1)


def six_bits(level: Tensor, depth: Tensor) -> Tensor:
    """Eight levels and eight depths of six bits in twelve bytes: the upper bits of the second four lie above the first four."""
    low = [part[:, :4] | (part[:, 4:] >> 4) << 6 for part in (level, depth)]
    return torch.cat((*low, (level[:, 4:] & 15) | (depth[:, 4:] & 15) << 4), dim=1)


def q8_0(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes -128..127, shifted up by 128."""
    return torch.cat((halves[0], codes ^ 128), dim=1)  # to two's complement


def q5_0(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes -16..15, shifted up by 16; the fifth bits come first."""
    fifth = (codes >> 4).reshape(len(codes), 4, 8).transpose(1, 2).reshape(len(codes), -1)
    return torch.cat((halves[0], stacked(fifth, 8, 4, 1), nibbles(codes, 16)), dim=1)


def q4_0(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes -8..7, shifted up by 8."""
    return torch.cat((halves[0], nibbles(codes, 16)), dim=1)


def q6_k(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes -32..31, shifted up by 32; levels -128..127, shifted up by 128."""
    return torch.cat((nibbles(codes, 64), quarters(codes >> 4), level ^ 128, halves[0]), dim=1)


def q5_k(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes 0..31."""
    return torch.cat((*halves, six_bits(level, depth), bits(codes >> 4), nibbles(codes, 32)), dim=1)


def q4_k(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes 0..15."""
    return torch.cat((*halves, six_bits(level, depth), nibbles(codes, 32)), dim=1)


def q3_k(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes -4..3, shifted up by 4; levels -32..31, shifted up by 32."""
    scales = torch.cat((stacked(level & 15, 2, 8, 4), stacked(level >> 4, 4, 4, 2)), dim=1)
    return torch.cat((bits(codes >> 2), quarters(codes), scales, halves[0]), dim=1)


def q2_k(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes 0..3."""
    return torch.cat((level | depth << 4, quarters(codes), *halves), dim=1)


PACK: dict[Kind, Pack] = {
    Kind.Q8_0: q8_0,
    Kind.Q5_0: q5_0,
    Kind.Q4_0: q4_0,
    Kind.Q6_K: q6_k,
    Kind.Q5_K: q5_k,
    Kind.Q4_K: q4_k,
    Kind.Q3_K: q3_k,
    Kind.Q2_K: q2_k,
}
