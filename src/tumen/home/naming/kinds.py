"""Kinds: the words that name a kind of device instead of one device.

`"blinds"` means covers of the class `blind`; `"door"` a cover, a lock or a sensor. A kind is
written `domains[:sense]`. The sense is a device class, or what tells two devices of a domain apart
(a television from a speaker, heating from cooling). The words are in `languages/<lang>.toml`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tumen.home.naming.common_words import common_words, naming_tables
from tumen.home.naming.word_forms import forms, split


@dataclass(frozen=True)
class Kind:
    """Some domains, and a sense that narrows them."""

    domains: frozenset[str]
    sense: str = ""

    @staticmethod
    def of(text: str) -> Kind:
        """Return the kind written as `domains[:sense]`, the domains with commas."""
        domains, _, sense = text.partition(":")
        return Kind(frozenset(domains.split(",")), sense)


STRICT_DOMAINS = frozenset(("sensor", "binary_sensor", "switch", "input_boolean"))
"""Domains with devices of all sorts: a sense fits only a device that carries it itself."""

SIMILAR_SENSES = {
    "blind": "shade",
    "shade": "shade",
    "shutter": "shade",
    "curtain": "curtain",
    "garage": "door",
}
"""Senses that people mix up; they count as the same when the home has nothing closer."""

GENERAL_SENSES = frozenset(("thermostat",))
"""Senses of every device of the domain; a device that carries the sense itself is preferred."""


def _words_of(lang: str) -> Iterator[tuple[str, str]]:
    """The kind words of a language with their kind; the pieces of a word are joined."""
    kinds: dict[str, list[str]] = naming_tables()[lang]["kinds"]
    for kind, words in kinds.items():
        for word in words:
            yield "".join(split(word)), kind


@cache
def kind_words() -> dict[str, Kind]:
    """Return every kind word of all languages with its kind.

    A word that two languages share keeps the kind of the first.
    """
    found: dict[str, Kind] = {}
    for lang in naming_tables():
        for word, kind in _words_of(lang):
            # `player` is a word of two languages
            found.setdefault(word, Kind.of(kind))
    return found


@cache
def compound_tails() -> dict[str, str]:
    """Return the forms of kind words that end a compound (`Küchenlampen`) -> the kind word.

    Only languages that write compounds as one word have such endings in their file.
    """
    tails: dict[str, str] = {}
    # English has compounds as well, but writes them apart
    for lang, endings in common_words().compound_endings.items():
        for word, _ in _words_of(lang):
            tails.setdefault(word, word)
            for ending in endings:
                tails.setdefault(word + ending, word)
    return tails


@cache
def kind_word(word: str) -> tuple[Kind, str] | None:
    """Return the kind that a word names and the word as the tables have it, or None.

    Args:
        word: a folded word; the pieces of a word of several are joined.
    """
    table = kind_words()
    # the word itself, before it loses an ending
    for form in (word, *forms(word)):
        if form in table:
            return table[form], form
    return None
