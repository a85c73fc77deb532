"""A real training on a real Slurm of eight hosts: broken twice, watched, and its weights are those of the unbroken run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Tumen
from tests.lab import slurm as lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.usefixtures("slurm_lab")]
PATIENCE_SECONDS = 240.0
LAB = (
    "--on",
    "slurm",
    "--set",
    'fleet.accelerators="cpu:2"',
    "--set",
    "fleet.accelerators_per_node=1",
)


@pytest.fixture
def launched(tumen: Tumen, untrained: Callable[[Path], Path], tmp_path: Path) -> Iterator[Path]:
    """A training on two hosts of the lab; it is gone afterwards."""
    run = untrained(tmp_path / "broken")
    said = tumen("launch", run, *LAB)
    assert said.returncode == 0, said.stderr
    yield run
    tumen("cancel", run)
    until(lambda: lab.states().get("idle") == 8, lambda: str(lab.states()))


@pytest.fixture
def watch() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """`tumen watch` on this machine."""
    started: list[subprocess.Popen[str]] = []

    def start(run: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tumen", "watch", str(run), "--address", "10.77.0.1"]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def until(happened: Callable[[], object], say: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, say()
        time.sleep(0.2)


def digest(run: Path) -> str:
    return str(json.loads((run / "cloud" / "manifest.json").read_text())["digest"])


def test_weights_are_those_of_the_unbroken_run(
    tumen: Tumen, two: Path, launched: Path, watch: Callable[[Path], subprocess.Popen[str]]
) -> None:
    """A rank is killed, then a whole node, then the watcher; the unbroken run is a local one."""
    broken = launched
    job, watcher = broken / "jobs" / "cloud", watch(broken)

    def say() -> str:
        told = job / "watch.jsonl"
        return tumen("logs", broken).stdout + (told.read_text() if told.exists() else "")

    def step() -> int:
        return (
            int(json.loads((job / "snapshot.json").read_text())["step"])
            if (job / "snapshot.json").exists()
            else 0
        )

    def of_rank(rank: str) -> tuple[str, dict[str, Any]]:
        found = {
            path.parent.name: json.loads(path.read_text())
            for path in job.glob("ranks/*/agent.json")
        }
        return max(
            ((n, a) for n, a in found.items() if rank in a["ranks"]),
            key=lambda one: int(one[1]["attempt"]),
        )

    until(lambda: step() >= 12, say)
    os.kill(of_rank("1")[1]["ranks"]["1"], signal.SIGKILL)
    until(lambda: '"resumed", "attempt": 2' in say() and step() >= 32, say)
    node = of_rank("1")[0]
    os.kill(int((lab.FOLDER / "run" / f"{node}.pid").read_text()), signal.SIGKILL)
    lab.kill_node(node)
    try:
        until(lambda: '"resubmit"' in say(), say)
        time.sleep(3.0)  # for Slurm to have the new job
        watcher.kill()
        watcher = watch(broken)
        assert watcher.wait(PATIENCE_SECONDS) == 0, say()
        assert watcher.stdout is not None
        assert "watch: resumed" in watcher.stdout.read()
    finally:
        lab.start_node(node)
    assert digest(broken) == digest(two)
    said = tumen("status", broken).stdout.splitlines()
    assert said[0].startswith("cloud: done, job ")
    assert re.sub(r", \d+ slow$", "", said[1]) == "  faults: 1 crash, 1 node", (
        "a busy machine may be slow as well"
    )
