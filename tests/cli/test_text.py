"""A recipe of plain text: the same verbs, tiers that are trained on it, and nothing that would act on a home."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.cli.conftest import TINY, Tumen
from tests.data.texts import paragraph, write_jsonl

from tumen.core.artifact import manifest_of


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    return write_jsonl(
        tmp_path_factory.mktemp("texts") / "texts.jsonl", [paragraph(rng, 90) for _ in range(120)]
    )


def asked(path: Path) -> list[str]:
    return [
        f"--set={change}"
        for change in ("data.source=text", f"data.path={path}", "family.cloud.train.steps=2")
    ]


def test_a_tier_learns_from_text(tumen: Tumen, texts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = tumen("run", TINY, "--run", run, *asked(texts), "--until", "cloud")
    assert done.returncode == 0, done.stderr
    assert manifest_of(run / "cloud", "checkpoint").facts["validation_loss"] > 0
    assert manifest_of(run / "corpus").facts["removed"] == {}
    kinds = [row["kind"] for row in json.loads(tumen("lineage", run, "--json").stdout)]
    assert kinds == ["corpus", "tokenizer", "dataset", "checkpoint", "checkpoint"]
    again = tumen("run", TINY, "--run", run, *asked(texts), "--until", "cloud")
    assert "nothing to do" in again.stdout


def test_a_missing_path_is_one_line(tumen: Tumen, tmp_path: Path) -> None:
    done = tumen(
        "run",
        TINY,
        "--run",
        tmp_path / "run",
        *asked(tmp_path / "nowhere.jsonl"),
        "--until",
        "dataset",
    )
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "nowhere.jsonl: no such file" in done.stderr
