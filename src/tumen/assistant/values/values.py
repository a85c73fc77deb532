"""Values: the words of a slot as a number, a colour, a time span or text.

Words that are not understood are reported as `Unknown`, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tumen.assistant.values.numbers import read_number
from tumen.assistant.values.time_spans import read_span
from tumen.assistant.values.value_lexicon import (
    PERCENT,
    Lexicon,
    Value,
    built_in_lexicon,
    checked,
    folded,
    plain,
)
from tumen.assistant.values.value_tables import of_all_languages
from tumen.core import untrusted
from tumen.core.errors import ArtifactError
from tumen.home import fold
from tumen.language import LANGUAGES, NUMBERS

SHARE = "share"
"""The value of a change by a part of what is set now (`by half`), from 0 to 1."""

_CHANGED_BY_PART = ("brightness", "percentage", "volume")
_TIME_SPANS = ("duration", "start")  # slots whose values are seconds


@dataclass(frozen=True)
class Unknown:
    """Words that are not a value of their slot."""

    slot: str
    words: str


class Values:
    """Reads the value of a slot from words.

    Args:
        lexicon: language -> slot -> words -> value; asked before the built-in one.
    """

    def __init__(self, lexicon: Lexicon | None = None) -> None:
        self._tables = (folded(lexicon or {}), built_in_lexicon())

    @classmethod
    def load(cls, path: Path) -> Values:
        """Read the lexicon of a bundle.

        Raises:
            ArtifactError: the file is missing or does not hold a lexicon.
        """
        try:
            return cls(checked(untrusted.read_json(path)))
        except ValueError as error:
            raise ArtifactError(
                f"{path}: not a lexicon of values ({error}); run the recipe again"
            ) from None

    def read(self, slot: str, words: str, lang: str) -> Value | Unknown:
        """Return the value of a slot: a number, the English name of a colour, or text.

        Numbers are percent, degrees Celsius, kelvin, seconds or a count, as the slot has it.
        Fahrenheit is converted to Celsius.

        Args:
            slot: such as `brightness`.
            words: what was said.
            lang: the speaker's language, tried first; the others follow.
        """
        said = _before_value().sub("", fold(words))
        # whole phrases come first: `half` is not a number and a rest
        known = self._look_up(slot, said, lang)
        if known is not None:
            return known
        if slot == "color":
            return self._color(said, lang) or Unknown(slot, words)
        if slot in _TIME_SPANS:
            number = self._seconds(said, lang)
        elif slot in NUMBERS:
            number = _number(slot, said, lang)
        else:
            # items, messages, what to play
            return " ".join(words.split()) or Unknown(slot, words)
        if number is None:
            return Unknown(slot, words)
        return plain(number)

    def difference(self, slot: str, words: str, lang: str) -> Value | Unknown:
        """Return how much a slot is to change: percent or degrees Celsius.

        Args:
            slot: such as `temperature`.
            words: what was said, such as `two degrees`.
            lang: the speaker's language, tried first; the others follow.
        """
        said = _before_value().sub("", fold(words))
        if slot == "temperature" and _says_fahrenheit(said):
            number = read_number(said, lang)
            # a degree Fahrenheit is five ninths of a degree Celsius
            return Unknown(slot, words) if number is None else plain(round(number / 1.8 * 2) / 2)
        return self.read(slot, words, lang)

    def share(self, slot: str, words: str, lang: str) -> float | None:
        """Return the part of what is set now that words name (`half`, `三成`); None if they do not.

        Args:
            slot: only brightness, fan speed and volume change by a part.
            words: what was said; digits with a percent sign are percent of the whole range.
            lang: the speaker's language, tried first; the others follow.
        """
        if slot not in _CHANGED_BY_PART:
            return None
        said = _before_value().sub("", fold(words))
        number = read_number(said, lang)
        if number is None or not 0 < number < 1 or said[:1].isdigit():
            return None
        return number

    def _seconds(self, said: str, lang: str) -> float | None:
        """Return the seconds of a time span, from its units or from the lexicon."""
        seconds = read_span(said, lang)
        if seconds is not None:
            return seconds
        for slot, unit_seconds in (("minutes", 60), ("seconds", 1)):
            known = self._look_up(slot, said, lang)
            if known is not None and not isinstance(known, str):
                return known * unit_seconds
        return None

    def _look_up(self, slot: str, said: str, lang: str) -> Value | None:
        """Return the value of words in the lexicons, the speaker's language first."""
        # a bundle's own words come before the built-in ones, in every language
        for table in self._tables:
            for tongue in (lang, *LANGUAGES):
                value = table.get(tongue, {}).get(slot, {}).get(said)
                if value is not None:
                    return value if isinstance(value, str) else plain(value)
        return None

    def _color(self, said: str, lang: str) -> str | None:
        """Return the English name of a colour, whatever its ending."""
        for word in _color_words(said):
            found = self._look_up("color", word, lang)
            if found is not None:
                return str(found)
        return None


@cache
def _before_value() -> re.Pattern[str]:
    """Words before a value that carry no meaning, unless nothing follows them."""
    words = "|".join(f"{word} " for word in of_all_languages("", "before_value"))
    return re.compile(rf"^(?:{words})+(?=.)")


def _number(slot: str, said: str, lang: str) -> float | None:
    """Return the number of a slot, as percent or degrees Celsius where the slot has it."""
    number = read_number(said, lang)
    if number is None:
        return None
    # `three quarters` of a brightness; `0.5 %` in digits stays half a percent
    if slot in PERCENT and 0 < number < 1 and not said[:1].isdigit():
        return number * 100
    if slot == "temperature" and _says_fahrenheit(said):
        # to the nearest half degree, as thermostats count
        return round((number - 32) / 1.8 * 2) / 2
    return number


def _says_fahrenheit(said: str) -> bool:
    """Whether a temperature is given in Fahrenheit."""
    words = of_all_languages("", "fahrenheit")
    return any(word in said for word in words) or bool(re.search(r"° ?f$", said))


def _color_words(said: str) -> Iterator[str]:
    """Yield a colour without the word `colour` after it, then without its ending (`rotes`)."""
    # longest first: `红色的` ends in `色的`
    for ending in sorted(of_all_languages("", "after_color"), key=len, reverse=True):
        if said.endswith(ending):
            said = said.removesuffix(ending)
            break
    yield said
    for ending in of_all_languages("", "color_endings"):
        if said.endswith(ending):
            yield said.removesuffix(ending)
