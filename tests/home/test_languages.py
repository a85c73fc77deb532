"""Language files: every language says what every other one says, in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tumen.home import common_words, fold, language_of, read_language_tables
from tumen.home.naming.kinds import kind_words
from tumen.home.naming.word_forms import split
from tumen.language.action import LANGUAGES

FOLDERS = ("tumen.home.naming", "tumen.assistant.values", "tumen.assistant.replies")

# what only some languages need
OPTIONAL = {
    "answer_endings",
    "answer_words",
    "after_color",
    "before_value",
    "characters",
    "color_endings",
    "compound_endings",
    "digits",
    "endings",
    "fahrenheit",
    "numbers",
    "ordinal_digits",
    "particle",
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_language_has_a_file_with_the_same_tables(folder: str) -> None:
    tables = read_language_tables(folder)
    assert tuple(tables) == LANGUAGES
    needed = {lang: table.keys() - OPTIONAL for lang, table in tables.items()}
    assert len({frozenset(keys) for keys in needed.values()}) == 1, needed


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_list_has_an_entry_twice_or_an_empty_one(folder: str) -> None:
    def check(where: str, table: Any) -> None:
        if isinstance(table, Mapping):
            for key, value in table.items():
                check(f"{where}.{key}", value)
        elif isinstance(table, list) and all(isinstance(entry, str) for entry in table):
            assert all(entry.strip() for entry in table), where
            # the noun of one thing may be that of several: `Fenster`
            if ".nouns." not in where:
                assert len(set(table)) == len(table), where

    for lang, table in read_language_tables(folder).items():
        check(lang, table)


def test_a_word_has_the_same_meaning_in_its_language() -> None:
    for lang, table in read_language_tables(FOLDERS[0]).items():
        meanings = [set(table[key]) for key in ("here", "everywhere", "all", "nevermind", "undo")]
        for number, words in enumerate(meanings):
            for others in meanings[number + 1 :]:
                assert not words & others, lang


def test_words_are_found_however_they_are_written() -> None:
    words = common_words()
    for said in ("Überall", "ÜBERALL", "uberall"):
        assert fold(said) in words.everywhere
    assert fold("rückgängig") in words.undo
    assert {"all", "alle", "所有"} <= words.all
    assert {"one", "eins", "一"} <= words.ordinals[0]
    assert fold("fünf") in words.ordinals[4]


def test_every_kind_word_of_every_language_names_a_kind() -> None:
    for lang, table in read_language_tables(FOLDERS[0]).items():
        for kind, said in table["kinds"].items():
            for word in said:
                found = kind_words()["".join(split(word))]
                # a word that two languages share has the kind of the first
                assert found.domains & set(kind.partition(":")[0].split(",")), (lang, word)


@pytest.mark.parametrize(
    ("text", "lang"), [("撤销", "zh"), ("turn 灯 on", "zh"), ("undo", "de"), ("rückgängig", "de")]
)
def test_the_script_tells_the_language_where_it_can(text: str, lang: str) -> None:
    assert language_of(text, otherwise="de") == lang
