"""Suites under a data set's own labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tumen.eval import EvalCase, Prediction
from tumen.eval.suites import (
    clinc_cases,
    massive,
    massive_cases,
    refusal_curve,
    refusal_metrics,
    slot_f1,
    slu_f1,
    slurp_cases,
    slurp_f1,
    snips_cases,
)
from tumen.eval.suites.slurp import entities_of
from tumen.language.action import Action

ROW = {
    "sentence": "wake me at 5am for mom's call",
    "scenario": "alarm",
    "action": "set",
    "tokens": [
        {"surface": word} for word in ["wake", "me", "at", "5am", "for", "mom", "'s", "call"]
    ],
    "entities": [{"type": "time", "span": [3]}, {"type": "event_name", "span": [5, 6, 7]}],
}


@pytest.fixture
def case(tmp_path: Path) -> EvalCase:
    (tmp_path / "devel.jsonl").write_text(json.dumps(ROW) + "\n")
    (case,) = slurp_cases(tmp_path / "devel.jsonl")
    return case


class TestSlurp:
    def test_words_are_given_back_as_the_tokens_they_cover(self, case: EvalCase) -> None:
        assert case.sentence == "wake me at 5 am for mom's call"
        given = Action("alarm_set", "en", {"time": "5 am", "event_name": "mom's call"})
        assert entities_of(given, case.labels.tokens) == [
            ("time", "5am"),
            ("event_name", "mom 's call"),
        ]
        assert case.grade(given) == (True, True)

    def test_a_wrong_intent_or_slot_is_seen(self, case: EvalCase) -> None:
        assert case.grade(
            Action("alarm_query", "en", {"time": "5 am", "event_name": "mom's call"})
        ) == (False, False)
        assert case.grade(Action("alarm_set", "en", {"time": "5 am"})) == (True, False)

    def test_all_right_scores_one_and_nothing_scores_zero(self, case: EvalCase) -> None:
        right = Prediction(Action("alarm_set", "en", {"time": "5 am", "event_name": "mom's call"}))
        assert slurp_f1([case], [right]) == 1.0
        assert slurp_f1([case], [Prediction(None)]) == 0.0


class TestSluF1:
    """Worked by hand from the rules of the authors' script."""

    def test_a_near_filler_costs_its_distance(self) -> None:
        # word: 1 hit, distance 1/2; char: 1 hit, distance 4 of 8 letters: 2 hits, 1 false positive, 1 false negative in all
        assert slu_f1([([("date", "next day")], [("date", "next")])]) == pytest.approx(
            2 / 3, abs=0.04
        )
        words, chars = 1 / 2, 4 / 8
        assert slu_f1([([("date", "next day")], [("date", "next")])]) == pytest.approx(
            2 / (2 + words + chars)
        )

    def test_the_nearest_of_two_is_taken(self) -> None:
        gold = [("city", "rome"), ("city", "paris")]
        assert slu_f1([(gold, [("city", "paris"), ("city", "rome")])]) == 1.0

    def test_another_type_is_a_miss_on_both_sides(self) -> None:
        assert slu_f1([([("city", "rome")], [("date", "rome")])]) == 0.0

    def test_extra_and_missing_count(self) -> None:
        # each matrix: 1 hit, 1 false positive in one row, 1 false negative in the other
        pairs = [([("a", "x")], [("a", "x"), ("b", "y")]), ([("a", "x")], [])]
        assert slu_f1(pairs) == pytest.approx(0.5)


