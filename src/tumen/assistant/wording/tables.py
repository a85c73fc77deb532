"""Tables: what each language says about how much, and how it is (`languages/<lang>.toml`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from tumen.assistant.modifiers import alternatives, languages_of
from tumen.home import read_language_tables

_WORDS_BEFORE = 1


@cache
def tables() -> Mapping[str, Mapping[str, Any]]:
    """Return the language files of this folder."""
    return dict(read_language_tables("tumen.assistant.wording"))


@cache
def phrases_by_key(script: str, *path: str) -> Mapping[str, tuple[str, ...]]:
    """Return key -> phrases of a table, of all languages that share a script.

    Args:
        script: as `modifiers.script_of` returns it.
        path: the tables in a language file, such as `amounts`, `things`.
    """
    found: dict[str, list[str]] = {}
    for lang in languages_of(script):
        part: Any = tables()[lang]
        for key in path:
            part = part.get(key, {})
        for key, phrases in part.items():
            if isinstance(phrases, list):
                found.setdefault(key, []).extend(phrases)
    return {key: tuple(dict.fromkeys(phrases)) for key, phrases in found.items()}


@cache
def phrases_of(script: str, table: str, key: str) -> tuple[str, ...]:
    """Return the phrases of one key of a table; none where no language has it."""
    return phrases_by_key(script, table).get(key, ())


@cache
def pattern_of_phrases(script: str, table: str, key: str) -> re.Pattern[str]:
    """Return the pattern of the phrases of one key of a table."""
    return re.compile(alternatives(phrases_of(script, table, key)))


def asks(said: str, script: str) -> bool:
    """Whether a sentence is a question: it changes nothing.

    Where words have spaces a question starts with one of its words, after at most one other.
    """
    found = pattern_of_phrases(script, "amounts", "questions").search(said)
    if found is None:
        return False
    return bool(script) or len(said[: found.start()].split()) <= _WORDS_BEFORE
