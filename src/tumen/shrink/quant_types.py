"""Quantization types of GGUF: best scales for given weights, nearest codes, exact bytes.

A row is cut into blocks and a block into parts. Within a part

    w = scale * code - floor        scale = d * level        floor = dmin * depth

with an integer `code` for each weight, integers `level` and `depth` for each part, and fp16 `d` and
`dmin` for each block (k-quants: github.com/ggerganov/llama.cpp/pull/1684). Q8_0, Q5_0 and Q4_0 have
one part, no levels and no floor.

`Scales` hold everything but the codes; given the scales, the best code is the nearest. Training
rounds at every step (quantize/qat.py), packing rounds once and writes bytes. Both call
`Quantizer.codes` and `Quantizer.values`, so they give the same bits.
The search for the best scales is our own, not ggml's: the format defines what scales may be, not
how to choose them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from tumen.core.errors import ExportError
from tumen.formats.ggml_types import BY_NUMBER
from tumen.recipe.field_types import QuantType
from tumen.shrink.blocks import PACK, half_bytes

# Offsets, in codes, of the outermost weight from the outermost code that the search tries.
SEARCH = tuple(step / 10 for step in range(-12, 13, 3))
# How often the search alternates: best codes given the scales, then best scales given the codes.
ROUNDS = 2
# Weights searched at once; bounds the memory of the search.
AT_ONCE = 1 << 22
# The largest finite fp16 number.
LARGEST_HALF = 65504


class Scales(NamedTuple):
    """Scales of N blocks with P parts each, all fp32.

    `d` and `dmin` (N, 1, 1) hold fp16 numbers, `level` and `depth` (N, P, 1) hold integers.
    """

    d: Tensor
    level: Tensor
    dmin: Tensor
    depth: Tensor

    @property
    def scale(self) -> Tensor:
        """What one step of a code is worth, (N, P, 1)."""
        return self.d * self.level

    @property
    def floor(self) -> Tensor:
        """What is subtracted from every weight of a part, (N, P, 1)."""
        return self.dmin * self.depth


@dataclass(frozen=True)
class Quantizer:
    """One quantization type.

    Attributes:
        kind: the type's number in the file.
        otherwise: the type for rows whose length is no multiple of the block.
        part: weights that share a level.
        low: the smallest code.
        high: the largest code.
        levels: the smallest and the largest level.
        depths: the largest depth; 0 where the type has no floor.
    """

    kind: Kind
    otherwise: QuantType
    part: int = 1
    low: int = 0
    high: int = 0
    levels: tuple[int, int] = (1, 1)
    depths: int = 0

    @property
    def block(self) -> int:
        """Weights of a block."""
        return BY_NUMBER[self.kind].values

    @property
    def block_bytes(self) -> int:
        """Bytes of a block in the file."""
        return BY_NUMBER[self.kind].bytes

    @property
    def bits(self) -> float:
        """Bits a weight, scales included."""
        return 8 * self.block_bytes / self.block

    def bytes_of(self, tensor: Tensor) -> int:
        """Bytes of a whole tensor in the file."""
        blocks = tensor.numel() // self.block
        return blocks * self.block_bytes

    def cut(self, rows: Tensor) -> Tensor:
        """Rows (..., columns) as blocks (N, P, part)."""
        parts = self.block // self.part
        return rows.reshape(-1, parts, self.part)

    def fit(self, weights: Tensor, importance: Tensor | None = None) -> Scales:
        """Search the scales with the least squared error.

        Args:
            weights: fp32 (..., columns); columns are a multiple of the block.
            importance: weight of each squared error, of a shape that broadcasts to the weights';
                None counts all alike.

        Raises:
            ExportError: a weight is NaN or infinite.
        """
        if not torch.isfinite(weights).all():
            raise ExportError(
                "weights hold NaN or infinite numbers; no quantization type has them: "
                "train the tier again"
            )
        if importance is None:
            counts = torch.ones_like(weights)
        else:
            counts = importance.expand_as(weights)
        size = max(1, AT_ONCE // self.block)
        pieces = zip(self.cut(weights).split(size), self.cut(counts).split(size), strict=True)
        # Each piece holds whole blocks, so its result does not depend on the others.
        found = [self._search(x, count) for x, count in pieces]
        return Scales(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def codes(self, blocks: Tensor, scales: Scales) -> Tensor:
        """The nearest codes (N, P, part), fp32, of blocks given their scales."""
        scale = scales.scale  # (N, P, 1)
        # A part whose scale is 0 holds zeros alone.
        inverse = torch.where(scale == 0, 0, 1 / scale)
        shifted = blocks + scales.floor if self.depths else blocks
        nearest = (shifted * inverse).round_()
        return nearest.clamp_(self.low, self.high)

    def values(self, codes: Tensor, scales: Scales) -> Tensor:
        """The weights that codes stand for.

        The order of operations is that of gguf's own `dequantize`, so the results are equal bit by
        bit.
        """
        if self.depths:
            return scales.scale * codes - scales.floor
        return scales.scale * codes

    def fake_quantize(self, weights: Tensor, scales: Scales) -> Tensor:
        """The nearest weights that the type can hold: quantized and read back."""
        codes = self.codes(self.cut(weights), scales)
        return self.values(codes, scales).view(weights.shape)

    def encode(self, weights: Tensor, scales: Scales) -> Tensor:
        """The file's bytes (..., bytes of a row), uint8, of weights (..., columns)."""
        codes = self.codes(self.cut(weights), scales).flatten(1)
        codes = codes + lift(self.low)  # (N, block), not negative
        level = scales.level.flatten(1) + lift(self.levels[0])  # (N, P)
        depth = scales.depth.flatten(1)  # (N, P)
        packed = PACK[self.kind](
            codes.to(torch.uint8),
            level.to(torch.uint8),
            depth.to(torch.uint8),
            (half_bytes(scales.d), half_bytes(scales.dmin)),
        )
        return packed.reshape(*weights.shape[:-1], -1)

    def _search(self, x: Tensor, count: Tensor) -> Scales:
        """Find scales for each part alone, round them to levels, then improve each side in turn."""
        best = self._first(x, count)
        least = self._error(x, count, best)
        for _ in range(ROUNDS):
            for improved in (self._level, self._depth, self._halves):
                better = improved(x, count, best)
                error = self._error(x, count, better)
                best = _merged(error < least, better, best)
                least = torch.minimum(error, least)
        return best

    def _first(self, x: Tensor, count: Tensor) -> Scales:
        """Scales of every part alone, rounded to the nearest levels and depths."""
        if self.depths:
            scale, floor = slanted(x, count, self.high)
            d, level = shared(scale, *self.levels)
            dmin, depth = shared(floor, 0, self.depths)
            return Scales(d, level, dmin, depth)
        scale = centred(x, count, self.low, self.high)
        d, level = shared(scale, *self.levels)
        return Scales(d, level, dmin=torch.zeros_like(d), depth=torch.zeros_like(level))

    def _error(self, x: Tensor, count: Tensor, scales: Scales) -> Tensor:
        """Weighted squared error of every block (N, 1, 1)."""
        codes = self.codes(x, scales)
        wrong = self.values(codes, scales) - x
        return (count * wrong * wrong).sum(dim=(1, 2), keepdim=True)

    def _level(self, x: Tensor, count: Tensor, scales: Scales) -> Scales:
        """The best level of each part while the codes and all else stay."""
        lowest, highest = self.levels
        if lowest == highest:
            return scales
        codes = self.codes(x, scales)
        # Least squares with one unknown, the scale.
        along = (count * (x + scales.floor) * codes).sum(2, keepdim=True)  # (N, P, 1)
        square = (count * codes * codes).sum(2, keepdim=True)  # (N, P, 1)
        wanted = ratio(along, square)
        level = ratio(wanted, scales.d).round()
        return scales._replace(level=level.clamp(lowest, highest))

    def _depth(self, x: Tensor, count: Tensor, scales: Scales) -> Scales:
        """The best depth of each part while the codes and all else stay."""
        if not self.depths:
            return scales
        above = scales.scale * self.codes(x, scales) - x  # (N, P, part)
        # The weighted mean of what the codes are too high by.
        excess = (count * above).sum(2, keepdim=True)
        wanted = ratio(excess, count.sum(2, keepdim=True))  # (N, P, 1)
        depth = ratio(wanted, scales.dmin).round()
        return scales._replace(depth=depth.clamp(0, self.depths))

    def _halves(self, x: Tensor, count: Tensor, scales: Scales) -> Scales:
        """The best d and dmin of each block while codes, levels and depths stay.

        x = d a - dmin b has two unknowns, so there are two normal equations.
        """
        a = scales.level * self.codes(x, scales)  # (N, P, part)
        b = scales.depth.expand_as(x)

        def total(product: Tensor) -> Tensor:
            return (count * product).sum(dim=(1, 2), keepdim=True)  # (N, 1, 1)

        aa = total(a * a)
        ax = total(a * x)
        alone = ratio(ax, aa)  # the best d without a floor
        if not self.depths:
            return scales._replace(d=halved(alone))
        ab = total(a * b)
        bb = total(b * b)
        bx = total(b * x)
        # Cramer's rule
        whole = aa * bb - ab * ab
        d = ratio(ax * bb - ab * bx, whole)
        dmin = ratio(ab * ax - aa * bx, whole)
        dmin = dmin.clamp(min=0)
        d = torch.where(dmin == 0, alone, d)
        return scales._replace(d=halved(d), dmin=halved(dmin))


