"""Ranks of a start that is over write nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tumen.core import fencing
from tumen.core.artifact import writing
from tumen.core.errors import TrainError


@pytest.mark.parametrize(
    ("said", "mine", "newer"),
    [
        ("12.2", "12.1", "12.2"),
        ("13.1", "12.9", "13.1"),
        ("12.10", "12.9", "12.10"),
        ("12.1", "12.1", ""),
        ("12.1", "12.2", ""),
        ("2", "1", "2"),
        ("", "12.1", ""),
        ("who knows", "12.1", ""),
        ("12.2", "", ""),
    ],
)
def test_newer(tmp_path: Path, said: str, mine: str, newer: str) -> None:
    assert fencing.newer_epoch(tmp_path, mine) == ""
    (tmp_path / "epoch").write_text(said + "\n")
    assert fencing.newer_epoch(tmp_path, mine) == newer


def test_an_artifact_of_an_old_start_is_refused_before_and_at_its_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUMEN_JOB", str(tmp_path))
    monkeypatch.setenv("TUMEN_EPOCH", "12.1")
    with (
        pytest.raises(
            TrainError, match="epoch 12.1 of this job is stale: the engine started epoch 12.2"
        ),
        writing(tmp_path / "step-1", "checkpoint", "x", []) as stage,
    ):
        (stage / "weights").write_text("old")
        (tmp_path / "epoch").write_text("12.2\n")
    with pytest.raises(TrainError), writing(tmp_path / "step-2", "checkpoint", "x", []):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["epoch"]
