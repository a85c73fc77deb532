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


def massive(folder: Path) -> Path:
    rows = []
    for number, text in enumerate((LONG, SHORT)):
        slots = [["media_type", 0, len(text)]]
        rows.append({"id": number, "intent": "play_music", "utt": text, "slots": slots})
    path = folder / "en-US.test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


DATA = {
    "ohf": ohf,
    "slurp": slurp,
    "slurp-home": slurp,
    "clinc": clinc,
    "snips": snips,
    "massive": massive,
}


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
    broken: list[str] = []
    cases = list(suite.cases(DATA[name](tmp_path), values, broken))
    assert not broken
    assert len(cases) == 2
    with pytest.raises(InputError):
        normalise(cases[0].sentence)
    rows, answers = evaluate.evaluate_bundle(tmp_path, cases, values)
    assert [answer.action is None for answer in answers] == [True, False]
    assert rows["all"]["n"] == 2
    assert rows["all"]["marks"][0] == "0"
    suite.metrics(cases, answers, 0.5)


@pytest.mark.parametrize("name", ["slurp", "slurp-home", "massive"])
def test_a_broken_row_is_counted_and_the_suite_goes_on(name: str, tmp_path: Path) -> None:
    path = DATA[name](tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{", '{"utt": 1}', lines[1]]))
    suite = suite_of(name)
    assert isinstance(suite, Suite)
    broken: list[str] = []
    assert len(list(suite.cases(path, Values(), broken))) == 2
    assert len(broken) == 2
    assert "line 2: no JSON" in broken[0]
    assert all("\n" not in line for line in broken)
