"""Units: what is written can be read again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tumen.core import units
from tumen.core.errors import InputError

NUMBERS = st.floats(1e-2, 9e14, allow_nan=False)


@given(NUMBERS)
def test_counts_round_trip(value: float) -> None:
    assert math.isclose(units.count(units.show_count(value)), value, rel_tol=6e-3)


@given(st.floats(1, 9e14))
def test_sizes_round_trip(value: float) -> None:
    assert math.isclose(
        units.size_bytes(units.show_bytes(value)), value, rel_tol=6e-3, abs_tol=0.51
    )


@given(st.floats(1e-3, 59.4) | st.floats(3600, 8e7))
def test_durations_round_trip(value: float) -> None:
    assert math.isclose(units.seconds(units.show_seconds(value)), value, rel_tol=6e-3)


@given(NUMBERS)
def test_numbers_for_people_are_short_and_plain(value: float) -> None:
    for text in (units.show_count(value), units.show_bytes(value)):
        assert len(text) <= 8
        assert "e" not in text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8.1T", 8.1e12),
        ("120M", 120e6),
        ("6500", 6500),
        ("1e3", 1000),
        ("1,000", 1000),
        ("1_000k", 1e6),
        (" 2 B ", 2e9),
        (7, 7.0),
    ],
)
def test_counts(text: str | int, value: float) -> None:
    assert units.count(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100MB", 1e8),
        ("24GiB", 24 * 2**30),
        ("4096", 4096),
        ("512 B", 512),
        ("1.5 kB", 1500),
        ("2K", 2000),
        (3.5, 3.5),
    ],
)
def test_sizes(text: str | float, value: float) -> None:
    assert units.size_bytes(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90s", 90),
        ("10min", 600),
        ("5.1h", 18360),
        ("54d", 54 * 86400),
        ("20 ms", 0.02),
        ("7", 7),
        (7, 7),
    ],
)
def test_durations(text: str | int, value: float) -> None:
    assert units.seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 ms"),
        (0.012, "12 ms"),
        (0.9999, "1 s"),
        (9.5, "9.5 s"),
        (185, "3:05 min"),
        (28_080, "7.8 h"),
        (54 * 86400, "54 d"),
    ],
)
def test_durations_for_people(value: float, text: str) -> None:
    assert units.show_seconds(value) == text


@pytest.mark.parametrize(
    ("value", "count", "size"),
    [
        (999.9, "1k", "1 kB"),
        (999_999, "1M", "1 MB"),
        (236e9, "236B", "236 GB"),
        (512, "512", "512 B"),
        (0, "0", "0 B"),
    ],
)
def test_counts_and_sizes_for_people(value: float, count: str, size: str) -> None:
    assert units.show_count(value) == count
    assert units.show_bytes(value) == size


@pytest.mark.parametrize(
    "text", ["", "many", "1.2.3", "8.1X", "-3", "1,5M", "1,0000", "T", "nan", "0x10"]
)
def test_no_count(text: str) -> None:
    with pytest.raises(InputError, match="is not a count"):
        units.count(text)


@pytest.mark.parametrize("text", ["", "big", "12XB", "-1MB", "1.2.3GB", "GB"])
def test_no_size(text: str) -> None:
    with pytest.raises(InputError, match="is not a size"):
        units.size_bytes(text)


@pytest.mark.parametrize("text", ["", "soon", "3 years", "-1s", "1:30"])
def test_no_duration(text: str) -> None:
    with pytest.raises(InputError, match="is not a duration"):
        units.seconds(text)
