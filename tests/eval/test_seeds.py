"""Means over seeds: Student's t against the printed tables, intervals that cover, pairs that pair."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tumen.eval.statistics import mean_over_seeds, paired_seed_difference
from tumen.eval.statistics.seeds import probability_within, t95

# Student's t, two-sided 5%, as in any printed table
PRINTED = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    9: 2.262,
    10: 2.228,
    29: 2.045,
    30: 2.042,
    60: 2.000,
    120: 1.980,
}


@pytest.mark.parametrize(("freedom", "value"), PRINTED.items())
def test_t_is_the_printed_one(freedom: int, value: float) -> None:
    assert t95(freedom) == pytest.approx(value, abs=6e-4)


def test_t_becomes_the_normals() -> None:
    assert t95(5000) == pytest.approx(1.95996, abs=1e-3)
    assert probability_within(0.0, 3) == probability_within(0.0, 4) == 0.0


def test_interval_by_hand() -> None:
    mean, low, high = mean_over_seeds([1.0, 2.0, 3.0])
    half = 4.30265 * 1.0 / math.sqrt(3)
    assert mean == 2.0
    assert (low, high) == (pytest.approx(2 - half, abs=1e-4), pytest.approx(2 + half, abs=1e-4))


def test_one_seed_has_no_interval() -> None:
    assert mean_over_seeds([0.5]) == (0.5, None, None)
    assert paired_seed_difference([0.5], [0.25]) == (0.25, None, None)


def test_intervals_cover_as_often_as_they_say() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 3))
    covered = [low <= 3.0 <= high for _, low, high in map(mean_over_seeds, draws.tolist())]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_pairs_are_of_one_seed() -> None:
    seeds = [1.0, 5.0, 9.0]  # what all arms of a seed have in common
    mean, low, high = paired_seed_difference([seed + 0.5 for seed in seeds], seeds)
    assert mean == low == high == 0.5
    with pytest.raises(ValueError, match="zip"):
        paired_seed_difference([1.0, 2.0], [1.0])
