"""Lexicon: words that stand for a value, such as `half`, `最亮`, `warmweiß`, by language and slot.

A bundle brings its own lexicon as `values.json`; the built-in one is in `languages/<lang>.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from tumen.assistant.values.value_tables import value_tables
from tumen.home import fold

Value = float | str
"""A number (percent, degrees Celsius, kelvin, seconds or a count) or text."""

Lexicon = Mapping[str, Mapping[str, Mapping[str, Value]]]
"""language -> slot -> words -> value."""

PERCENT = ("brightness", "position", "percentage", "volume")
"""Slots whose values are percent."""


def plain(number: float) -> float:
    """Return a whole number as int, others rounded to three places."""
    if float(number).is_integer():
        return int(number)
    return round(float(number), 3)


@cache
def built_in_lexicon() -> dict[str, dict[str, dict[str, Value]]]:
    """Return what is known without a bundle; all words are folded."""
    return {lang: _slots(table) for lang, table in value_tables().items()}


@cache
def first_words() -> frozenset[str]:
    """Return the first words of what stands for a number (`half`, `warm white`), folded.

    In a language without spaces these are characters.
    """
    found = set()
    for lang, slots in built_in_lexicon().items():
        fractions = [fold(word) for word in value_tables()[lang]["numbers"]["fractions"]]
        known = [word for slot in (*PERCENT, "temperature") for word in slots[slot]]
        for word in (*known, *fractions):
            found.add(word.split()[0] if value_tables()[lang]["spaced"] else word[0])
    return frozenset(found)


def _slots(table: Mapping[str, Any]) -> dict[str, dict[str, Value]]:
    """Return the lexicon of one language from its file."""
    slots: dict[str, dict[str, Value]] = {}
    # `half` and `full` mean the same for all percentages
    levels = dict(table["levels"])
    least = levels.pop("least")
    for slot in PERCENT:
        # the lowest brightness is not off
        lowest = 1.0 if slot == "brightness" else 0.0
        slots[slot] = _numbers(levels) | {fold(word): lowest for word in least}
    # `medium` is a fan speed of its own
    slots["percentage"] |= _numbers(table["fan_speeds"])
    slots["temperature"] = _numbers(table["whites"])
    slots["color"] = _texts(table["colors"])
    slots["zone"] = _texts(table["zones"])
    return slots


def _numbers(table: Mapping[str, list[str]]) -> dict[str, Value]:
    """Return words -> number of a table of number -> words."""
    return {fold(word): float(number) for number, words in table.items() for word in words}


def _texts(table: Mapping[str, list[str]]) -> dict[str, Value]:
    """Return words -> text of a table of text -> words."""
    return {fold(word): text for text, words in table.items() for word in words}


def folded(lexicon: Lexicon) -> dict[str, dict[str, dict[str, Value]]]:
    """Return a lexicon with folded words."""
    found: dict[str, dict[str, dict[str, Value]]] = {}
    for lang, slots in lexicon.items():
        found[lang] = {}
        for slot, table in slots.items():
            found[lang][slot] = {fold(words): value for words, value in table.items()}
    return found


def checked(tree: object) -> Lexicon:
    """Return JSON data as a lexicon.

    Raises:
        ValueError: the data do not have the form of a lexicon; the message says where.
    """
    if not isinstance(tree, dict):
        raise ValueError("not an object of languages")
    for lang, slots in tree.items():
        if not isinstance(slots, dict):
            raise ValueError(f"{lang} is not an object of slots")
        for slot, table in slots.items():
            if not isinstance(table, dict):
                raise ValueError(f"{lang} is not an object of slots")
            _check_values(f"{lang}.{slot}", table)
    return tree


def _check_values(where: str, table: Mapping[str, object]) -> None:
    """Check that words stand for numbers or text."""
    for words, value in table.items():
        # True is an int to Python, but not a number to anybody else
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError(f"{where}.{words} is neither number nor text")
