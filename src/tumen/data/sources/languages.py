"""What a language needs for templates and generated homes: languages/<code>.toml, one file each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from tumen.language import LANGUAGES


@dataclass(frozen=True)
class LanguageData:
    """One language.

    Attributes:
        home_assistant: its code in home-assistant-intents and OHF-Voice/intents.
        spaced: whether a space separates words.
        decimal_marks: characters that may separate whole and tenths.
        time_unit: matches what may follow a number in a time span.
        doubled: matches a word said twice.
        syllables: parts of invented names.
        open_words: parts of words that speak of open and closed, not of on and off.
        seconds_words: words for a number of seconds, beyond Home Assistant's lists.
    """

    home_assistant: str
    spaced: bool
    decimal_marks: str
    time_unit: re.Pattern[str]
    doubled: re.Pattern[str]
    syllables: tuple[str, ...]
    open_words: tuple[str, ...] = ()
    seconds_words: Mapping[str, float] = field(default_factory=dict)

    def join(self, *words: str) -> str:
        """Return words as they are written one after the other."""
        return (" " if self.spaced else "").join(words)


@cache
def language_data(lang: str) -> LanguageData:
    """Return what a language needs, by its code such as `en`.

    Raises:
        KeyError: there is no file for it.
    """
    if lang not in LANGUAGES:
        raise KeyError(lang)
    path = resources.files("tumen.data.sources").joinpath(f"languages/{lang}.toml")
    tree = tomllib.loads(path.read_text("utf-8"))
    return LanguageData(
        home_assistant=tree["home_assistant"],
        spaced=tree["spaced"],
        decimal_marks=tree["decimal_marks"],
        time_unit=re.compile(tree["time_unit"]),
        doubled=re.compile(tree["doubled"]),
        syllables=tuple(tree["syllables"]),
        open_words=tuple(tree.get("open_words", ())),
        seconds_words=tree.get("seconds_words", {}),
    )


def home_assistant_codes() -> dict[str, str]:
    """Return {Home Assistant's code: our code} of all languages."""
    return {language_data(lang).home_assistant: lang for lang in LANGUAGES}