class TestClinc:
    def test_refusals_trade_scope_for_recall(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text(
            json.dumps({"val": [["a", "x"], ["b", "x"]], "oos_val": [["c", "oos"], ["d", "oos"]]})
        )
        cases = list(clinc_cases(tmp_path / "a.json"))
        answers = [
            Prediction(Action(intent), 0.0, sure)
            for intent, sure in (("x", 0.9), ("x", 0.4), ("none", 0.9), ("x", 0.3))
        ]
        assert refusal_metrics(cases, answers, 0.0) == {"in_scope": 1.0, "oos_recall": 0.5}
        assert refusal_metrics(cases, answers, 0.35) == {"in_scope": 1.0, "oos_recall": 1.0}
        assert refusal_metrics(cases, answers, 0.5) == {"in_scope": 0.5, "oos_recall": 1.0}
        assert [row["unsure"] for row in refusal_curve(cases, answers)][:2] == [0.0, 0.1]


class TestSnips:
    def test_exact_needs_every_slot(self, tmp_path: Path) -> None:
        row = {"PlayMusic": [{"data": [{"text": "play "}, {"text": "Fix You", "entity": "track"}]}]}
        (tmp_path / "validate_PlayMusic.json").write_text(json.dumps(row))
        (case,) = snips_cases(tmp_path)
        assert case.grade(Action("PlayMusic", "en", {"track": "fix you"})) == (True, True)
        assert case.grade(Action("PlayMusic", "en", {"track": "fix"})) == (True, False)
        assert case.grade(Action("PlayMusic", "en", {"artist": "fix you"})) == (True, False)


class TestMassive:
    ROWS = (
        {"id": 1, "intent": "alarm_set", "utt": "Weck mich um 7 und um 8 Uhr",
         "slots": [["time", 22, 27], ["time", 13, 14]], "locale": "de-DE"},
        {"id": 1, "intent": "alarm_set", "utt": "wake me at seven p. m.",
         "slots": [["time", 11, 22]], "locale": "en-US"},
        {"id": 2, "intent": "iot_wemo_on", "utt": "turn the fan on",
         "slots": [["device_type", 9, 12]], "locale": "en-US"},
    )  # fmt: skip

    @pytest.fixture
    def cases(self, tmp_path: Path) -> list[EvalCase]:
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(map(json.dumps, self.ROWS)))
        return list(massive_cases(path))

    RIGHT = (
        Action("alarm_set", "de", {"time": "7;8 uhr"}),
        Action("alarm_set", "en", {"time": "seven p m"}),
        Action("HassTurnOn", "en", {"name": "fan"}),
    )

    def test_all_right_scores_one_in_the_words_of_either_set(self, cases: list[EvalCase]) -> None:
        assert [case.grade(action) for case, action in zip(cases, self.RIGHT, strict=True)] == [
            (True, True)
        ] * 3
        assert slot_f1(cases, [Prediction(action) for action in self.RIGHT]) == 1.0
        assert slot_f1(cases, [Prediction(None)] * 3) == 0.0

    def test_a_span_is_right_in_type_and_both_ends(self, cases: list[EvalCase]) -> None:
        given = [
            Prediction(Action("alarm_query", "de", {"time": "7"})),  # of two, intent aside
            Prediction(Action("alarm_set", "en", {"time": "seven"})),  # too short
            Prediction(Action("iot_wemo_on", "en", {"house_place": "fan"})),  # another type
        ]
        assert slot_f1(cases, given) == pytest.approx(2 * 1 / (4 + 3))
        assert case_grades(cases, given) == [(False, False), (True, False), (True, False)]

    def test_words_that_stand_twice_are_taken_one_after_the_other(self, tmp_path: Path) -> None:
        row = {"id": 1, "intent": "alarm_set", "utt": "mañana por la mañana",
               "slots": [["date", 0, 6], ["timeofday", 14, 20]]}  # fmt: skip
        path = tmp_path / "es-ES.jsonl"
        path.write_text(json.dumps(row))
        (case,) = massive_cases(path)
        assert case.groups == ("es-ES",)
        right = Action("alarm_set", "es", {"date": "mañana", "timeofday": "mañana"})
        assert case.grade(right) == (True, True)

    def test_the_test_rows_are_asked_where_there_are_some(self, tmp_path: Path) -> None:
        for partition in ("train", "dev", "test"):
            row = {"id": 1, "intent": "alarm_query", "utt": partition, "slots": []}
            (tmp_path / f"en-US.{partition}.jsonl").write_text(json.dumps(row))
        assert [case.sentence for case in massive_cases(tmp_path)] == ["test"]
        (tmp_path / "en-US.test.jsonl").unlink()
        assert [case.sentence for case in massive_cases(tmp_path)] == ["dev"]
        only = tmp_path / "en-US.train.jsonl"
        assert [case.sentence for case in massive_cases(only)] == ["train"]

    def test_each_locale_has_its_slot_f1(self, cases: list[EvalCase]) -> None:
        given = [Prediction(action) for action in self.RIGHT[:2]] + [Prediction(None)]
        found = massive.SUITE.group_metrics(cases, given, 0.5)
        assert found == {"de-DE": {"slot_f1": 1.0}, "en-US": {"slot_f1": 0.6667}}


def case_grades(cases: list[EvalCase], given: list[Prediction]) -> list[tuple[bool, bool]]:
    return [case.grade(one.action) for case, one in zip(cases, given, strict=True)]
