"""A sentence that is too long for the model is wrong in every suite and ends none of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tumen.assistant.values import Values
from tumen.core.errors import InputError
from tumen.eval.suites import SUITES, DialogueSuite, Suite, suite_of
from tumen.language import Action, Ontology, normalise
from tumen.pipeline import evaluate
from tumen.serve.runners import Completion, Seconds

LONG = "please " * 60 + "stop"
SHORT = "play a song"


def ohf(folder: Path) -> Path:
    yaml = pytest.importorskip("yaml")
    path = folder / "tests" / "en" / "HassNevermind" / "all.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({"tests": [{"sentences": [LONG, SHORT]}]}))
    return folder


def slurp(folder: Path) -> Path:
    lines = []
    for sentence in (LONG, SHORT):
        tokens = [{"surface": word} for word in sentence.split()]
        row = {"sentence": sentence, "scenario": "iot", "action": "cleaning", "tokens": tokens}
        span = list(range(len(tokens)))
        entity = {"type": "device_type", "span": span}
        lines.append(json.dumps(row | {"entities": [entity]}))
    path = folder / "test.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def clinc(folder: Path) -> Path:
    path = folder / "data.json"
    path.write_text(json.dumps({"val": [[LONG, "stop"], [SHORT, "play"]]}))
    return path


def snips(folder: Path) -> Path:
    rows = [{"data": [{"text": "x "}, {"text": text, "entity": "track"}]} for text in (LONG, SHORT)]
    path = folder / "validate_PlayMusic.json"
    path.write_text(json.dumps({"PlayMusic": rows}))
    return path


DATA = {"ohf": ohf, "slurp": slurp, "slurp-home": slurp, "clinc": clinc, "snips": snips}


class ShortRunner:
    """A runner that takes what a real one takes, and answers the same to all."""

    ontology = Ontology(languages=("en",), intents={"none": ()})

    def ask(self, sentence: str) -> Completion:
        normalise(sentence)
        return Completion(Action("none", "en").json(), (), (), 0.9, Seconds(0.0, 0.0, 0.0), 1, 1)


@contextmanager
def _runner(*_: Any, **__: Any) -> Iterator[ShortRunner]:
    yield ShortRunner()


def test_every_suite_is_tried() -> None:
    asked = [name for name in SUITES if not isinstance(suite_of(name), DialogueSuite)]
    assert sorted(asked) == sorted(DATA)


@pytest.mark.parametrize("name", DATA)
def test_it_is_wrong_and_the_suite_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "load_runner", _runner)
    suite = suite_of(name)
    assert isinstance(suite, Suite)
    values = Values()
    cases = list(suite.cases(DATA[name](tmp_path), values))
    assert len(cases) == 2
    with pytest.raises(InputError):
        normalise(cases[0].sentence)
    rows, answers = evaluate.evaluate_bundle(tmp_path, cases, values)
    assert [answer.action is None for answer in answers] == [True, False]
    assert rows["all"]["n"] == 2
    assert rows["all"]["marks"][0] == "0"
    suite.metrics(cases, answers, 0.5)
