"""Intervals of pairs: the published examples, what must always hold, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumen.eval.statistics import PairedInterval, paired_difference, paired_ratio

# Cavo et al. 2012, complete response before and after: both 59, the first alone 6, the second alone 16, neither 80.
RESPONSES = ("1" * 59 + "1" * 6 + "0" * 16 + "0" * 80, "1" * 59 + "0" * 6 + "1" * 16 + "0" * 80)


def test_the_published_example() -> None:
    """What another implementation says of this table: R's contingencytables, tests/testthat/test-ch8.R."""
    assert paired_ratio(*RESPONSES) == pytest.approx((0.8667, 0.7579, 0.9910), abs=6e-5)
    assert paired_difference(*RESPONSES) == pytest.approx((-0.0621, -0.1186, -0.0046), abs=6e-5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_an_interval_holds_its_value_and_is_the_mirror_of_its_mirror(
    pairs: list[tuple[bool, bool]],
) -> None:
    first, second = ("".join("01"[mark] for mark in column) for column in zip(*pairs, strict=True))
    value, low, high = paired_difference(first, second)
    assert value is not None
    assert low is not None
    assert high is not None
    assert -1 - 1e-9 <= low <= value + 1e-9 <= high + 2e-9 <= 1 + 1e-8
    mirrored = paired_difference(second, first)
    assert mirrored == pytest.approx((-value, -high, -low), abs=1e-9)
    told = paired_ratio(first, second)
    if told.value is None:
        assert "1" not in second
        assert told == PairedInterval(None, None, None)
        return
    assert told.low is not None
    assert told.low <= told.value + 1e-9
    assert told.high is None or told.value <= told.high + 1e-9
    other = paired_ratio(second, first)
    if other.value and told.high and other.high:
        assert (told.low, told.high) == pytest.approx((1 / other.high, 1 / other.low), rel=1e-6)


def test_equal_answers_are_nearly_sure() -> None:
    same = "1" * 70 + "0" * 30
    assert paired_ratio(same, same).value == 1
    low, high = paired_ratio(same, same)[1:]
    independent = "1" * 70 + "0" * 30, "0" * 30 + "1" * 70
    assert high - low < paired_ratio(*independent)[2] - paired_ratio(*independent)[1]


def test_no_cases_and_no_pairs() -> None:
    assert paired_difference("", "") == paired_ratio("", "") == PairedInterval(None, None, None)
    assert paired_ratio("11", "00") == PairedInterval(None, None, None)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_ratio("1", "11")


@pytest.mark.parametrize(
    ("n", "both", "first", "second"),
    [(23, 0.5, 0.1, 0.2), (60, 0.75, 0.05, 0.1), (300, 0.78, 0.04, 0.02)],
)
def test_they_hold_the_truth_about_as_often_as_they_say(
    n: int, both: float, first: float, second: float
) -> None:
    rng = np.random.default_rng(3)
    held = [0, 0]
    for counts in rng.multinomial(n, [both, first, second, 1 - both - first - second], size=400):
        ours = "".join(mark * count for mark, count in zip("1100", counts, strict=True))
        theirs = "".join(mark * count for mark, count in zip("1010", counts, strict=True))
        for place, (found, truth) in enumerate(
            (
                (paired_ratio(ours, theirs), (both + first) / (both + second)),
                (paired_difference(ours, theirs), first - second),
            )
        ):
            assert found.low is not None
            held[place] += found.low <= truth <= (math.inf if found.high is None else found.high)
    assert all(0.92 <= count / 400 <= 0.995 for count in held), held
