"""Value tables: how each language says numbers, times, colours and levels.

A language is one file, `languages/<lang>.toml`; the comments in it say what each list means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tumen.home import read_language_tables

Tables = Mapping[str, Mapping[str, Any]]


@cache
def value_tables() -> Tables:
    """Return the language files of this folder."""
    return read_language_tables("tumen.assistant.values")


@dataclass(frozen=True)
class NumberStyle:
    """How one language writes numbers.

    Attributes:
        spaced: whether its words have spaces between them.
        decimal: what is said between a number and its decimals.
        thousands: the mark between the digits of thousands.
        joint: what is said between hundreds and the rest.
        hundred: the word after more than nine hundreds (`twenty seven hundred`).
        articles: articles that count one.
        one: the word of one.
        fraction: what is said between the parts of a fraction, the lower part first.
        tenths: what is said after a number of tenths.

    An empty text means that the language has nothing of that sort.
    """

    spaced: bool
    decimal: str
    thousands: str
    joint: str = ""
    hundred: str = ""
    articles: tuple[str, ...] = ()
    one: str = ""
    fraction: str = ""
    tenths: str = ""


@cache
def number_styles() -> dict[str, NumberStyle]:
    """Return the number style of every language."""
    styles = {}
    for lang, table in value_tables().items():
        numbers = table["numbers"]
        styles[lang] = NumberStyle(
            spaced=table["spaced"],
            decimal=numbers["decimal"],
            thousands=numbers["thousands"],
            joint=numbers.get("joint", ""),
            hundred=numbers.get("hundred", ""),
            articles=tuple(numbers.get("articles", ())),
            one=numbers.get("one", ""),
            fraction=numbers.get("fraction", ""),
            tenths=numbers.get("tenths", ""),
        )
    return styles


def of_all_languages(section: str, key: str) -> tuple[str, ...]:
    """Return the words that every language has in a section of its file, each once.

    Args:
        section: a table of the file; empty for the top of the file.
        key: the name of a list in it; languages without one have no such words.
    """
    words: list[str] = []
    for table in value_tables().values():
        # languages that need no such words leave the list out
        part = table[section] if section else table
        words += part.get(key, ())
    return tuple(dict.fromkeys(words))