class Half(Quantizer):
    """bf16: no blocks, no scales."""

    def cut(self, rows: Tensor) -> Tensor:
        """Rows as they are."""
        return rows

    def fit(self, weights: Tensor, importance: Tensor | None = None) -> Scales:
        """Empty scales: bf16 has none."""
        nothing = weights.new_zeros(0)
        return Scales(nothing, nothing, nothing, nothing)

    def fake_quantize(self, weights: Tensor, scales: Scales) -> Tensor:
        """The weights rounded to bf16, as fp32."""
        return weights.bfloat16().float()

    def encode(self, weights: Tensor, scales: Scales) -> Tensor:
        """Two bytes a weight."""
        rounded = weights.bfloat16().contiguous()
        return rounded.view(torch.uint8)


def _merged(where: Tensor, new: Scales, old: Scales) -> Scales:
    """The new scales where a block (N, 1, 1) improves, the old ones elsewhere."""
    pairs = zip(new, old, strict=True)
    return Scales(*(torch.where(where, a, b) for a, b in pairs))


def lift(least: int) -> int:
    """What is added to integers of at least `least` to store them unsigned: half their range."""
    if least >= 0:
        return 0
    bits = (-least - 1).bit_length()
    return 1 << bits


def ratio(over: Tensor, under: Tensor) -> Tensor:
    """The quotient, 0 where the divisor is 0."""
    quotient = over / under
    return torch.where(under == 0, 0, quotient)


