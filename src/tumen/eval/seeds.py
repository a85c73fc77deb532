"""Means over seeds and how sure they are: few runs, so Student's t (Student 1908) and never a normal's 1.96."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Mean(NamedTuple):
    """A mean with its 95% interval; one value has none."""

    mean: float
    low: float | None
    high: float | None


def over_seeds(values: Sequence[float]) -> Mean:
    """Mean of at least one value; the interval assumes that seeds vary it about normally."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Mean(mean, None, None)
    half = t95(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Mean(mean, mean - half, mean + half)


def difference(values: Sequence[float], others: Sequence[float]) -> Mean:
    """Mean of values minus others, paired: the same places are of the same seed."""
    return over_seeds([value - other for value, other in zip(values, others, strict=True)])


def t95(freedom: int) -> float:
    """What |t| of `freedom` degrees of freedom exceeds in 5% of cases; by bisection."""
    low, high = 1.0, 13.0  # 12.706 at one degree, 1.960 at infinitely many
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < 0.95 else (low, middle)
    return high


def within(t: float, freedom: int) -> float:
    """Probability that |T| <= t, as the finite sum for whole degrees (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= k / (k + 1) * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
