"""Catalogue: the words of replies, by language.

A language is one file, `languages/<lang>.toml`. Every file has the same replies with the same
`{parts}`; the comments in it say what the lists mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from tumen.home import read_language_tables

ANY_DEVICE = ""
"""The noun of devices that have no noun in common."""


@dataclass(frozen=True)
class Catalogue:
    """The words of replies in one language.

    Attributes:
        replies: key -> text with `{parts}`.
        words: state or field -> its word.
        nouns: domain or device class -> the noun for one, and for several where that differs.
        colors: CSS name of a colour -> its word.
        units: of hours, minutes and seconds.
        weekdays: from Monday.
        months: from January.
        sentence_gap: what stands between two sentences.
        unit_gap: what stands between a number and its unit of time.
        fact_comma: what stands between the readings of one device.
    """

    replies: Mapping[str, str]
    words: Mapping[str, str]
    nouns: Mapping[str, tuple[str, ...]]
    colors: Mapping[str, str]
    units: tuple[str, ...]
    weekdays: tuple[str, ...]
    months: tuple[str, ...]
    sentence_gap: str
    unit_gap: str
    fact_comma: str


@cache
def catalogues() -> dict[str, Catalogue]:
    """Return the catalogue of every language."""
    found = {}
    for lang, table in read_language_tables("tumen.assistant.replies").items():
        found[lang] = Catalogue(
            replies=table["replies"],
            words=table["words"],
            # Chinese nouns have one form, for one and for several
            nouns={name: tuple(forms) for name, forms in table["nouns"].items()},
            colors=table["colors"],
            units=tuple(table["units"]),
            weekdays=tuple(table["weekdays"]),
            months=tuple(table["months"]),
            sentence_gap=table["sentence_gap"],
            unit_gap=table["unit_gap"],
            fact_comma=table["fact_comma"],
        )
    return found
