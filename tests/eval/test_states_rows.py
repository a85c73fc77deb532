"""The rows of benchmarks/states: every one can be used, and the kinds are all there."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tumen.eval.states import StateRow, read_state_rows

FOLDER = Path(__file__).parents[2] / "benchmarks" / "states"
LANGUAGES = ("en", "zh", "de")
# kind -> fewest rows of a language
KINDS = {
    "plain": 30,
    "query": 12,
    "negated": 16,
    "timed": 20,
    "exception": 10,
    "multiple": 18,
    "ambiguous": 10,
    "place": 12,
    "own_words": 12,
    "reference": 12,
    "impossible": 12,
    "not_home": 8,
    "amount": 15,
    "naming": 15,
}
HARD = ("negated", "timed", "exception", "multiple", "ambiguous")


@cache
def rows_of(lang: str) -> list[StateRow]:
    rows = []
    for row in read_state_rows(FOLDER / f"{lang}.jsonl"):
        assert isinstance(row, StateRow), row
        rows.append(row)
    return rows


def test_every_file_is_of_a_language() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.jsonl")) == sorted(LANGUAGES)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_row_has_an_id_a_language_and_a_kind(lang: str) -> None:
    rows = rows_of(lang)
    assert [row.id for row in rows] == [f"{lang}-{number}" for number in range(1, len(rows) + 1)]
    assert {row.lang for row in rows} == {lang}
    assert {row.kind for row in rows} == set(KINDS)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_shares_of_the_kinds(lang: str) -> None:
    rows = rows_of(lang)
    assert len(rows) >= 200
    count = Counter(row.kind for row in rows)
    assert {kind: count[kind] for kind, fewest in KINDS.items() if count[kind] < fewest} == {}
    assert sum(count[kind] for kind in HARD) >= len(rows) / 3


@pytest.mark.parametrize("lang", LANGUAGES)
def test_several_homes_and_places_of_the_speaker(lang: str) -> None:
    rows = rows_of(lang)
    homes = Counter(str(row.home["name"]) for row in rows)
    assert len(homes) >= 4
    assert min(homes.values()) >= 25
    assert sum("here" in row.home for row in rows) >= len(rows) / 4


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_sentence_comes_twice_in_one_home(lang: str) -> None:
    said = []
    for row in rows_of(lang):
        spoken = tuple(turn.say for turn in row.turns)
        said.append((str(row.home["name"]), row.home.get("here"), spoken))
    assert [one for one, times in Counter(said).items() if times > 1] == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_rows_of_a_kind_expect_what_the_kind_means(lang: str) -> None:
    for row in rows_of(lang):
        first = row.turns[0]
        assert first.expect is not None
        nothing = any(one.is_nothing for one in first.expect)
        if row.kind in ("negated", "impossible", "not_home", "query", "timed"):
            assert nothing, row.id
        if row.kind in ("exception", "multiple", "place"):
            assert not nothing or first.reply is not None, row.id
        if row.kind == "ambiguous":
            assert first.answer == "ask" or first.or_answer == "ask", row.id
