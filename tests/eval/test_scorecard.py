"""Scorecards: intervals, what is the same action, suites from outside, the gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tumen.assistant.values import Values
from tumen.core import artifact
from tumen.core.errors import ArtifactError, GateError, InputError
from tumen.eval import (
    EvalCase,
    Prediction,
    evaluate,
    gate_fault,
    require_gate,
    same_action,
    scorecard_text,
    write_scorecard,
)
from tumen.eval.columns import MatcherColumn
from tumen.eval.statistics import percentile, wilson
from tumen.eval.suites import home_assistant_cases, slurp_home_cases
from tumen.home.home import Home
from tumen.language.action import INTENTS, Action
from tumen.recipe import Gate

VALUES = Values()
HOME = Home.load()


def rows_of(cases: list[EvalCase], actions: list[Action | None]) -> dict[str, dict[str, object]]:
    left = iter(actions)
    return evaluate(cases, lambda case: Prediction(next(left)), VALUES)[0]


@given(st.integers(0, 500), st.integers(1, 500))
def test_an_interval_holds_its_share(hits: int, n: int) -> None:
    low, high = wilson(min(hits, n), n)
    assert -1e-9 <= low <= min(hits, n) / n + 1e-9
    assert min(hits, n) / n - 1e-9 <= high <= 1 + 1e-9


def test_wilson_is_the_published_one() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_percentiles_are_nearest_rank() -> None:
    assert percentile([4, 1, 3, 2], 0.5) == 2
    assert percentile([], 0.5) == 0


class TestSame:
    def test_two_ways_to_name_one_light(self) -> None:
        split = Action("HassTurnOn", "en", {"domain": "light", "area": "kitchen"})
        whole = Action("HassTurnOn", "en", {"name": "kitchen lights"})
        assert same_action(split, whole, HOME, VALUES)

    def test_another_room_is_another_action(self) -> None:
        kitchen, office = (
            Action("HassTurnOn", "en", {"domain": "light", "area": area})
            for area in ("kitchen", "office")
        )
        assert not same_action(kitchen, office, HOME, VALUES)

    def test_values_count_by_worth(self) -> None:
        eighty, digits, ninety = (
            Action("HassLightSet", "en", {"area": "kitchen", "brightness": words})
            for words in ("eighty", "80", "ninety")
        )
        assert same_action(eighty, digits, HOME, VALUES)
        assert not same_action(eighty, ninety, HOME, VALUES)

    def test_what_is_not_there_is_compared_by_words(self) -> None:
        one, other = (
            Action("HassTurnOn", "en", {"name": name}) for name in ("sauna", "steam bath")
        )
        assert same_action(one, one, HOME, VALUES)
        assert not same_action(one, other, HOME, VALUES)


class TestTally:
    none = EvalCase("tell me a joke", Action("none"), HOME, ("en",))
    lamp = EvalCase(
        "kitchen light on",
        Action("HassTurnOn", "en", {"domain": "light", "area": "kitchen"}),
        HOME,
        ("en",),
    )

    def test_a_known_answer_scores_one_and_a_constant_one_nothing(self) -> None:
        cases = [self.none, self.none, self.lamp]
        assert rows_of(cases, [case.gold for case in cases])["all"]["exact"] == 1
        constant = rows_of(cases, [Action("none")] * 3)["all"]
        assert constant["exact"] == pytest.approx(2 / 3, abs=1e-4)
        assert constant["corrected"] == pytest.approx(0, abs=1e-3)

    def test_false_acts_are_acts_that_would_happen(self) -> None:
        act, absent = self.lamp.gold, Action("HassTurnOn", "en", {"name": "sauna"})
        row = rows_of([self.none, self.none], [act, absent])["all"]
        assert (row["false_acts"], row["false_intents"]) == (0.5, 1.0)

    def test_words_that_were_not_said_are_invented(self) -> None:
        said, invented = (
            Action("HassTurnOn", "en", {"name": "light"}),
            Action("HassTurnOn", "en", {"name": "oven"}),
        )
        assert rows_of([self.lamp, self.lamp], [said, invented])["all"]["invented"] == 1


class TestOutside:
    def test_home_assistants_sentences(self, tmp_path: Path) -> None:
        folder = tmp_path / "tests" / "en" / "HassTurnOn"
        folder.mkdir(parents=True)
        (folder / "a.yaml").write_text(
            "language: en\nareas: [{name: Kitchen}]\nentities: [{name: Overhead Light, domain: light}]\n"
            "tests:\n- sentences: [turn on the overhead light in the kitchen]\n"
            "  slots: {name: Overhead Light, area: Kitchen}\n"
        )
        (case,) = home_assistant_cases(tmp_path, VALUES)
        right = Action("HassTurnOn", "en", {"name": "overhead light", "area": "kitchen"})
        assert case.grade(right) == (True, True)
        assert case.grade(Action("HassTurnOn", "en", {"name": "oven", "area": "kitchen"})) == (
            True,
            False,
        )
        assert case.grade(Action("HassTurnOff", "en", dict(right.slots))) == (False, False)

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"has no tests/en"):
            list(home_assistant_cases(tmp_path, VALUES))

    def test_people_speak_to_a_home(self, tmp_path: Path) -> None:
        rows = [
            {"sentence": "dim the hall", "scenario": "iot", "action": "hue_lightdim",
             "tokens": [{"surface": word} for word in ["dim", "the", "hall"]], "entities": [{"type": "house_place", "span": [2]}]},
            {"sentence": "wake me at six", "scenario": "alarm", "action": "set", "tokens": [], "entities": []},
            {"sentence": "add milk to my list", "scenario": "lists", "action": "createoradd", "tokens": [], "entities": []},
        ]  # fmt: skip
        path = tmp_path / "slurp.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        dim, alarm, lists = slurp_home_cases(path, HOME)
        down = {"domain": "light", "step": "down"}
        assert dim.grade(Action("HassLightSet", "en", {**down, "area": "hall"})) == (True, True)
        assert dim.grade(Action("HassLightSet", "en", down)) == (True, False)
        assert dim.grade(Action("HassTurnOff", "en", {"area": "hall"})) == (False, False)
        assert alarm.grade(Action("HassStartTimer", "en", {"duration": "six"})) == (False, False)
        assert lists.grade(Action("HassShoppingListAddItem", "en", {"item": "milk"})) == (
            True,
            True,
        )

    @pytest.mark.parametrize(
        ("content", "says"),
        [(b"{", "line 1: no JSON"), (b"\xff", "not UTF-8"), (b"{}", "row 1: no row of SLURP")],
    )
    def test_a_damaged_file(self, tmp_path: Path, content: bytes, says: str) -> None:
        path = tmp_path / "slurp.jsonl"
        path.write_bytes(content)
        with pytest.raises(InputError, match=says):
            list(slurp_home_cases(path, HOME))


class TestMatcher:
    def test_it_answers_its_own_templates(self) -> None:
        gold = Action("HassStartTimer", "en", {"duration": "5 minutes"})
        case = EvalCase("set a timer for 5 minutes", gold, HOME, ("en",))
        given_ = MatcherColumn().answer(case).action
        assert given_ is not None
        assert same_action(given_, gold, HOME, VALUES)

    def test_what_it_does_not_know_is_not_for_the_home(self) -> None:
        case = EvalCase("who wrote faust", Action("none"), HOME, ("en",))
        assert MatcherColumn().answer(case).action == Action("none", "en")


class TestGate:
    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Path:
        about = {
            "recipe": "tiny",
            "tier": "device",
            "quantize": "int8",
            "gate": Gate(exact=0.9).model_dump(),
        }
        with artifact.writing(
            tmp_path / "bundle-device", "bundle", "x", [], {"agreement": 1.0}
        ) as stage:
            (stage / "bundle.json").write_text(json.dumps(about))
        return tmp_path / "bundle-device"

    def card(self, bundle: Path, exact: float, of: str | None = None) -> None:
        row = {
            "n": 10,
            "exact": exact,
            "low": 0.0,
            "high": 1.0,
            "corrected": exact,
            "intent": exact,
        }
        row |= {"false_acts": 0.0, "false_intents": 0.0, "invented": 0}
        made_from = [of or artifact.manifest_of(bundle).digest]
        columns = {"device": {"all": row, "en": row}}
        write_scorecard(
            bundle,
            columns,
            {"device": [0.01]},
            {"device": 10},
            made_from=made_from,
            gate=Gate(exact=0.9),
            inputs="x",
        )

    def test_without_a_scorecard(self, bundle: Path) -> None:
        with pytest.raises(GateError, match="no scorecard"):
            require_gate(bundle, ungated=False)

    def test_good_enough(self, bundle: Path) -> None:
        self.card(bundle, 0.95)
        require_gate(bundle, ungated=False)
        assert "gate: passed" in scorecard_text(bundle / "scorecard")

    def test_not_good_enough_unless_told(self, bundle: Path) -> None:
        self.card(bundle, 0.5)
        with pytest.raises(GateError, match=r"exact actions in en: 50.0%, the floor is 90.0%"):
            require_gate(bundle, ungated=False)
        require_gate(bundle, ungated=True)
        assert "not passed" in scorecard_text(bundle / "scorecard")

    def test_somebody_elses_scorecard(self, bundle: Path) -> None:
        self.card(bundle, 0.95, of="another")
        with pytest.raises(ArtifactError, match="another bundle"):
            gate_fault(bundle)


def test_every_intent_has_a_row() -> None:
    assert {Action(intent).domain for intent in INTENTS} >= {"lights", "timers", "not home"}
