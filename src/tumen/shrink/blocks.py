"""The exact bytes of a block: codes and scales in ggml's order.

The order is that of ggml-common.h and ggml-quants.c of github.com/ggml-org/llama.cpp. N blocks;
codes (N, weights of a block) and levels (N, parts) are non-negative integers in uint8.
`gguf.quants.dequantize` reads the bytes back exactly (tests/shrink/test_quant_types.py).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

Halves = tuple[Tensor, Tensor]  # d and dmin of every block as two bytes each (N, 2)
# codes, levels, depths, halves -> (N, bytes of a block)
Pack = Callable[[Tensor, Tensor, Tensor, Halves], Tensor]


def half_bytes(number: Tensor) -> Tensor:
    """Numbers (N, 1, 1) in half precision, as bytes (N, 2)."""
    return number.reshape(-1, 1).half().view(torch.uint8)


def stacked(codes: Tensor, groups: int, lanes: int, bits: int) -> Tensor:
    """Pack codes (N, ... groups * lanes) of `bits` bits.

    A byte holds one code of each group, the first group in the lowest bits.
    """
    grouped = codes.reshape(len(codes), -1, groups, lanes)  # (N, ..., groups, lanes)
    whole = torch.zeros_like(grouped[:, :, 0])  # (N, ..., lanes)
    for group in range(groups):
        shift = bits * group
        whole |= grouped[:, :, group] << shift
    return whole.flatten(1)


def nibbles(codes: Tensor, lanes: int) -> Tensor:
    """Four bits a code."""
    return stacked(codes & 15, groups=2, lanes=lanes, bits=4)


def quarters(codes: Tensor) -> Tensor:
    """Two bits a code, 128 codes in 32 bytes."""
    return stacked(codes & 3, groups=4, lanes=32, bits=2)


def bits(codes: Tensor) -> Tensor:
    """One bit a code, 256 codes in 32 bytes."""
    return stacked(codes & 1, groups=8, lanes=32, bits=1)


def six_bits(level: Tensor, depth: Tensor) -> Tensor:
    """Eight levels and eight depths of six bits in twelve bytes.

    The upper two bits of the second four lie above the first four; the lower four bits of the
    second four fill bytes of their own.
    """
    levels = level[:, :4] | (level[:, 4:] >> 4) << 6
    depths = depth[:, :4] | (depth[:, 4:] >> 4) << 6
    lower = (level[:, 4:] & 15) | (depth[:, 4:] & 15) << 4  # (N, 4)
    return torch.cat((levels, depths, lower), dim=1)


def q8_0(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes -128..127, lifted by 128."""
    signed = codes ^ 128  # back to two's complement
    return torch.cat((halves[0], signed), dim=1)


def q5_0(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes -16..15, lifted by 16; the fifth bits come first."""
    count = len(codes)
    fifth = (codes >> 4).reshape(count, 4, 8)
    fifth = fifth.transpose(1, 2).reshape(count, -1)
    fifth = stacked(fifth, groups=8, lanes=4, bits=1)  # (N, 4): 32 bits
    return torch.cat((halves[0], fifth, nibbles(codes, 16)), dim=1)


def q4_0(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes -8..7, lifted by 8."""
    return torch.cat((halves[0], nibbles(codes, 16)), dim=1)


def q6_k(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes -32..31, lifted by 32; levels -128..127, lifted by 128."""
    lower = nibbles(codes, 64)
    upper = quarters(codes >> 4)
    return torch.cat((lower, upper, level ^ 128, halves[0]), dim=1)


def q5_k(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes 0..31."""
    scales = six_bits(level, depth)
    upper = bits(codes >> 4)
    return torch.cat((*halves, scales, upper, nibbles(codes, 32)), dim=1)


def q4_k(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes 0..15."""
    scales = six_bits(level, depth)
    return torch.cat((*halves, scales, nibbles(codes, 32)), dim=1)


def q3_k(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes -4..3, lifted by 4; levels -32..31, lifted by 32."""
    lower = stacked(level & 15, groups=2, lanes=8, bits=4)
    upper = stacked(level >> 4, groups=4, lanes=4, bits=2)
    scales = torch.cat((lower, upper), dim=1)
    return torch.cat((bits(codes >> 2), quarters(codes), scales, halves[0]), dim=1)


def q2_k(codes: Tensor, level: Tensor, depth: Tensor, halves: Halves) -> Tensor:
    """Codes 0..3."""
    scales = level | depth << 4
    return torch.cat((scales, quarters(codes), *halves), dim=1)


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
