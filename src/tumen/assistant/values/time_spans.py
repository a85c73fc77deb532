"""Time spans from words: `an hour and a half`, `eine dreiviertel stunde`, `两个半小时`."""

from __future__ import annotations

import re
from functools import cache

from tumen.assistant.values.numbers import read_number
from tumen.assistant.values.value_tables import of_all_languages
from tumen.home import fold
from tumen.language import is_cjk

_SECONDS = {"hour": 3600, "quarter": 15 * 60, "minute": 60, "second": 1}
"""Seconds of each unit. A quarter of an hour is a unit of its own in Chinese (刻钟)."""


def read_span(words: str, lang: str) -> float | None:
    """Return the seconds of a time span said in numbers and units, or None if it is not one.

    Args:
        words: such as `fifty hours and 44 minutes`.
        lang: the language whose number words are tried first.
    """
    said = fold(words)
    total = 0.0
    read = 0  # characters read so far
    unit_seconds = 0
    # each unit with the number before it: `1 hour`, `5 minutes`
    for unit in _units().finditer(said):
        number = _number(said[read : unit.start()], lang)
        if number is None:
            return None
        unit_seconds = _SECONDS[str(unit.lastgroup)]
        total += number * unit_seconds
        read = unit.end()
    # a number alone is no time span
    if not unit_seconds:
        return None
    rest = said[read:].strip()
    if not rest:
        return total
    if rest in _half_more():
        return total + unit_seconds / 2
    return None


@cache
def _units() -> re.Pattern[str]:
    """Words of each unit, one named group for each."""
    groups = []
    for unit in _SECONDS:
        # longest first: `分钟` is not `分` and a rest
        words = sorted(of_all_languages("time_spans", unit), key=len, reverse=True)
        patterns = "|".join(_whole_word(word) for word in words)
        groups.append(f"(?P<{unit}>{patterns})")
    return re.compile("|".join(groups))


@cache
def _half_more() -> frozenset[str]:
    """Words after a unit that add half of it."""
    return frozenset(of_all_languages("time_spans", "half_more"))


@cache
def _around() -> re.Pattern[str]:
    """Words around a number that carry no meaning, one at a time."""
    before = "|".join(_whole_word(word) for word in of_all_languages("time_spans", "before"))
    after = "|".join(of_all_languages("time_spans", "after"))
    return re.compile(rf"^(?:{before})\s*|^,\s*|\s*(?:{after})$")


def _whole_word(word: str) -> str:
    """Return the pattern of a word; only spaced words have an end."""
    if is_cjk(word[0]):
        return re.escape(word)
    return rf"{re.escape(word)}\b"


def _number(words: str, lang: str) -> float | None:
    """Return the number before a unit; an article alone is one."""
    plain = words.strip()
    # a comma and an `and` may both stand before the number
    for _ in range(2):
        plain = _around().sub("", plain).strip()
    # `a` is no number word before other nouns
    if plain in of_all_languages("time_spans", "one"):
        return 1.0
    return read_number(plain, lang) if plain else None
