"""`tumen goodput` and `tumen drill`: what they print, what they refuse, and faults that a run on two local nodes lives through."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import TINY, Tumen

from tumen.cluster.agents import replica_folder
from tumen.core.events import Events
from tumen.recipe import load_recipe

DRILLS = Path(__file__).parents[2] / "benchmarks" / "drills.py"


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """A run whose cloud tier had a crash in its eighth second."""
    (tmp_path / "recipe.json").write_text(load_recipe(TINY).model_dump_json())
    run, watch = (
        Events(tmp_path / "events.jsonl"),
        Events(tmp_path / "jobs" / "cloud" / "watch.jsonl"),
    )
    watch.emit("watch", time=0.0, state="started", attempt=0)
    run.emit("train", time=1.0, tier="cloud", step=0)
    run.emit("step", time=7.0, tier="cloud", step=6, step_seconds=1.0)
    run.emit("checkpoint", time=7.5, tier="cloud", step=6, seconds=0.5)
    watch.emit("fault", time=8.5, kind="crash", step=7, silent_seconds=0.0)
    watch.emit("decided", time=8.5, action="restart", attempt=2, world=1)
    run.emit("train", time=9.0, tier="cloud", step=6)
    run.emit("step", time=11.0, tier="cloud", step=8, step_seconds=1.0)
    return tmp_path


def test_goodput_is_a_table_beside_the_plan(tumen: Tumen, crashed: Path) -> None:
    said = tumen("goodput", crashed).stdout
    assert said.startswith("cloud: 8 steps in 11 s, 1 of them twice; faults: 1 crash")
    for part in (
        "productive",
        "checkpoint",
        "detection",
        "restart",
        "recomputed",
        "idle",
        "goodput",
    ):
        assert f"  {part} " in said
    assert "the plan expects 98." in said
    found = json.loads(tumen("goodput", crashed, "--json").stdout)["cloud"]
    assert (found["steps"], found["steps_again"], found["faults"]) == (8, 1, {"crash": 1})
    assert found["goodput"] == pytest.approx(8 / 11)
    assert 0 < found["by_formula"] < 1


def test_what_cannot_be_is_one_line(tumen: Tumen, crashed: Path) -> None:
    for arguments, says in (
        (
            ("goodput", crashed, "--tier", "phone"),
            "--tier 'phone' is not a tier of tiny; it has cloud, device",
        ),
        (("goodput", crashed, "--tier", "device"), "device has no steps yet"),
        (("drill", crashed, "--fault", "rank"), "no ranks of this job are alive on this machine"),
        (("drill", crashed, "--fault", "fire"), "--fault 'fire' is unknown; known: rank, agent"),
        (("drill", crashed, "--fault", "watcher"), "no watcher is running"),
    ):
        said = tumen(*arguments)
        assert said.returncode != 0
        assert says in said.stderr
        assert said.stderr.count("\n") == 1


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_three_faults_and_the_same_bytes(tmp_path: Path) -> None:
    """A freeze, a full disk and a crash on one run of two nodes, unattended; thirty of all kinds: benchmarks/drills.py."""
    out = tmp_path / "drills.json"
    command = [
        sys.executable,
        DRILLS,
        "--drills",
        "3",
        "--each",
        "3",
        "--seed",
        "1",
        "--keep",
        tmp_path / "runs",
        "--out",
        out,
    ]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(out.read_text())["runs"]
    assert [(one["fault"], one["right"]) for one in run["drills"]] == [
        ("freeze", True),
        ("disk", True),
        ("rank", True),
    ], done.stderr
    assert all(one["resumed_seconds"] is not None for one in run["drills"])
    assert run["same"], "weights and samples are those of the run nobody touched"
    assert not replica_folder(
        tmp_path / "runs" / "run-0" / "jobs" / "cloud", "n0"
    ).parent.exists(), "nothing is left in memory"
