"""Two systems on the same cases: intervals of the ratio and of the difference of their shares.

Pairing matters: two tiers fail on the same hard sentences, so the interval of what differs is
narrower than that of two independent shares. Marks are strings of 0 and 1, one for each case.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tumen.eval.statistics.intervals import Z95, wilson


class PairedInterval(NamedTuple):
    """A value with its 95 % interval; None where it has none, such as a share of nothing."""

    value: float | None
    low: float | None
    high: float | None


class _PairCounts(NamedTuple):
    """How many cases both systems got right, the first alone, the second alone, and neither."""

    both: int
    first: int
    second: int
    neither: int


def _count_pairs(first: str, second: str) -> _PairCounts:
    if len(first) != len(second):
        raise ValueError(f"marks of {len(first)} and of {len(second)} cases cannot be paired")
    pairs = list(zip(first, second, strict=True))
    return _PairCounts(
        both=pairs.count(("1", "1")),
        first=pairs.count(("1", "0")),
        second=pairs.count(("0", "1")),
        neither=pairs.count(("0", "0")),
    )


def paired_ratio(first: str, second: str) -> PairedInterval:
    """Return the share of `first` over the share of `second`.

    A hybrid of two Wilson intervals whose z is reduced by what the pairs have in common (Bonett and
    Price, Statistics in Medicine 25 (2006), 3039-3047). Cases that neither got right do not count.

    Args:
        first: marks of one system.
        second: marks of the other, for the same cases in the same order.

    Raises:
        ValueError: the marks are of different lengths.
    """
    n = _count_pairs(first, second)
    informative = n.both + n.first + n.second
    ours = n.both + n.first
    theirs = n.both + n.second
    if theirs == 0:
        return PairedInterval(None, None, None)
    paired = math.sqrt((n.first + n.second + 2) / ((ours + 1) * (theirs + 1)))
    unpaired = _log_error(ours, informative) + _log_error(theirs, informative)
    z = Z95 * paired / unpaired
    low, high = _wilson_at(ours, informative, z)
    other_low, other_high = _wilson_at(theirs, informative, z)
    upper = high / other_low if other_low > 0 else None
    return PairedInterval(ours / theirs, low / other_high, upper)


def _log_error(hits: int, n: int) -> float:
    """Return the standard error of a share's logarithm, with one hit and one miss added."""
    return math.sqrt((1 - (hits + 1) / (n + 2)) / (hits + 1))


def _wilson_at(hits: int, n: int, z: float) -> tuple[float, float]:
    middle = 2 * hits + z * z
    half = z * math.sqrt(z * z + 4 * hits * (1 - hits / n))
    scale = 2 * (n + z * z)
    return max(0.0, middle - half) / scale, (middle + half) / scale


def paired_difference(first: str, second: str) -> PairedInterval:
    """Return the share of `first` minus the share of `second`.

    Newcombe, Statistics in Medicine 17 (1998), 2635-2650, method 10.

    Args:
        first: marks of one system.
        second: marks of the other, for the same cases in the same order.

    Raises:
        ValueError: the marks are of different lengths.
    """
    n = _count_pairs(first, second)
    total = sum(n)
    if total == 0:
        return PairedInterval(None, None, None)
    hits = n.both + n.first
    other_hits = n.both + n.second
    low, high = wilson(hits, total)
    other_low, other_high = wilson(other_hits, total)
    share = hits / total
    other = other_hits / total
    correlation = _correlation(n)
    below = _combined(share - low, other_high - other, correlation)
    above = _combined(high - share, other - other_low, correlation)
    value = share - other
    return PairedInterval(value, value - below, value + above)


def _combined(mine: float, others: float, correlation: float) -> float:
    """Return the half-width of the difference of two correlated shares."""
    squared = mine * mine - 2 * correlation * mine * others + others * others
    return math.sqrt(max(0.0, squared))


def _correlation(n: _PairCounts) -> float:
    """Return the correlation of the two systems, with method 10's continuity correction."""
    first_margins = (n.both + n.first) * (n.second + n.neither)
    second_margins = (n.both + n.second) * (n.first + n.neither)
    margins = first_margins * second_margins
    if margins == 0:
        return 0.0
    across = n.both * n.neither - n.first * n.second
    corrected = float(across)
    if across > 0:
        corrected = max(across - sum(n) / 2, 0.0)
    return corrected / math.sqrt(margins)
