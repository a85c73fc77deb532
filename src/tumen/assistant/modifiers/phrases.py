"""Phrases: the words by which each language says not, except and later.

A language is one file, `languages/<lang>.toml`; the comments in it say what each list means. What
languages share one script are read together, because nobody says which one is coming.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

from tumen.home import common_words, language_of, read_language_tables
from tumen.language import is_cjk

GAP = "..."
"""Stands in a phrase for a few words."""

_WORDS_IN_GAP = r"(?:\S+ ){1,6}?"
_CHARACTERS_IN_GAP = r"\S{1,12}?"

Tables = Mapping[str, Any]


@cache
def tables() -> dict[str, Tables]:
    """Return the language files of this folder."""
    return dict(read_language_tables("tumen.assistant.modifiers"))


@cache
def languages_of(script: str) -> tuple[str, ...]:
    """Return the languages that are read together.

    Args:
        script: a language with a script of its own, or empty for all others.
    """
    own = common_words().scripts
    if script:
        return (script,)
    return tuple(lang for lang in tables() if lang not in own)


def script_of(said: str) -> str:
    """Return the language whose own script a sentence has, or empty."""
    return language_of(said, "")


@cache
def words_of(script: str, *path: str) -> tuple[str, ...]:
    """Return the phrases of a list, the longest first.

    Args:
        script: as `script_of` returns it.
        path: the tables and the list in a language file, such as `clock`, `oclock`.
    """
    found: dict[str, None] = {}
    for lang in languages_of(script):
        part: Any = tables()[lang]
        for key in path:
            # not every language needs every list
            part = part.get(key, {})
        found.update(dict.fromkeys(part))
    return tuple(sorted(found, key=len, reverse=True))


@cache
def listed(script: str, key: str) -> tuple[str, ...]:
    """Return a list of the first language of a script, in its own order."""
    return tuple(tables()[languages_of(script)[0]].get(key, ()))


@cache
def numbered(script: str, *path: str) -> Mapping[str, str]:
    """Return phrase -> key for a table whose lists are under numbers or times."""
    found: dict[str, str] = {}
    for lang in languages_of(script):
        part: Any = tables()[lang]
        for key in path:
            part = part.get(key, {})
        for number, phrases in part.items():
            for phrase in phrases:
                found[phrase] = number
    return found


@cache
def inline_table(script: str, key: str) -> Mapping[str, str]:
    """Return a table of words for words; empty where no language has it."""
    found: dict[str, str] = {}
    for lang in languages_of(script):
        found.update(tables()[lang].get(key, {}))
    return found


def alternatives(phrases: Iterable[str]) -> str:
    """Return a pattern for any of some phrases; `(?!)` where there are none."""
    return _alternatives(tuple(phrases))


@lru_cache(maxsize=1024)
def _alternatives(phrases: tuple[str, ...]) -> str:
    """Return the same for phrases that do not change."""
    patterns = [_pattern(phrase) for phrase in sorted(phrases, key=len, reverse=True)]
    return "|".join(patterns) or "(?!)"


@cache
def pattern_of(script: str, *path: str) -> re.Pattern[str]:
    """Return the compiled pattern of a list of phrases."""
    return re.compile(alternatives(words_of(script, *path)))


def _pattern(phrase: str) -> str:
    """Return the pattern of one phrase."""
    if is_cjk(phrase[0]):
        parts = [re.escape(part.strip()) for part in phrase.split(GAP)]
        return _CHARACTERS_IN_GAP.join(parts)
    parts = [re.escape(part) for part in phrase.split(f"{GAP} ")]
    # words end where letters end; an apostrophe belongs to its word
    return rf"(?<![\w'])(?:{_WORDS_IN_GAP.join(parts)})(?![\w'])"
