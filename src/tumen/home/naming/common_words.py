"""Common words: the words of each language that mean the same in every home.

A language is one file, `languages/<lang>.toml`: articles, "here", "all", "it", ordinals, plural
endings. `common_words` joins the files of all languages, because people and models mix them.
Words are folded when a file is read, so a file has them as people write them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from tumen.home.naming.spelling import fold
from tumen.language import LANGUAGES, is_cjk

Tables = Mapping[str, Mapping[str, Any]]
"""The content of one kind of language file: language -> its tables."""


@dataclass(frozen=True)
class CommonWords:
    """The common words of all languages, folded.

    Attributes:
        stop: small words around a name, by language.
        stops: the same of all languages together.
        here: the room the speaker is in.
        rooms: those of them that name any room.
        everywhere: the whole home.
        all: every device that fits.
        it: the devices of the turn before.
        ordinals: words for the first, the second, ... option.
        last: words for the last option.
        nevermind: answers that drop a question.
        all_answers: answers that mean every option.
        answer_words: words of an answer that do not name an option.
        answer_endings: endings of an answer that carry no meaning.
        undo: sentences that take the last change back.
        ordinal_digits: an ordinal in digits -> the same in words (`1st` -> `first`).
        numbers: a number word in a name -> its digits (`two` -> `2`).
        digits: a digit -> the character that a Chinese name has for it (`2` -> `二`).
        joints: what stands between two names, spaced where the language has spaces.
        endings: plural and case endings, longest first.
        compound_endings: endings of a kind word that closes a compound, by language.
        particles: characters that close a phrase and carry no meaning.
        shopping_list: what the shopping list is called, by language.
        scripts: first and last character that only this language is written in, by language.
    """

    stop: Mapping[str, frozenset[str]]
    stops: frozenset[str]
    here: frozenset[str]
    rooms: frozenset[str]
    everywhere: frozenset[str]
    all: frozenset[str]
    it: frozenset[str]
    ordinals: tuple[frozenset[str], ...]
    last: frozenset[str]
    nevermind: frozenset[str]
    all_answers: frozenset[str]
    answer_words: frozenset[str]
    answer_endings: tuple[str, ...]
    undo: frozenset[str]
    ordinal_digits: Mapping[str, str]
    numbers: Mapping[str, str]
    digits: Mapping[str, str]
    joints: tuple[str, ...]
    endings: tuple[str, ...]
    compound_endings: Mapping[str, tuple[str, ...]]
    particles: tuple[str, ...]
    shopping_list: Mapping[str, str]
    scripts: Mapping[str, tuple[str, str]]


def read_language_tables(package: str) -> dict[str, dict[str, Any]]:
    """Read `languages/<lang>.toml` of a package for every language.

    Args:
        package: dotted name, such as `tumen.home.naming`.

    Returns:
        language -> the content of its file, in the order of `LANGUAGES`.
    """
    folder = resources.files(package) / "languages"
    # in this order a word that two languages share gets its meaning
    tables = {}
    for lang in LANGUAGES:
        text = (folder / f"{lang}.toml").read_text(encoding="utf-8")
        tables[lang] = tomllib.loads(text)
    return tables


@cache
def naming_tables() -> Tables:
    """Return the language files of this folder."""
    return read_language_tables("tumen.home.naming")


@cache
def common_words() -> CommonWords:
    """Return the common words of all languages."""
    tables = naming_tables()
    # small words are needed by language as well: `die` is an article in one and a verb in another
    stop = {lang: _folded(table["stop"]) for lang, table in tables.items()}
    return CommonWords(
        stop=stop,
        stops=frozenset().union(*stop.values()),
        here=_joined(tables, "here"),
        rooms=_joined(tables, "rooms"),
        everywhere=_joined(tables, "everywhere"),
        all=_joined(tables, "all"),
        it=_joined(tables, "it"),
        ordinals=_ordinals(tables),
        last=_joined(tables, "last"),
        nevermind=_joined(tables, "nevermind"),
        all_answers=_joined(tables, "all_answers"),
        answer_words=_joined(tables, "answer_words"),
        answer_endings=_listed(tables, "answer_endings"),
        undo=_joined(tables, "undo"),
        ordinal_digits=_ordinal_digits(tables),
        numbers=_numbers(tables),
        digits=_digits(tables),
        joints=_joints(tables),
        endings=_endings(tables),
        compound_endings=_of_each(tables, "compound_endings"),
        particles=_particles(tables),
        shopping_list={lang: table["shopping_list"] for lang, table in tables.items()},
        scripts=_scripts(tables),
    )


def language_of(text: str, otherwise: str) -> str:
    """Return the language whose own script a text has characters of, else `otherwise`.

    Args:
        text: a sentence.
        otherwise: the language of scripts that several languages share.
    """
    for lang, (first, last) in common_words().scripts.items():
        if any(first <= char <= last for char in text):
            return lang
    return otherwise


def _folded(words: Iterable[str]) -> frozenset[str]:
    """Return words in the spelling in which they are compared."""
    return frozenset(fold(word) for word in words)


def _joined(tables: Tables, key: str) -> frozenset[str]:
    """Return the words that all languages have under a key."""
    words: set[str] = set()
    for table in tables.values():
        # not every language has words for everything
        words |= _folded(table.get(key, ()))
    return frozenset(words)


def _listed(tables: Tables, key: str) -> tuple[str, ...]:
    """Return the lists that all languages have under a key, one after the other."""
    return tuple(word for table in tables.values() for word in table.get(key, ()))


def _of_each(tables: Tables, key: str) -> dict[str, tuple[str, ...]]:
    """Return a list by language, for the languages that have it."""
    return {lang: tuple(table[key]) for lang, table in tables.items() if key in table}


def _particles(tables: Tables) -> tuple[str, ...]:
    """Return the closing particles of the languages that have one, such as 的."""
    return tuple(table["particle"] for table in tables.values() if "particle" in table)


def _scripts(tables: Tables) -> dict[str, tuple[str, str]]:
    """Return the first and last character of each script that only one language uses."""
    scripts = {}
    for lang, table in tables.items():
        if "characters" in table:
            first, last = table["characters"]
            scripts[lang] = (first, last)
    return scripts


def _ordinals(tables: Tables) -> tuple[frozenset[str], ...]:
    """Join the first, the second, ... of every language."""
    by_language = [table["ordinals"] for table in tables.values()]
    ordinals = []
    # every language has the same number of ordinals
    for same_number in zip(*by_language, strict=True):
        words: set[str] = set()
        for group in same_number:
            words |= _folded(group)
        ordinals.append(frozenset(words))
    return tuple(ordinals)


def _ordinal_digits(tables: Tables) -> dict[str, str]:
    """Return ordinals in digits -> the same in words."""
    found = {}
    for table in tables.values():
        written = table.get("ordinal_digits", ())
        # only some languages write ordinals with digits
        for digits, group in zip(written, table["ordinals"], strict=False):
            found[digits] = fold(group[0])
    return found


def _numbers(tables: Tables) -> dict[str, str]:
    """Return number words -> digits."""
    found = {}
    for table in tables.values():
        for number, word in enumerate(table.get("numbers", ()), start=1):
            found[fold(word)] = str(number)
    return found


def _digits(tables: Tables) -> dict[str, str]:
    """Return digits -> the characters that names have for them."""
    found = {}
    for table in tables.values():
        for number, char in enumerate(table.get("digits", ""), start=1):
            found[str(number)] = char
    return found


def _joints(tables: Tables) -> tuple[str, ...]:
    """Return ` and `, ` und `, ` & `, then those of languages without spaces."""
    words = [word for table in tables.values() for word in table["joints"]]
    # `and` must stand alone: `Brandenburg` has one inside
    spaced = [f" {word} " for word in words if not is_cjk(word[0])]
    unspaced = [word for word in words if is_cjk(word[0])]
    return (*spaced, " & ", *unspaced)


def _endings(tables: Tables) -> tuple[str, ...]:
    """Return the endings of all languages, each once."""
    endings = {ending: None for table in tables.values() for ending in table.get("endings", ())}
    # longest first: `lampen` without its ending is `lamp`, not `lampe`
    return tuple(sorted(endings, key=len, reverse=True))
