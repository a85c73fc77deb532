"""The device format's own grids: what a weight may be in a GGUF file, the best scales for given weights, and the exact bytes.

A row is cut into blocks and a block into parts. Within a part

    w = scale * code - floor        scale = d * level        floor = dmin * depth

with a whole number `code` for each weight, whole numbers `level` and `depth` for each part, and half-precision `d` and `dmin` for
each block (k-quants: github.com/ggerganov/llama.cpp/pull/1684). Q8_0, Q5_0 and Q4_0 have one part, no levels and no floor.

`Scales` are all of it but the codes, and given them the best code is the nearest: training rounds at every step (aware.py), packing
rounds once and writes bytes. Both go through `Grid.codes` and `Grid.values`, so they give the same bits.
Which scales are best is searched here, not taken from ggml: the format says what scales may be, not how to choose them.
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

SEARCH = tuple(
    step / 10 for step in range(-12, 13, 3)
)  # how far the largest weight may lie beside the last code, in codes
ROUNDS = 2  # of codes given scales, then scales given codes
AT_ONCE = 1 << 22  # weights searched at once, which bounds the memory


class Scales(NamedTuple):
    """Of N blocks of P parts, fp32: `d`, `dmin` (N, 1, 1) are half-precision numbers, `level`, `depth` (N, P, 1) whole ones."""

    d: Tensor
    level: Tensor
    dmin: Tensor
    depth: Tensor

    @property
    def scale(self) -> Tensor:
        """(N, P, 1)"""
        return self.d * self.level

    @property
    def floor(self) -> Tensor:
        """(N, P, 1)"""
        return self.dmin * self.depth


@dataclass(frozen=True)
class Grid:
    """One of the format's grids. `codes` and `levels` are the smallest and the largest; `part` weights share a level.

    `depths` is the largest depth, 0 where there is no floor. `otherwise` is the grid for rows that no whole number of blocks fits.
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
    def bits(self) -> float:
        """Bits a weight, scales included."""
        return 8 * BY_NUMBER[self.kind].bytes / self.block

    def bytes_of(self, tensor: Tensor) -> int:
        """Bytes of a whole tensor in the file."""
        return tensor.numel() // self.block * BY_NUMBER[self.kind].bytes

    def cut(self, rows: Tensor) -> Tensor:
        """Rows (..., columns) as blocks (N, P, part)."""
        return rows.reshape(-1, self.block // self.part, self.part)

    def fit(self, weights: Tensor, importance: Tensor | None = None) -> Scales:
        """The scales with the least squared error found.

        Args:
            weights: fp32 (..., columns), rows that whole blocks fit.
            importance: how much an error of each weight counts, of a shape that broadcasts to the weights'; None: all alike.

        Raises:
            ExportError: a weight is no finite number.
        """
        if not torch.isfinite(weights).all():
            raise ExportError(
                "weights hold NaN or infinite numbers; no grid has them: train the tier again"
            )
        blocks = self.cut(weights)
        counts = torch.ones_like(weights) if importance is None else importance.expand_as(weights)
        size = max(1, AT_ONCE // self.block)
        pieces = [
            self._search(x, count)
            for x, count in zip(blocks.split(size), self.cut(counts).split(size), strict=True)
        ]
        return Scales(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))

    def codes(self, blocks: Tensor, scales: Scales) -> Tensor:
        """The nearest codes (N, P, part), fp32, of blocks given their scales."""
        scale = scales.scale
        inverse = torch.where(scale == 0, 0, 1 / scale)
        shifted = blocks + scales.floor if self.depths else blocks
        return (shifted * inverse).round_().clamp_(self.low, self.high)

    def values(self, codes: Tensor, scales: Scales) -> Tensor:
        """What codes mean, in the order of operations of gguf's own `dequantize`, so to the bit."""
        return scales.scale * codes - scales.floor if self.depths else scales.scale * codes

    def see(self, weights: Tensor, scales: Scales) -> Tensor:
        """The nearest weights on the grid."""
        return self.values(self.codes(self.cut(weights), scales), scales).view(weights.shape)

    def encode(self, weights: Tensor, scales: Scales) -> Tensor:
        """The file's bytes (..., bytes of a row), uint8, of weights (..., columns)."""
        codes = self.codes(self.cut(weights), scales).flatten(1) + lift(self.low)
        level = scales.level.flatten(1) + lift(self.levels[0])
        codes, level, depth = (
            part.to(torch.uint8) for part in (codes, level, scales.depth.flatten(1))
        )
        packed = PACK[self.kind](
            codes, level, depth, (half_bytes(scales.d), half_bytes(scales.dmin))
        )
        return packed.reshape(*weights.shape[:-1], -1)

    def _search(self, x: Tensor, count: Tensor) -> Scales:
        """Good scales of every part alone, their nearest levels, then both sides in turn."""
        scale, floor = (
            slanted(x, count, self.high)
            if self.depths
            else (centred(x, count, self.low, self.high), None)
        )
        d, level = shared(scale, *self.levels)
        dmin, depth = (
            (torch.zeros_like(d), torch.zeros_like(level))
            if floor is None
            else shared(floor, 0, self.depths)
        )
        best = Scales(d, level, dmin, depth)
        least = self._error(x, count, best)
        for _ in range(ROUNDS):
            for improved in (self._level, self._depth, self._halves):
                better = improved(x, count, best)
                error = self._error(x, count, better)
                best = Scales(
                    *(
                        torch.where(error < least, new, old)
                        for new, old in zip(better, best, strict=True)
                    )
                )
                least = torch.minimum(error, least)
        return best

    def _error(self, x: Tensor, count: Tensor, scales: Scales) -> Tensor:
        """Weighted squared error of every block (N, 1, 1)."""
        wrong = self.values(self.codes(x, scales), scales) - x
        return (count * wrong * wrong).sum(dim=(1, 2), keepdim=True)

    def _level(self, x: Tensor, count: Tensor, scales: Scales) -> Scales:
        """The best level of each part, its codes and everything else held."""
        if self.levels[0] == self.levels[1]:
            return scales
        codes = self.codes(x, scales)
        wanted = ratio(
            (count * (x + scales.floor) * codes).sum(2, keepdim=True),
            (count * codes * codes).sum(2, keepdim=True),
        )
        return scales._replace(level=ratio(wanted, scales.d).round().clamp(*self.levels))

    def _depth(self, x: Tensor, count: Tensor, scales: Scales) -> Scales:
        """The best depth of each part, likewise."""
        if not self.depths:
            return scales
        above = scales.scale * self.codes(x, scales) - x
        wanted = ratio((count * above).sum(2, keepdim=True), count.sum(2, keepdim=True))
        return scales._replace(depth=ratio(wanted, scales.dmin).round().clamp(0, self.depths))

    def _halves(self, x: Tensor, count: Tensor, scales: Scales) -> Scales:
        """The best d and dmin of each block together, likewise: x = d a - dmin b, two normal equations."""
        a, b = scales.level * self.codes(x, scales), scales.depth.expand_as(x)
        aa, ab, bb, ax, bx = (
            (count * p).sum(dim=(1, 2), keepdim=True) for p in (a * a, a * b, b * b, a * x, b * x)
        )
        if not self.depths:
            return scales._replace(d=halved(ratio(ax, aa)))
        whole = aa * bb - ab * ab
        d, dmin = ratio(ax * bb - ab * bx, whole), ratio(ab * ax - aa * bx, whole).clamp(min=0)
        return scales._replace(
            d=halved(torch.where(dmin == 0, ratio(ax, aa), d)), dmin=halved(dmin)
        )


class Half(Grid):
    """bf16: no blocks, no scales."""

    def cut(self, rows: Tensor) -> Tensor:
        return rows

    def fit(self, weights: Tensor, importance: Tensor | None = None) -> Scales:
        nothing = weights.new_zeros(0)
        return Scales(nothing, nothing, nothing, nothing)

    def see(self, weights: Tensor, scales: Scales) -> Tensor:
        return weights.bfloat16().float()

    def encode(self, weights: Tensor, scales: Scales) -> Tensor:
        return weights.bfloat16().contiguous().view(torch.uint8)


def lift(least: int) -> int:
    """What a whole number of at least `least` is stored with: half the range of its bits."""
    return 1 << (-least - 1).bit_length() if least < 0 else 0


def ratio(over: Tensor, under: Tensor) -> Tensor:
    """A quotient that is 0 where nothing is to be divided by."""
    return torch.where(under == 0, 0, over / under)


def halved(number: Tensor) -> Tensor:
    """The nearest half-precision number, as fp32."""
    return number.clamp(-65504, 65504).half().float()


def centred(x: Tensor, count: Tensor, low: int, high: int) -> Tensor:
    """Scales (N, P, 1) without a floor: the weight of largest size near the lowest code, then least squares given the codes."""
    peak = x.gather(2, x.abs().argmax(dim=2, keepdim=True))
    gain, scale = torch.full_like(peak, -1), torch.zeros_like(peak)
    for step in SEARCH:
        codes = (x * ratio(torch.full_like(peak, low + step), peak)).round_().clamp_(low, high)
        weighed = count * codes
        xc, cc = (weighed * x).sum(2, keepdim=True), (weighed * codes).sum(2, keepdim=True)
        gained = ratio(xc * xc, cc)  # what these codes take off the error at their best scale
        better = gained > gain
        gain, scale = torch.where(better, gained, gain), torch.where(better, ratio(xc, cc), scale)
    return scale


def slanted(x: Tensor, count: Tensor, high: int) -> tuple[Tensor, Tensor]:
    """Scales and floors (N, P, 1), floors at least 0: the range near the outermost codes, then least squares given the codes."""
    least = x.amin(2, keepdim=True).clamp(max=0)
    width = x.amax(2, keepdim=True) - least
    n, sx, xx = (
        count.sum(2, keepdim=True),
        (count * x).sum(2, keepdim=True),
        (count * x * x).sum(2, keepdim=True),
    )
    fewest, scale, floor = (
        torch.full_like(least, float("inf")),
        torch.zeros_like(least),
        torch.zeros_like(least),
    )
    for step in SEARCH:
        codes = (
            ((x - least) * ratio(torch.full_like(width, high + step), width))
            .round_()
            .clamp_(0, high)
        )
        weighed = count * codes
        sc, cc, xc = (
            weighed.sum(2, keepdim=True),
            (weighed * codes).sum(2, keepdim=True),
            (weighed * x).sum(2, keepdim=True),
        )
        whole = n * cc - sc * sc
        slope, below = ratio(n * xc - sc * sx, whole), ratio(sc * xc - cc * sx, whole)
        slope, below = torch.where(below < 0, ratio(xc, cc), slope), below.clamp(min=0)
        error = (
            xx
            + slope * slope * cc
            + below * below * n
            - 2 * slope * xc
            + 2 * below * sx
            - 2 * slope * below * sc
        )
        better = error < fewest
        fewest, scale, floor = (
            torch.where(better, *pair) for pair in ((error, fewest), (slope, scale), (below, floor))
        )
    return scale, floor


def shared(wanted: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Numbers (N, P, 1) as a half-precision number (N, 1, 1) times whole ones (N, P, 1) from low to high."""
    if low == high:
        return halved(wanted), torch.ones_like(wanted)
    peak = wanted.gather(1, wanted.abs().argmax(dim=1, keepdim=True))
    d = halved(peak / (low if low < 0 else high))
    return d, ratio(wanted, d).round().clamp(low, high)


GRIDS: Mapping[QuantType, Grid] = {  # finest first
    "bf16": Half(Kind.BF16, "bf16"),
    "q8_0": Grid(Kind.Q8_0, "bf16", part=32, low=-127, high=127),
    "q6_k": Grid(Kind.Q6_K, "q8_0", part=16, low=-32, high=31, levels=(-128, 127)),
    "q5_k": Grid(Kind.Q5_K, "q5_0", part=32, high=31, levels=(0, 63), depths=63),
    "q5_0": Grid(Kind.Q5_0, "bf16", part=32, low=-16, high=15),
    "q4_k": Grid(Kind.Q4_K, "q4_0", part=32, high=15, levels=(0, 63), depths=63),
    "q4_0": Grid(Kind.Q4_0, "bf16", part=32, low=-8, high=7),
    "q3_k": Grid(Kind.Q3_K, "q4_0", part=16, low=-4, high=3, levels=(-32, 31)),
    "q2_k": Grid(Kind.Q2_K, "q4_0", part=16, high=3, levels=(0, 15), depths=15),
}


def fitting(name: QuantType, columns: int) -> QuantType:
    """The grid itself, or the one its rows fall back to when no whole number of blocks fits `columns`."""
    while columns % GRIDS[name].block:
        name = GRIDS[name].otherwise
    return name
