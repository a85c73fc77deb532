"""`tumen eval --suite` on a bundle with random weights: what it answers is nonsense, every row is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Tumen

LONG = "please " * 60 + "stop"


@pytest.fixture(scope="module")
def bundle(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "device")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    turns = [{"say": "turn on the desk lamp", "expect": {"light.desk_lamp": {"state": "on"}}}]
    lines = [
        json.dumps({"lang": "en", "kind": "plain", "turns": turns}),
        json.dumps({"lang": "en", "kind": "long", "turns": [{"say": LONG}]}),
        "no row",
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("who", ["both", "model", "matcher"])
def test_every_row_of_states_is_counted(tumen: Tumen, bundle: Path, rows: Path, who: str) -> None:
    if who == "matcher":
        pytest.importorskip("hassil")
    asked = ("eval", bundle, "--suite", "states", "--data", rows, "--understanding", who)
    done = tumen(*asked, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["suite"] == "states"
    assert (result["n"], result["broken"], result["crashed"]) == (2, 1, 1)
    assert set(result["by"]["kind"]) == {"long", "plain"}


def test_states_as_a_table(tumen: Tumen, bundle: Path, rows: Path) -> None:
    done = tumen("eval", bundle, "--suite", "states", "--data", rows)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        *("n", "exact", "%", "turns", "exact", "%", "wrong", "device"),
        *("acts", "false", "acts", "asked", "crashed"),
    ]
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["all", "2"],
        ["lang", "en"],
        ["kind", "long"],
        ["kind", "plain"],
    ]
    assert "1 broken rows" in lines[5]
    assert f"{rows}:3: not JSON" in lines[-1]


def test_a_long_sentence_ends_no_other_suite(tumen: Tumen, bundle: Path, tmp_path: Path) -> None:
    lines = []
    for sentence in (LONG, "turn on the light"):
        tokens = [{"surface": word} for word in sentence.split()]
        row = {"sentence": sentence, "scenario": "iot", "action": "hue_lighton", "entities": []}
        lines.append(json.dumps(row | {"tokens": tokens}))
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(lines) + "\n")
    for suite in ("slurp", "slurp-home"):
        done = tumen("eval", bundle, "--suite", suite, "--data", path, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["n"] == 2


def test_who_understands_must_be_known(tumen: Tumen, bundle: Path, rows: Path) -> None:
    done = tumen("eval", bundle, "--suite", "states", "--data", rows, "--understanding", "oracle")
    assert done.returncode == 4
    assert "oracle" in done.stderr
    assert done.stderr.count("\n") == 1
