"""Columns beside the model: templates, templates first, and the model with the home known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tumen.assistant.values import Values
from tumen.core.errors import InputError
from tumen.eval import EvalCase, Prediction, rows_of
from tumen.eval.columns import TemplatesFirstColumn
from tumen.home import Home
from tumen.language import HOME as HOME_ONTOLOGY
from tumen.language import Action, Ontology
from tumen.pipeline import evaluate
from tumen.serve.runners import Completion, KnownName, Seconds

VALUES = Values()
HOME = Home.load()
ON = Action("HassTurnOn", "en", {"domain": "light", "area": "kitchen"})
STRIP = Action("HassTurnOn", "en", {"name": "tv light strip"})


def case(sentence: str, gold: Action, home: Home | None = HOME) -> EvalCase:
    return EvalCase(sentence, gold, home, (gold.lang, "home" if home else "elsewhere"))


class TestTemplatesFirst:
    def test_a_template_answers_without_the_models_time(self) -> None:
        column = TemplatesFirstColumn()
        slow = Prediction(Action("none"), 60.0)
        found = column.answer(case("turn on the kitchen lights", ON), slow)
        assert found.action == ON
        assert found.seconds < 60

    def test_the_model_answers_what_fits_no_template(self) -> None:
        column = TemplatesFirstColumn()
        found = column.answer(case("could we have some light", ON), Prediction(ON, 60.0, 0.7))
        assert (found.action, found.confidence) == (ON, 0.7)
        assert found.seconds >= 60
        assert column.answer(case("xyz", ON), Prediction(None)).action is None
        assert column.answer(case("please " * 100, ON), Prediction(None)).action is None

    def test_a_case_without_a_home_is_the_models(self) -> None:
        given = Prediction(ON)
        assert TemplatesFirstColumn().answer(case("lights on", ON, None), given) is given


def test_groups_with_a_home_have_a_second_figure() -> None:
    cases = [case("a", ON), case("b", ON, None)]
    bare = [Prediction(None), Prediction(ON)]
    rows = rows_of(cases, bare, VALUES, [Prediction(ON), Prediction(ON)])
    assert (rows["all"]["exact"], rows["all"]["exact_home_known"]) == (0.5, 1.0)
    assert rows["home"]["exact_home_known"] == 1.0
    assert "exact_home_known" not in rows["elsewhere"]
    assert "exact_home_known" not in rows_of(cases, bare, VALUES)["all"]


class CutRunner:
    """A runner that cuts names short unless it knows them."""

    ontology: Ontology = HOME_ONTOLOGY

    def ask(self, sentence: str, names: list[KnownName] | None = None) -> Completion:
        slots = {"name": "tv"} if "strip" in sentence else {}
        action = Action("HassTurnOn" if slots else "none", "en", slots)
        return Completion(action.json(), (), (), 0.9, Seconds(0.0, 0.0, 0.0), 1, 1)


@contextmanager
def _runner(*_: Any, **__: Any) -> Iterator[CutRunner]:
    yield CutRunner()


class TestSuites:
    @pytest.fixture
    def bundle(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(evaluate, "load_runner", _runner)
        monkeypatch.setattr(evaluate.Values, "load", lambda path: VALUES)

        class Info:
            class serve:  # noqa: N801
                unsure = 0.5

        monkeypatch.setattr(evaluate, "read_bundle_info", lambda bundle: Info)
        return tmp_path

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        yaml = pytest.importorskip("yaml")
        path = tmp_path / "tests" / "en" / "HassTurnOn" / "name.yaml"
        path.parent.mkdir(parents=True)
        tests = [
            {"sentences": ["turn on the TV Light Strip"], "slots": {"name": "TV Light Strip"}},
            {"sentences": ["a little TV light strip, would you"],
             "slots": {"name": ["TV Light Strip", "strip"]}},
        ]  # fmt: skip
        entities = [
            {"name": "TV Light Strip", "domain": "light"},
            {"name": "TV", "domain": "light"},
        ]
        path.write_text(yaml.safe_dump({"entities": entities, "tests": tests}))
        return tmp_path

    def test_a_suite_of_a_home_has_three_columns(self, bundle: Path, data: Path) -> None:
        result = evaluate.evaluate_suite(bundle, "ohf", data, 1, None)
        exact = {name: column["exact"] for name, column in result["columns"].items()}
        assert exact == {"model": 0.0, "matcher": 0.5, "both": 1.0}
        assert (result["understanding"], result["exact"]) == ("both", 1.0)
        assert result["exact_home_known"] == 1.0
        assert result["columns"]["both"]["by"]["en"] == 1.0
        model = evaluate.evaluate_suite(bundle, "ohf", data, 1, None, "model")
        assert (model["understanding"], model["exact"]) == ("model", 0.0)

    def test_another_reader_is_an_error(self, bundle: Path, data: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="ohf has model, matcher, both"):
            evaluate.evaluate_suite(bundle, "ohf", data, 1, None, "x")
        rows = tmp_path / "rows.jsonl"
        rows.write_text(json.dumps({"id": 1, "intent": "a", "utt": "b", "slots": []}))
        with pytest.raises(InputError, match="massive asks the model"):
            evaluate.evaluate_suite(bundle, "massive", rows, 1, None, "both")
        result = evaluate.evaluate_suite(bundle, "massive", rows, 1, None)
        assert "columns" not in result
