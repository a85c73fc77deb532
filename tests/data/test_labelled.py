"""Data sets with labels of their own become corpora with an ontology of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tumen.core.errors import InputError
from tumen.data import Codec, read_corpus, write_corpus, write_dataset, write_tokenizer
from tumen.data.sources.labelled import (
    LabelledSentence,
    SnipsSource,
    action_of,
    ontology_of,
    read_clinc,
    read_labelled,
    read_slurp,
    read_snips,
)
from tumen.language.action import HOME, Action, grammar, parse, pieces
from tumen.language.ontology import Ontology
from tumen.recipe import Data, Part, Tokenizer

SLURP = {
    "sentence": "add mom's number to my list for today",
    "scenario": "lists",
    "action": "createoradd",
    "intent": "wrong_here",
    "tokens": [
        {"surface": word}
        for word in ["add", "mom", "'s", "number", "to", "my", "list", "for", "today"]
    ],
    "entities": [{"type": "relation", "span": [1, 2]}, {"type": "date", "span": [8]}],
}
HWU = {
    "id": "1", "scenario": "qa", "action": "currency", "text": "What is one dollar in yen?",
    "annotation": "What is one [currency_name : dollar] in [currency_name : yen]?",
}  # fmt: skip
SNIPS = {
    "PlayMusic": [
        {
            "data": [
                {"text": "play "},
                {"text": "Fix You", "entity": "track"},
                {"text": " by "},
                {"text": "Coldplay", "entity": "artist"},
            ]
        }
    ]
}
CLINC = {
    "train": [["how do i say hi in french", "translate"]],
    "oos_val": [["who am i", "oos"]],
    "val": [["translate hi", "translate"]],
}


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


class TestReaders:
    def test_slurp_takes_the_label_from_scenario_and_action_and_joins_a_possessive(
        self, tmp_path: Path
    ) -> None:
        assert list(read_slurp(lines(tmp_path / "a.jsonl", [SLURP]))) == [
            LabelledSentence(
                "add mom's number to my list for today",
                "lists_createoradd",
                [("relation", "mom's"), ("date", "today")],
            )
        ]

    def test_hwu64_reads_its_annotation(self, tmp_path: Path) -> None:
        (row,) = read_slurp(lines(tmp_path / "a.jsonl", [HWU]))
        assert row == LabelledSentence(
            "What is one dollar in yen?",
            "qa_currency",
            [("currency_name", "dollar"), ("currency_name", "yen")],
        )

    def test_snips_reads_a_folder_in_latin_1_too(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_bytes(
            json.dumps(SNIPS, ensure_ascii=False).replace("Fix You", "Caf\u00e9").encode("latin-1")
        )
        (row,) = read_snips(str(tmp_path))
        assert row == LabelledSentence(
            "play Caf\u00e9 by Coldplay",
            "PlayMusic",
            [("track", "Caf\u00e9"), ("artist", "Coldplay")],
        )

    def test_clinc_says_which_split_and_what_is_out_of_scope(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text(json.dumps(CLINC))
        assert [(row.intent, row.split) for row in read_clinc(str(tmp_path / "a.json"))] == [
            ("translate", "train"), ("none", "validation"), ("translate", "validation")
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("read", "text"),
        [
            (read_labelled, '{"sentence": "a"}\n'),
            (read_labelled, '{"sentence": "a", "intent": "b", "slots": "{"}\n'),
            (read_slurp, '{"sentence": "a", "scenario": "b"}\n'),
            (
                read_slurp,
                '{"sentence": "a", "scenario": "b", "action": "c", "tokens": [], "entities": [{"type": "d", "span": [3]}]}\n',
            ),
            (read_clinc, '{"train": [1]}'),
            (read_clinc, "[]"),
            (read_clinc, '{"train": ['),
            (read_snips, '{"A": [{"data": [{}]}]}'),
        ],
    )
    def test_another_file_is_one_line_with_its_name(
        self, tmp_path: Path, read: Any, text: str
    ) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text(text)
        with pytest.raises(InputError, match="rows.jsonl") as caught:
            list(read(str(path)))
        assert "\n" not in str(caught.value)


class TestOntology:
    def test_a_slot_may_hold_several_runs(self) -> None:
        row = LabelledSentence(
            "one dollar in yen", "qa_currency", [("currency", "dollar"), ("currency", "yen")]
        )
        ontology = ontology_of([row])
        action = action_of(row, row.sentence, ontology)
        assert action == Action("qa_currency", "en", {"currency": "dollar;yen"})
        assert action.runs("currency") == ["dollar", "yen"]
        assert list(pieces(action.wire(ontology), ontology))[2:7] == [
            ',"currency":"',
            " dollar",
            ";",
            " yen",
            '"',
        ]
        assert (
            parse(action.wire(ontology), ontology)
            == action
            == parse(action.json(ontology), ontology)
        )

    def test_joined_knows_what_each_knows(self) -> None:
        other = ontology_of([LabelledSentence("a", "alarm_set", [("time", "a")])])
        both = Ontology.joined([HOME, other])
        assert {*both.intents} == {*HOME.intents, "alarm_set"}
        assert both.acts == HOME.acts
        assert both.group("alarm_set") == "alarm"
        assert both.group("HassTurnOn") == "on and off"

    def test_a_slot_cannot_be_closed_and_copied(self) -> None:
        with pytest.raises(ValueError, match="state"):
            Ontology.joined(
                [HOME, ontology_of([LabelledSentence("a", "weather", [("state", "a")])])]
            )

    @pytest.mark.parametrize("name", ['a"b', "a b", "", "\u00fc"])
    def test_names_that_break_a_grammar_are_refused(self, name: str) -> None:
        with pytest.raises(InputError, match="letters"):
            ontology_of([LabelledSentence("a", name)])

    def test_the_grammar_allows_what_the_data_say(self) -> None:
        ontology = ontology_of(
            [
                LabelledSentence(
                    "one dollar in yen",
                    "qa_currency",
                    [("currency", "dollar"), ("currency", "yen")],
                )
            ]
        )
        text = grammar("one dollar in yen", ontology)
        assert 's-currency ::= ",\\"currency\\":\\"" span (";" span)* "\\""' in text

    def test_slots_are_written_as_they_come_in_the_sentence(self) -> None:
        there = LabelledSentence(
            "play hello by adele", "play", [("song", "hello"), ("artist", "adele")]
        )
        back = LabelledSentence(
            "of adele i want hello", "play", [("artist", "adele"), ("song", "hello")]
        )
        ontology = ontology_of([there, back, LabelledSentence("stop", "stop")])
        assert ontology.spoken == ("play",)
        for row, order in ((there, ["song", "artist"]), (back, ["artist", "song"])):
            action = action_of(row, row.sentence, ontology)
            assert list(json.loads(action.json(ontology)))[2:] == order
            assert list(parse(action.wire(ontology), ontology).slots) == order
        assert ontology.without(["stop"]).spoken == ("play",)
        assert ontology.without(["play"]).spoken == ()
        assert Ontology.joined([HOME, ontology]).spoken == ("play",)
        fixed = ontology.model_copy(update={"spoken": ()})
        assert Ontology.joined([ontology, fixed]).spoken == (), (
            "one of them has them in another order"
        )
        text = grammar(there.sentence, ontology)
        assert 'i0 ::= ",\\"intent\\":\\"play\\"" (s-song | s-artist)*' in text
        with pytest.raises(InputError, match="not an action"):
            parse('{"lang":"en","intent":"play","song":"a","song":"b"}', ontology)

    def test_a_file_of_ones_own_may_name_them_in_any_order(self, tmp_path: Path) -> None:
        row = {
            "sentence": "Play Hello by adele",
            "intent": "play",
            "slots": {"artist": "adele", "song": "hello"},
        }
        (read,) = read_labelled(lines(tmp_path / "a.jsonl", [row]))
        assert read.slots == [("song", "hello"), ("artist", "adele")]


class TestCorpus:
    def test_the_chain_to_tokens_carries_the_ontology(self, tmp_path: Path) -> None:
        rows = [
            {"sentence": f"wake me at {n} please", "intent": "alarm_set", "slots": {"time": str(n)}}
            for n in range(40)
        ]
        rows += [
            {"sentence": f"play {n} songs", "intent": "music_play", "slots": {}} for n in range(40)
        ]
        rows.append({"sentence": "play it", "intent": "music_play", "slots": {"song": "not there"}})
        section = Data(
            source="labelled",
            path=lines(tmp_path / "a.jsonl", rows),
            eval_sentences=10,
            validation=10,
        )
        facts = write_corpus(section, 0, tmp_path / "corpus", "").facts
        assert (facts["eval"], facts["validation"], facts["train"]) == (10, 10, 60)
        write_tokenizer(Tokenizer(vocab_size=512), tmp_path / "corpus", tmp_path / "tokenizer", "")
        write_dataset(tmp_path / "corpus", tmp_path / "tokenizer", tmp_path / "dataset", "")
        codec = Codec.load(tmp_path / "tokenizer")
        assert set(codec.ontology.intents) == {"alarm_set", "music_play"}
        row = next(
            row
            for row in read_corpus(tmp_path / "corpus", "train")
            if row["action"]["intent"] == "alarm_set"
        )
        ids = codec.answer(parse(json.dumps(row["action"]), codec.ontology))
        assert [[token] for token in ids[:3]] == [
            codec.structure[piece]
            for piece in ('{"lang":"en"', ',"intent":"alarm_set"', ',"time":"')
        ]

    def test_a_mix_has_the_intents_of_all(self, tmp_path: Path) -> None:
        one = lines(
            tmp_path / "a.jsonl",
            [
                {"sentence": f"wake me at {n}", "intent": "alarm_set", "slots": {"time": str(n)}}
                for n in range(9)
            ],
        )
        other = lines(
            tmp_path / "b.jsonl",
            [{"sentence": f"play {n}", "intent": "music_play"} for n in range(9)],
        )
        parts = tuple(Part(source="labelled", path=path, weight=1) for path in (one, other))
        write_corpus(Data(mix=parts, eval_sentences=1, validation=1), 0, tmp_path / "corpus", "")
        assert set(Ontology.load(tmp_path / "corpus").intents) == {"alarm_set", "music_play"}

    def test_no_path_is_said(self) -> None:
        from tumen.data.sources.source import source_of

        with pytest.raises(InputError, match="data.path"):
            source_of("slurp").corpus(Data(source="slurp"), 0)


class TestShares:
    """People ask four times as often for music as to be woken; the rows have as many of each."""

    def rows(self) -> list[dict[str, Any]]:
        rows = [
            {"sentence": f"wake me at {n} please", "intent": "alarm_set", "slots": {"time": str(n)}}
            for n in range(40)
        ]
        return rows + [
            {"sentence": f"play {n} songs", "intent": "music_play", "slots": {}} for n in range(40)
        ]

    def corpus(self, tmp_path: Path, asked: list[dict[str, Any]], **fields: Any) -> Path:
        path = lines(tmp_path / "rows.jsonl", self.rows())
        shares = lines(tmp_path / "asked.jsonl", asked)
        part = Part.model_validate(
            {"source": "labelled", "path": path, "weight": 1, "class_priors": shares} | fields
        )
        write_corpus(
            Data(mix=(part,), eval_sentences=1, validation=1, home_entities=(12, 20)),
            0,
            tmp_path / "corpus",
            "",
        )
        return tmp_path / "corpus"

    def test_what_the_rows_say_too_often_is_taken_off_in_the_loss(self, tmp_path: Path) -> None:
        asked = [
            {"sentence": f"a {n}", "intent": "music_play" if n % 5 else "alarm_set"}
            for n in range(100)
        ]
        corpus = self.corpus(tmp_path, [*asked, {"sentence": "b", "intent": "another"}])
        offsets = json.loads((corpus / "offsets.json").read_text())
        assert offsets == {
            "alarm_set": pytest.approx(
                math.log(0.5 / (21 / 102)), abs=0.05
            ),  # two rows are held back
            "music_play": pytest.approx(math.log(0.5 / (81 / 102)), abs=0.05),
        }
        write_tokenizer(Tokenizer(vocab_size=512), corpus, tmp_path / "tokenizer", "")
        write_dataset(corpus, tmp_path / "tokenizer", tmp_path / "dataset", "")
        codec = Codec.load(tmp_path / "tokenizer")
        tokens = json.loads((tmp_path / "dataset" / "offsets.json").read_text())
        assert tokens == {str(codec.intent(name)): nats for name, nats in offsets.items()}

    def test_nobody_asks_for_what_is_here(self, tmp_path: Path) -> None:
        with pytest.raises(
            InputError,
            match=r"asked.jsonl: has no intent of .*rows.jsonl; data.mix.class_priors needs the same labels",
        ):
            self.corpus(tmp_path, [{"sentence": "b", "intent": "another"}])

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(
            InputError,
            match=r"^nowhere.jsonl: no such file or folder; data.mix.class_priors is read from where "
            r"the command runs; name one that you have$",
        ):
            self.corpus(tmp_path, [], class_priors="nowhere.jsonl")

    def test_a_source_without_labels(self, tmp_path: Path) -> None:
        with pytest.raises(
            InputError,
            match=r"data.mix.class_priors: source 'home' reads no labelled file; leave it out",
        ):
            self.corpus(tmp_path, [], source="home", path=None, sentences=30, languages=("en",))

    def test_an_intent_in_several_tokens(self) -> None:
        codec = Codec.__new__(Codec)
        codec.structure = {}
        with pytest.raises(
            InputError,
            match=r"no token of its own for the intent alarm_set; set tokenizer.pieces = true",
        ):
            codec.intent("alarm_set")


def test_a_data_set_that_is_not_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        SnipsSource().corpus(Data(source="snips", path=str(tmp_path / "snips")), 7)
    assert str(caught.value) == (
        f"{tmp_path}/snips: no such file or folder; data.path is read from where the command runs; "
        "get it from https://github.com/sonos/nlu-benchmark"
    )
