"""Units: one way to read and to write them.

Names in code end in the unit: `step_seconds`, `link_bytes_per_second`.
"""

from __future__ import annotations

import re

from tumen.core.errors import InputError

DECIMAL = {
    "": 1.0,
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "G": 1e9,
    "B": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
}
BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
# From here on three digits round up to one of the next unit: 1 kB, not 1e+03 B.
ROUNDS_UP = 0.9995
# "m" alone is minutes; months have no fixed length.
SECONDS = {
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "w": 604800.0,
}
# A number, with thousands marked or not, and a unit.
COUNT = re.compile(
    r"\s*([0-9][0-9_]*(?:,[0-9]{3})*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*"
)
SIZE = re.compile(r"\s*([0-9]+\.?[0-9]*)\s*([KMGT]i|[kKMGTP]?)B?\s*")
DURATION = re.compile(r"\s*([0-9]+\.?[0-9]*)\s*([a-z]*)\s*")


def count(text: str | int | float) -> float:
    """Read a count such as `8.1T`, `120M` or `6500`.

    Raises:
        InputError: the text is no number with a known suffix.
    """
    # A TOML file may hold the number itself.
    if isinstance(text, (int, float)):
        return float(text)
    match = COUNT.fullmatch(text)
    if not match or match[2] not in DECIMAL:
        raise InputError(
            f"{text!r} is not a count: write a number with one of k M G B T P, such as 8.1T"
        )
    # Both ways to mark thousands: 6_500 and 6,500.
    digits = match[1].replace("_", "").replace(",", "")
    return float(digits) * DECIMAL[match[2]]


def size_bytes(text: str | int | float) -> float:
    """Read a size in bytes such as `100MB` (decimal), `24GiB` (binary) or `4096`.

    Raises:
        InputError: the text is no size.
    """
    if isinstance(text, (int, float)):
        return float(text)
    match = SIZE.fullmatch(text)
    if not match:
        raise InputError(f"{text!r} is not a size: write it as 100MB, 24GiB or a number of bytes")
    return float(match[1]) * (BINARY | DECIMAL)[match[2]]


def seconds(text: str | int | float) -> float:
    """Read a duration in seconds such as `90s`, `10min`, `5.1h` or `54d`.

    Raises:
        InputError: the text is no duration.
    """
    if isinstance(text, (int, float)):
        return float(text)
    match = DURATION.fullmatch(text)
    unit = (match[2] or "s") if match else ""
    if not match or unit not in SECONDS:
        raise InputError(f"{text!r} is not a duration: write it as 90s, 10min, 5.1h or 54d")
    return float(match[1]) * SECONDS[unit]


def show_count(value: float) -> str:
    """Write a count with three digits: `236B`, `8.1T`, `512`."""
    # "B" is billion here, as people write parameters.
    for suffix, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= ROUNDS_UP * scale:
            return f"{value / scale:.3g}{suffix}"
    return f"{value:.3g}"


def show_bytes(value: float) -> str:
    """Write a size in decimal bytes with three digits: `2.42 MB`."""
    for suffix, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= ROUNDS_UP * scale:
            return f"{value / scale:.3g} {suffix}"
    return f"{value:.0f} B"


def show_seconds(value: float) -> str:
    """Write a duration for people: `12 ms`, `9.5 s`, `3:05 min`, `7.8 h`, `54 d`."""
    if value < ROUNDS_UP:
        return f"{value * 1000:.3g} ms"
    if value < 60:
        return f"{value:.3g} s"
    if value < 3600:
        minutes, rest = divmod(int(value), 60)
        return f"{minutes}:{rest:02d} min"
    if value < 172800:  # hours stay readable up to two days
        return f"{value / 3600:.3g} h"
    return f"{value / 86400:.3g} d"
