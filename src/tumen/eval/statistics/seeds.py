"""Means over seeds with intervals by Student's t (Student 1908), as runs are few."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

BISECTIONS = 60


class SeedMean(NamedTuple):
    """A mean with its 95 % interval; a single value has none."""

    mean: float
    low: float | None
    high: float | None


def mean_over_seeds(values: Sequence[float]) -> SeedMean:
    """Return the mean of at least one value, one for each seed.

    The interval assumes that seeds vary the value about normally.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return SeedMean(mean, None, None)
    half = t95(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return SeedMean(mean, mean - half, mean + half)


def paired_seed_difference(values: Sequence[float], others: Sequence[float]) -> SeedMean:
    """Return the mean of values minus others; the same place in both is the same seed.

    Raises:
        ValueError: the sequences are of different lengths.
    """
    return mean_over_seeds([value - other for value, other in zip(values, others, strict=True)])


def t95(freedom: int) -> float:
    """Return the |t| that is exceeded in 5 % of cases, by bisection.

    Args:
        freedom: degrees of freedom, from 1 on.
    """
    low = 1.0
    high = 13.0  # t is 12.706 at one degree of freedom and 1.960 at infinitely many
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if probability_within(middle, freedom) < 0.95:
            low = middle
        else:
            high = middle
    return high


def probability_within(t: float, freedom: int) -> float:
    """Return P(|T| <= t) of Student's t, as a finite sum for whole degrees of freedom.

    Abramowitz and Stegun, 26.7.3 (odd) and 26.7.4 (even).
    """
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= k / (k + 1) * math.cos(angle) ** 2
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
