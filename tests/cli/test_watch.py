"""`tumen watch | resize`, and local trainings of several ranks, which watch by themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Tumen

from tumen.core import events
from tumen.core.artifact import verify

PATIENCE_SECONDS = 300.0


@pytest.fixture
def ready(untrained: Callable[[Path], Path], tmp_path: Path) -> Path:
    """A run whose tier is to train on two ranks."""
    return untrained(tmp_path / "tiny")


def until(happened: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := happened()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def begin(ready: Path, status: str = "") -> None:
    """As if a job had been started."""
    (ready / "jobs" / "cloud").mkdir(parents=True)
    if status:
        (ready / "jobs" / "cloud" / "exit").write_text(status)


def test_nothing_to_watch(tumen: Tumen, ready: Path) -> None:
    said = tumen("watch", ready, "--tier", "car")
    assert said.returncode == 4
    assert said.stderr == "tumen: --tier 'car' is not a tier of tiny; it has cloud, device\n"
    said = tumen("resize", ready, "4")
    assert said.returncode == 4
    assert "a tier was never launched; launched so far: none" in said.stderr


def test_only_what_runs_and_is_watched_is_resized(tumen: Tumen, ready: Path) -> None:
    begin(ready, "0\n")
    said = tumen("resize", ready, "3")
    assert said.returncode == 6
    assert "3 ranks do not share 8 rows a step on this mesh; it can have 1, 2, 4, 8" in said.stderr
    said = tumen("resize", ready, "4")
    assert said.returncode == 11
    assert said.stderr == "tumen: cloud is done; only a running training is resized\n"
    assert not (ready / "jobs" / "cloud" / "resize.json").exists()
    assert tumen("resize", ready, "0").returncode == 2


@pytest.mark.slow
def test_a_local_training_of_two_ranks_watches_by_itself(
    tumen: Tumen, ready: Path, two: Path
) -> None:
    """A rank is killed, then the watcher; then it grows to four ranks and shrinks to two again, and saw every sample once."""
    job = ready / "jobs" / "cloud"

    def rows(event: str) -> list[dict[str, Any]]:
        return list(events.read(job / "watch.jsonl", event))

    command = [sys.executable, "-m", "tumen", "launch", str(ready)]
    launched = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        until(lambda: len(list(events.read(ready / "events.jsonl", "checkpoint"))) > 1, launched)
        os.kill(
            json.loads((job / "ranks" / "n0" / "agent.json").read_text())["ranks"]["1"],
            signal.SIGKILL,
        )
        until(lambda: rows("resumed"), launched)
        os.kill(rows("watch")[-1]["pid"], signal.SIGKILL)
        until(lambda: rows("watch")[-1]["state"] == "resumed", launched)
        for ranks in (4, 2):
            before = len(rows("resumed"))
            asked = tumen("resize", ready, str(ranks))
            assert asked.returncode == 0, asked.stderr
            until(lambda: len(rows("resumed")) > before, launched)  # noqa: B023
        said = launched.communicate(timeout=PATIENCE_SECONDS)[0]
    finally:
        launched.kill()
        launched.wait()
    assert launched.returncode == 0, said
    assert "cloud: fault: crash, rank 1, node n0, step " in said
    assert "cloud: decided: restart, attempt 2, 2 ranks" in said
    assert [row["state"] for row in rows("watch")] == ["started", "resumed", "ended"]
    kinds = [row["kind"] for row in rows("fault")]
    assert [kind for kind in kinds if kind != "slow"] == ["crash"], (
        "a busy machine may be slow as well"
    )
    assert [world for world, _ in groupby(row["world"] for row in rows("decided"))] == [2, 4, 2]
    seen = [verify(run / "cloud").facts["seen"] for run in (ready, two)]
    assert seen[0] == seen[1]
    assert verify(ready / "cloud").facts["ranks"] == 2


@pytest.mark.slow
def test_what_fails_again_and_again_is_given_up_in_one_line(tumen: Tumen, ready: Path) -> None:
    """Two ranks that share three rows a step: each start fails alike."""
    recipe = json.loads((ready / "recipe.json").read_text())
    recipe["family"]["cloud"]["train"]["mesh"]["micro_batch_size"] = 3
    (ready / "recipe.json").write_text(json.dumps(recipe))
    said = tumen("launch", ready)
    assert said.returncode == 7
    (line,) = said.stderr.splitlines()
    assert line.startswith("tumen: cloud: crash 3 times at step 0: ")
    assert "mesh: dp 2 x micro_batch_size 3 must divide 8 rows" in line
