"""Two answerers on the same cases: how sure their ratio and their difference are. Marks are texts of 0 and 1, one for each case.

The pairs matter: two tiers fail on the same hard sentences, so the interval of what differs is narrower than those of two
independent shares would make it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tumen.eval.metrics import Z95, wilson


class Interval(NamedTuple):
    """A value with its 95% interval; None where it has none (a share of nothing)."""

    value: float | None
    low: float | None
    high: float | None


class _Counts(NamedTuple):
    both: int
    first: int
    second: int
    neither: int


def _counts(first: str, second: str) -> _Counts:
    if len(first) != len(second):
        raise ValueError(f"marks of {len(first)} and of {len(second)} cases are no pairs")
    pairs = list(zip(first, second, strict=True))
    return _Counts(
        *(pairs.count(pair) for pair in (("1", "1"), ("1", "0"), ("0", "1"), ("0", "0")))
    )


def ratio(first: str, second: str) -> Interval:
    """Share of `first` over share of `second` (Bonett and Price, Statistics in Medicine 25 (2006), 3039-3047).

    A hybrid of two Wilson intervals whose z is made smaller by what the pairs share; cases that neither got say nothing.
    """
    n = _counts(first, second)
    told = n.both + n.first + n.second
    ours, theirs = n.both + n.first, n.both + n.second
    if theirs == 0:
        return Interval(None, None, None)
    spread = math.sqrt((n.first + n.second + 2) / ((ours + 1) * (theirs + 1)))
    alone = sum(math.sqrt((1 - (hits + 1) / (told + 2)) / (hits + 1)) for hits in (ours, theirs))
    z = Z95 * spread / alone
    (low, high), (other_low, other_high) = _wilson(ours, told, z), _wilson(theirs, told, z)
    return Interval(ours / theirs, low / other_high, high / other_low if other_low > 0 else None)


def _wilson(hits: int, n: int, z: float) -> tuple[float, float]:
    middle, half = 2 * hits + z * z, z * math.sqrt(z * z + 4 * hits * (1 - hits / n))
    return max(0.0, middle - half) / (2 * (n + z * z)), (middle + half) / (2 * (n + z * z))


def gap(first: str, second: str) -> Interval:
    """Share of `first` minus share of `second` (Newcombe, Statistics in Medicine 17 (1998), 2635-2650, method 10)."""
    n = _counts(first, second)
    total = sum(n)
    if total == 0:
        return Interval(None, None, None)
    ours, theirs = n.both + n.first, n.both + n.second
    (low, high), (other_low, other_high) = wilson(ours, total), wilson(theirs, total)
    share, other = ours / total, theirs / total
    link = _link(n)

    def reach(mine: float, others: float) -> float:
        return math.sqrt(max(0.0, mine * mine - 2 * link * mine * others + others * others))

    value = share - other
    return Interval(
        value,
        value - reach(share - low, other_high - other),
        value + reach(high - share, other - other_low),
    )


def _link(n: _Counts) -> float:
    """Correlation of the two, with method 10's correction for continuity."""
    margins = (
        (n.both + n.first) * (n.second + n.neither) * (n.both + n.second) * (n.first + n.neither)
    )
    if margins == 0:
        return 0.0
    across = n.both * n.neither - n.first * n.second
    half = sum(n) / 2
    return (max(across - half, 0.0) if across > 0 else across) / math.sqrt(margins)
