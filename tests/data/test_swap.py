"""Other words in the same sentence: always a true row, never one of the eval suite, the same every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.data.test_labelled import lines

from tumen.core.errors import InputError
from tumen.data import read_corpus, write_corpus
from tumen.data.filters import RowFilter, eval_keys
from tumen.data.sources.labelled import LabelledSentence, action_of, ontology_of
from tumen.data.swap import swapped
from tumen.language.action import normalise
from tumen.language.ontology import Ontology
from tumen.recipe import Data, Part

ROWS = [
    LabelledSentence(
        "wake me at six on monday", "alarm_set", [("time", "six"), ("date", "monday")]
    ),
    LabelledSentence(
        "an alarm for half past nine please", "alarm_set", [("time", "half past nine")]
    ),
    LabelledSentence(
        "is it dollar or yen", "qa_currency", [("currency", "dollar"), ("currency", "yen")]
    ),
    LabelledSentence("how much is a krone", "qa_currency", [("currency", "krone")]),
    LabelledSentence("the week after the week", "calendar", [("date", "week")]),
    LabelledSentence("stop it", "alarm_stop"),
]
ONTOLOGY = ontology_of(ROWS)


def rows() -> list[dict[str, Any]]:
    return [
        {
            "sentence": normalise(row.sentence),
            "action": json.loads(action_of(row, normalise(row.sentence), ONTOLOGY).json(ONTOLOGY)),
        }
        for row in ROWS
    ]


def said(number: int, share: float = 1.0, suite: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    row_filter = RowFilter(("held_out",), eval_keys(suite))
    return [
        dict(row)
        for row in swapped(
            rows(), share=share, number=number, seed=3, ontology=ONTOLOGY, row_filter=row_filter
        )
    ]


def test_words_of_the_same_intent_and_slot_stand_in_their_place() -> None:
    seen = {row["sentence"]: row["action"] for number in range(1, 30) for row in said(number)}
    assert seen["wake me at half past nine on monday"] == {
        "lang": "en", "intent": "alarm_set", "time": "half past nine", "date": "monday",
    }  # fmt: skip
    assert seen["is it krone or yen"]["currency"] == "krone;yen"
    for sentence, action in seen.items():
        for slot in set(action) - {"lang", "intent"}:
            assert all(f" {run} " in f" {sentence} " for run in action[slot].split(";"))


def test_what_cannot_be_swapped_stays() -> None:
    for row, before in zip(said(1), rows(), strict=True):
        if before["action"]["intent"] in (
            "calendar",
            "alarm_stop",
        ):  # its words stand twice; it has none
            assert row == before


def test_it_is_a_function_of_seed_and_pass() -> None:
    assert said(1) == said(1)
    assert any(said(1) != said(number) for number in (2, 3))
    assert said(1, share=0.0) == rows()


def test_no_sentence_of_a_suite_is_made() -> None:
    held = "an alarm for six please"
    assert any(row["sentence"] == held for number in range(1, 9) for row in said(number))
    assert not any(
        row["sentence"] == held for number in range(1, 9) for row in said(number, suite=(held,))
    )


def test_a_mix_of_one_source_swaps_from_its_second_pass_on(tmp_path: Path) -> None:
    table = [
        {"sentence": f"wake me at {n} please", "intent": "alarm_set", "slots": {"time": str(n)}}
        for n in range(40)
    ]
    table += [{"sentence": f"play song {n}", "intent": "music_play", "slots": {}} for n in range(9)]
    path = lines(tmp_path / "a.jsonl", table)
    part = Part(
        source="labelled",
        path=path,
        weight=1,
        epochs=3,
        slot_swap=1.0,
        exclude_intents=("music_play",),
    )
    write_corpus(Data(mix=(part,), eval_sentences=5, validation=5), 0, tmp_path / "corpus", "")
    texts = [row["sentence"] for row in read_corpus(tmp_path / "corpus", "train")]
    assert len(texts) in range(85, 105)
    assert not any("song" in text for text in texts)
    first = len(texts) // 3
    assert len(set(texts[:first])) == first
    assert texts[first : 2 * first] != texts[:first]
    wrong = part.model_copy(update={"exclude_intents": ("music_paly",)})
    with pytest.raises(InputError, match="'music_paly' is no intent of this source"):
        write_corpus(Data(mix=(wrong,), eval_sentences=5, validation=5), 0, tmp_path / "other", "")


def test_what_one_source_knows_may_be_nothing_to_the_others(tmp_path: Path) -> None:
    asked = [
        {"sentence": f"who won cup {n}", "intent": "qa", "slots": {"cup": str(n)}}
        for n in range(40)
    ]
    asked += [
        {"sentence": f"play song {n}", "intent": "music_play", "slots": {}} for n in range(40)
    ]
    known = [
        {"sentence": f"wake me at {n}", "intent": "alarm_set", "slots": {"time": str(n)}}
        for n in range(40)
    ]
    mix = (
        Part(source="labelled", path=lines(tmp_path / "known.jsonl", known), weight=1),
        Part(
            source="labelled",
            path=lines(tmp_path / "asked.jsonl", asked),
            weight=1,
            relabel_none=("qa",),
        ),
    )
    write_corpus(Data(mix=mix, eval_sentences=3, validation=3), 0, tmp_path / "corpus", "")
    assert set(Ontology.load(tmp_path / "corpus").intents) == {"alarm_set", "none"}
    actions = {row["sentence"]: row["action"] for row in read_corpus(tmp_path / "corpus", "train")}
    assert {"lang": "en", "intent": "none"} in actions.values()
    assert all(
        (action["intent"] == "none") == ("cup" in sentence) for sentence, action in actions.items()
    )


def test_a_source_of_a_mix_has_languages_of_its_own(tmp_path: Path) -> None:
    shared: dict[str, Any] = {"source": "home", "weight": 1, "not_home": 0.0, "sentences": 30}
    mix = (
        Part(languages=("en",), exclude_intents=("HassTurnOn",), **shared),
        Part(languages=("de",), **shared),
    )
    write_corpus(
        Data(mix=mix, validation=3, eval_sentences=3, home_entities=(12, 20)),
        0,
        tmp_path / "corpus",
        "",
    )
    actions = [row["action"] for row in read_corpus(tmp_path / "corpus", "train")]
    assert {action["lang"] for action in actions} == {"en", "de"}
    assert {"none", "HassTurnOn"}.isdisjoint(
        action["intent"] for action in actions if action["lang"] == "en"
    )