def halved(number: Tensor) -> Tensor:
    """The nearest fp16 number, as fp32."""
    within = number.clamp(-LARGEST_HALF, LARGEST_HALF)
    return within.half().float()


def centred(x: Tensor, count: Tensor, low: int, high: int) -> Tensor:
    """Scales (N, P, 1) of a type without a floor.

    Each try puts the largest weight near the lowest code, rounds, and solves least squares for the
    scale given those codes.
    """
    largest = x.abs().argmax(dim=2, keepdim=True)  # (N, P, 1)
    peak = x.gather(2, largest)  # (N, P, 1), with its sign
    gain = torch.full_like(peak, -1)
    scale = torch.zeros_like(peak)
    for step in SEARCH:
        inverse = ratio(torch.full_like(peak, low + step), peak)
        codes = (x * inverse).round_().clamp_(low, high)
        weighed = count * codes
        xc = (weighed * x).sum(2, keepdim=True)
        cc = (weighed * codes).sum(2, keepdim=True)
        # The error that these codes save at their best scale, xc / cc.
        gained = ratio(xc * xc, cc)
        better = gained > gain
        gain = torch.where(better, gained, gain)
        scale = torch.where(better, ratio(xc, cc), scale)
    return scale


def slanted(x: Tensor, count: Tensor, high: int) -> tuple[Tensor, Tensor]:
    """Scales and floors (N, P, 1), floors at least 0.

    Each try spreads the range of the weights over about all codes, rounds, and solves least squares
    for scale and floor given those codes.
    """
    least = x.amin(2, keepdim=True).clamp(max=0)  # (N, P, 1)
    width = x.amax(2, keepdim=True) - least
    sums = _Sums.of(x, count)
    fewest = torch.full_like(least, float("inf"))
    scale = torch.zeros_like(least)
    floor = torch.zeros_like(least)
    for step in SEARCH:
        inverse = ratio(torch.full_like(width, high + step), width)
        codes = ((x - least) * inverse).round_().clamp_(0, high)
        slope, below, error = sums.solve(x, count * codes, codes)
        better = error < fewest
        fewest = torch.where(better, error, fewest)
        scale = torch.where(better, slope, scale)
        floor = torch.where(better, below, floor)
    return scale, floor


