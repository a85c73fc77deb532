"""When two actions are the same, what is counted of a prediction, and what a suite reports."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.homes import home_of, thing

from tumen.assistant.values import Values
from tumen.core.errors import InputError
from tumen.eval.equivalence import invents_words, same_action, would_act
from tumen.eval.eval_case import EvalCase, Prediction
from tumen.eval.suites.held_out import held_out_cases
from tumen.eval.suites.suite import SUITES, Suite, suite_of, summarize
from tumen.eval.tally import Tally, evaluate, tally
from tumen.home.home import Home
from tumen.language import HOME as ONTOLOGY
from tumen.language import Action

VALUES = Values()


def action(intent: str, lang: str = "en", **slots: str) -> Action:
    return Action(intent if intent == "none" else f"Hass{intent}", lang, slots)


@pytest.fixture(scope="module")
def home() -> Home:
    return home_of(
        thing("light.red", "Red lamp", "kitchen"),
        thing("light.blue", "Blue lamp", "hall"),
        thing("cover.blind", "Blind", "hall"),
        thing("binary_sensor.window", "Window", "hall", device_class="window"),
        thing("lock.front", "Front door", "hall"),
    )


class TestSameAction:
    @pytest.mark.parametrize(
        ("given", "gold", "same"),
        [
            # the same device by other words
            (action("TurnOn", name="red lamp"), action("TurnOn", area="kitchen"), True),
            (action("TurnOn", name="red lamp"), action("TurnOn", name="blue lamp"), False),
            (action("TurnOn", name="red lamp"), action("TurnOff", name="red lamp"), False),
            # the same value by other words
            (
                action("LightSet", name="red lamp", brightness="twenty"),
                action("LightSet", name="red lamp", brightness="20"),
                True,
            ),
            (
                action("LightSet", name="red lamp", brightness="20"),
                action("LightSet", name="red lamp", brightness="30"),
                False,
            ),
            # a value that the other does not have
            (
                action("LightSet", name="red lamp", brightness="20"),
                action("LightSet", name="red lamp", brightness="20", color="red"),
                False,
            ),
            # a sensor that is on is an open window
            (
                action("GetState", name="window", state="on"),
                action("GetState", name="window", state="open"),
                True,
            ),
            (
                action("GetState", name="window", state="off"),
                action("GetState", name="window", state="open"),
                False,
            ),
        ],
    )
    def test_devices_and_values_decide(
        self, home: Home, given: Action, gold: Action, same: bool
    ) -> None:
        assert same_action(given, gold, home, VALUES) == same
        assert same_action(gold, given, home, VALUES) == same

    @pytest.mark.parametrize(
        ("given", "gold", "same"),
        [
            # the slot that holds the words of a place does not matter, their order neither
            (action("TurnOn", name="desk lamp"), action("TurnOn", area="lamp desk"), True),
            (action("TurnOn", name="desk lamp"), action("TurnOn", name="desk"), False),
            # slots that only say which devices are meant
            (action("TurnOn", name="desk", domain="light"), action("TurnOn", name="desk"), True),
            (action("TurnOn", name="desk", scope="all"), action("TurnOn", name="desk"), True),
            # values
            (
                action("LightSet", name="desk", brightness="twenty"),
                action("LightSet", name="desk", brightness="20"),
                True,
            ),
            (
                action("LightSet", name="desk", step="up"),
                action("LightSet", name="desk", step="down"),
                False,
            ),
            (
                action("GetState", name="desk", state="closed"),
                action("GetState", name="desk", state="off"),
                True,
            ),
            (
                action("GetState", name="desk", state="locked"),
                action("GetState", name="desk", state="off"),
                False,
            ),
        ],
    )
    def test_without_a_device_the_words_decide(
        self, home: Home, given: Action, gold: Action, same: bool
    ) -> None:
        assert same_action(given, gold, None, VALUES) == same
        assert same_action(given, gold, home, VALUES) == same, "no desk is in the home"

    def test_a_device_is_not_the_same_as_none(self, home: Home) -> None:
        found, missing = action("TurnOn", name="red lamp"), action("TurnOn", name="desk lamp")
        assert not same_action(found, missing, home, VALUES)
        assert not same_action(missing, found, home, VALUES)


class TestConsequences:
    @pytest.mark.parametrize(
        ("sentence", "slots", "invented"),
        [
            ("turn on the red lamp", {"name": "red lamp"}, False),
            ("turn on the red lamp", {"name": "lamp red"}, True),
            ("turn on the red lamp", {"name": "blue lamp"}, True),
            ("turn on the red lamp", {"name": "red lamp", "area": "hall"}, True),
            # a closed slot holds one of a few words, whether they were said or not
            ("turn on the red lamp", {"name": "red lamp", "domain": "fan"}, False),
            ("打开厨房的灯", {"area": "厨房"}, False),
            ("打开厨房的灯", {"area": "客厅"}, True),
        ],
    )
    def test_words_that_were_not_said(
        self, sentence: str, slots: dict[str, str], invented: bool
    ) -> None:
        assert invents_words(Action("HassTurnOn", "en", slots), sentence) == invented

    def test_what_would_change_something(self, home: Home) -> None:
        assert would_act(action("TurnOn", name="red lamp"), home, VALUES)
        assert not would_act(action("TurnOn", name="desk"), home, VALUES), "a refusal"
        assert not would_act(action("TurnOn", domain="light", name="lamp"), home, VALUES), "asks"
        assert not would_act(action("GetState", name="red lamp"), home, VALUES), "a question"
        assert not would_act(action("none"), home, VALUES)
        assert not would_act(None, home, VALUES)
        assert would_act(action("TurnOn", name="desk"), None, VALUES), "in some home it might"


class TestTally:
    def one(self, gold: Action | None, given: Action | None, home: Home, **case: Any) -> Tally:
        """The counts of one case."""
        counted = EvalCase("turn on the red lamp", gold, home, **case)
        return tally([counted], [Prediction(given)], VALUES)["all"]

    def test_right(self, home: Home) -> None:
        gold = action("TurnOn", name="red lamp")
        assert self.one(gold, gold, home) == Tally(
            n=1, exact=1, intent=1, golds=Counter([str(gold)]), marks=["1"]
        )

    def test_the_intent_alone(self, home: Home) -> None:
        found = self.one(action("TurnOn", area="hall"), action("TurnOn", name="red lamp"), home)
        assert (found.exact, found.intent, found.invented, found.marks) == (0, 1, 0, ["0"])

    def test_no_answer(self, home: Home) -> None:
        found = self.one(action("TurnOn", name="red lamp"), None, home)
        assert (found.n, found.exact, found.intent, found.invented) == (1, 0, 0, 0)

    @pytest.mark.parametrize(
        ("given", "false_acts", "false_intents"),
        [
            (action("TurnOn", name="red lamp"), 1, 1),
            (action("TurnOn", name="desk"), 0, 1),
            (action("GetState", name="red lamp"), 0, 0),
            (action("none"), 0, 0),
            (None, 0, 0),
        ],
    )
    def test_what_is_not_for_the_home(
        self, home: Home, given: Action | None, false_acts: int, false_intents: int
    ) -> None:
        found = self.one(action("none"), given, home)
        assert (found.not_home, found.false_acts, found.false_intents) == (
            1,
            false_acts,
            false_intents,
        )
        for_the_home = self.one(action("TurnOff", name="red lamp"), given, home)
        assert (for_the_home.not_home, for_the_home.false_acts) == (0, 0)

    def test_a_suite_may_compare_by_itself(self, home: Home) -> None:
        given = action("TurnOn", name="red lamp")
        found = self.one(None, given, home, grade=lambda action: (True, action is given))
        assert (found.intent, found.exact) == (1, 1)
        found = self.one(None, given, home, grade=lambda action: (True, False))
        assert (found.intent, found.exact) == (1, 0)
        assert self.one(None, given, home).exact == 0, "nothing says what is right"

    def test_groups_are_counted_beside_all(self, home: Home) -> None:
        right, wrong = action("TurnOn", name="red lamp"), action("TurnOn", name="blue lamp")
        cases = [
            EvalCase("turn on the red lamp", right, home, ("en", "lights")),
            EvalCase("turn on the red lamp", right, home, ("de",)),
            EvalCase("turn on the red lamp", right, home, ("en",)),
        ]
        answers = iter([right, wrong, wrong])
        rows, predictions = evaluate(cases, lambda case: Prediction(next(answers)), VALUES)
        assert {name: row["marks"] for name, row in rows.items()} == {
            "all": "100",
            "en": "10",
            "lights": "1",
            "de": "0",
        }
        assert [prediction.action for prediction in predictions] == [right, wrong, wrong]


class TestRow:
    def test_shares_and_counts(self) -> None:
        counts = Tally(
            n=8,
            exact=6,
            intent=7,
            not_home=4,
            false_acts=1,
            false_intents=3,
            invented=2,
            golds=Counter(a=4, b=4),
            marks=list("11111100"),
        )
        row = counts.row()
        assert (row["n"], row["exact"], row["intent"]) == (8, 0.75, 0.875)
        assert (row["false_acts"], row["false_intents"], row["invented"]) == (0.25, 0.75, 2)
        # beyond the best constant answer, which is right in half of the cases
        assert row["corrected"] == 0.5
        assert row["low"] < 0.75 < row["high"]
        assert row["marks"] == "11111100"

    def test_a_constant_answer_scores_nothing_beyond_chance(self) -> None:
        assert Tally(n=10, exact=6, golds=Counter(a=6, b=4)).row()["corrected"] == 0.0
        assert Tally(n=10, exact=3, golds=Counter(a=6, b=4)).row()["corrected"] < 0.0
        # with one answer there is nothing to tell apart
        assert Tally(n=4, exact=3, golds=Counter(a=4)).row()["corrected"] == 0.75

    def test_without_cases_there_are_no_shares(self) -> None:
        assert Tally().row() == {"n": 0}
        assert Tally(n=1, golds=Counter("a")).row()["false_acts"] is None


class TestHeldOut:
    @pytest.fixture
    def corpus(self, tmp_path: Path) -> Path:
        """Three sentences: one in a home, one in another language, one in no home."""
        things = [{"entity": [thing(f"light.{name}", name)]} for name in ("a", "b")]
        rows = [
            ("turn on b", 1, action("TurnOn", name="b")),
            ("schalte a ein", 0, action("TurnOn", "de", name="a")),
            ("what is love", -1, action("none")),
        ]
        (tmp_path / "homes.json").write_text(json.dumps(things))
        lines = [
            json.dumps({"sentence": text, "home": number, "action": json.loads(gold.json())})
            for text, number, gold in rows
        ]
        (tmp_path / "eval.jsonl").write_text("\n".join(lines))
        ONTOLOGY.save(tmp_path)
        return tmp_path

    def test_each_sentence_is_said_in_its_home(self, corpus: Path) -> None:
        first, second, third = held_out_cases(corpus)
        assert (first.sentence, first.gold) == ("turn on b", action("TurnOn", name="b"))
        assert first.home is not None
        assert list(first.home.entities)[:1] == ["light.b"]
        assert second.home is not None
        assert list(second.home.entities)[:1] == ["light.a"]
        assert third.home is None

    def test_groups_are_language_and_scenario(self, corpus: Path) -> None:
        groups = [case.groups for case in held_out_cases(corpus)]
        assert [group[0] for group in groups] == ["en", "de", "en"]
        assert groups[0][1] == ONTOLOGY.group("HassTurnOn")
        assert groups[2][1] == ONTOLOGY.group("none")

    def test_languages_may_be_left_out(self, corpus: Path) -> None:
        assert [case.sentence for case in held_out_cases(corpus, ("de",))] == ["schalte a ein"]
        assert list(held_out_cases(corpus, ("zh",))) == []

    def test_an_older_corpus_calls_them_exam(self, corpus: Path) -> None:
        (corpus / "eval.jsonl").rename(corpus / "exam.jsonl")
        assert len(list(held_out_cases(corpus))) == 3


ROWS = {
    "all": {"n": 9, "exact": 0.5, "intent": 0.6, "false_acts": 0.1, "invented": 3, "marks": "1"},
    "home": {"n": 5, "exact": 0.8, "intent": 0.9, "false_acts": None, "invented": 1, "marks": "1"},
    "chat": {"n": 4, "exact": 0.2, "intent": 0.3, "false_acts": 0.25, "invented": 2, "marks": "1"},
}  # fmt: skip


class TestSuite:
    def test_the_object_of_every_suite(self) -> None:
        found = summarize("mine", ROWS, [0.001, 0.002, 0.003, 0.1])
        assert (found["suite"], found["n"], found["exact"], found["intent"]) == (
            "mine",
            9,
            0.5,
            0.6,
        )
        assert (found["false_acts"], found["invented"]) == (0.1, 3)
        assert (found["latency_ms_p50"], found["latency_ms_p95"]) == (2.0, 100.0)
        assert list(found["by"]) == ["home", "chat"]
        assert "marks" not in found["by"]["home"]

    def test_a_suite_names_the_groups_that_it_reports(self) -> None:
        suite = Suite(lambda path, values, broken: iter(()), headline="home", not_home="chat")
        found = summarize("mine", ROWS, [], suite)
        assert (found["n"], found["exact"], found["false_acts"]) == (5, 0.8, 0.25)
        assert found["invented"] == 3, "of all cases"
        other = Suite(lambda path, values, broken: iter(()), headline="none", not_home="none")
        found = summarize("mine", ROWS, [], other)
        assert (found["n"], found["false_acts"]) == (9, 0.1), "without the group: of all cases"

    @pytest.mark.parametrize("name", SUITES)
    def test_every_name_is_a_suite(self, name: str) -> None:
        assert suite_of(name) is suite_of(SUITES[name])

    def test_another_name_is_refused(self) -> None:
        with pytest.raises(InputError, match="eval suite 'x' is unknown; known: ohf, slurp-home"):
            suite_of("x")