class _Sums(NamedTuple):
    """Weighted sums over each part that do not depend on the codes, (N, P, 1) each."""

    n: Tensor
    sx: Tensor
    xx: Tensor

    @classmethod
    def of(cls, x: Tensor, count: Tensor) -> _Sums:
        """Sum 1, x and x^2 with the weights `count`."""
        return cls(
            n=count.sum(2, keepdim=True),
            sx=(count * x).sum(2, keepdim=True),
            xx=(count * x * x).sum(2, keepdim=True),
        )

    def solve(self, x: Tensor, weighed: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best slope and floor of x = slope * code - below, and their squared error.

        Args:
            x: weights (N, P, part).
            weighed: codes times the weights of the squared errors.
            codes: (N, P, part).
        """
        n, sx, xx = self
        sc = weighed.sum(2, keepdim=True)
        cc = (weighed * codes).sum(2, keepdim=True)
        xc = (weighed * x).sum(2, keepdim=True)
        # Cramer's rule
        whole = n * cc - sc * sc
        slope = ratio(n * xc - sc * sx, whole)
        below = ratio(sc * xc - cc * sx, whole)
        # A negative floor is not in the format; without one the best slope is xc / cc.
        slope = torch.where(below < 0, ratio(xc, cc), slope)
        below = below.clamp(min=0)
        error = (
            xx
            + slope * slope * cc
            + below * below * n
            - 2 * slope * xc
            + 2 * below * sx
            - 2 * slope * below * sc
        )
        return slope, below, error


def shared(wanted: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Split numbers (N, P, 1) into fp16 (N, 1, 1) times integers (N, P, 1) from low to high."""
    if low == high:
        return halved(wanted), torch.ones_like(wanted)
    largest = wanted.abs().argmax(dim=1, keepdim=True)  # (N, 1, 1)
    peak = wanted.gather(1, largest)
    # The peak gets the outermost integer: the lowest where the range has negative ones.
    outermost = low if low < 0 else high
    d = halved(peak / outermost)
    integers = ratio(wanted, d).round()
    return d, integers.clamp(low, high)


# Finest first.
QUANTIZERS: Mapping[QuantType, Quantizer] = {
    "bf16": Half(Kind.BF16, "bf16"),
    "q8_0": Quantizer(Kind.Q8_0, "bf16", part=32, low=-127, high=127),
    "q6_k": Quantizer(Kind.Q6_K, "q8_0", part=16, low=-32, high=31, levels=(-128, 127)),
    "q5_k": Quantizer(Kind.Q5_K, "q5_0", part=32, high=31, levels=(0, 63), depths=63),
    "q5_0": Quantizer(Kind.Q5_0, "bf16", part=32, low=-16, high=15),
    "q4_k": Quantizer(Kind.Q4_K, "q4_0", part=32, high=15, levels=(0, 63), depths=63),
    "q4_0": Quantizer(Kind.Q4_0, "bf16", part=32, low=-8, high=7),
    "q3_k": Quantizer(Kind.Q3_K, "q4_0", part=16, low=-4, high=3, levels=(-32, 31)),
    "q2_k": Quantizer(Kind.Q2_K, "q4_0", part=16, high=3, levels=(0, 15), depths=15),
}


def fitting(name: QuantType, columns: int) -> QuantType:
    """The type itself, or its fallback where `columns` is no multiple of the block."""
    while columns % QUANTIZERS[name].block:
        name = QUANTIZERS[name].otherwise
    return name
