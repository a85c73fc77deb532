"""Drills: who is hit and who is not, and what a report says of the rows a watcher wrote. Whole ones: tests/cli/test_heal.py."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tumen.cluster import INJECTABLE_FAULTS, drill_report, inject_fault, local_agents
from tumen.cluster.watcher import Snapshot, write_snapshot
from tumen.core.errors import EngineError, InputError

SLEEPER = "import time; time.sleep(60)  # tumen"


@contextmanager
def crew(job: Path, ranks: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
    """An agent and its ranks that sleep, named as an agent names them."""
    sleepers = [subprocess.Popen([sys.executable, "-c", SLEEPER]) for _ in range(ranks + 1)]
    try:
        for one in sleepers:
            named(one.pid)
        said = {
            "pid": sleepers[0].pid,
            "attempt": 1,
            "ranks": {rank: one.pid for rank, one in enumerate(sleepers[1:])},
        }
        (job / "ranks" / "n1").mkdir(parents=True)
        (job / "ranks" / "n1" / "agent.json").write_text(json.dumps(said))
        yield sleepers
    finally:
        for one in sleepers:
            one.kill()
            one.wait()


def named(pid: int) -> None:
    """Wait until the kernel shows the command of a new process: for a moment after its start there is none."""
    end = time.monotonic() + 20
    while b"tumen" not in Path(f"/proc/{pid}/cmdline").read_bytes() and time.monotonic() < end:
        time.sleep(0.005)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def reaches(pid: int, wanted: str) -> bool:
    """Whether a process comes into a state before long."""
    end = time.monotonic() + 20
    while state(pid) != wanted and time.monotonic() < end:
        time.sleep(0.005)
    return state(pid) == wanted


def hit(fault: str, job: Path) -> tuple[str, Any]:
    return inject_fault(
        fault, job, job / "work", [job / "copies" / "n1", job / "copies" / "n2"], random.Random(0)
    )


def test_a_rank_an_agent_a_freeze(tmp_path: Path) -> None:
    for fault, codes in (("rank", (None, -9)), ("agent", (-9, -9)), ("node", (-9, -9))):
        for node in ("n1", "n2"):
            (tmp_path / fault / "copies" / node).mkdir(parents=True)
        with crew(tmp_path / fault) as sleepers:
            hit(fault, tmp_path / fault)
            for one, code in zip(sleepers, codes, strict=True):
                assert code is None or one.wait(10) == code
            assert (tmp_path / fault / "copies" / "n1").exists() == (fault != "node")
            assert (tmp_path / fault / "copies" / "n2").exists(), "another node's memory"
    with crew(tmp_path / "freeze") as sleepers:
        victim, _ = hit("freeze", tmp_path / "freeze")
        assert victim == "rank 0 on n1"
        assert reaches(sleepers[1].pid, "T")


def test_a_slow_rank_is_let_go(tmp_path: Path) -> None:
    with crew(tmp_path) as sleepers:
        with pytest.raises(
            EngineError,
            match="does not know yet how long a step usually takes; it needs 16 samples",
        ):
            hit("slow", tmp_path)
        write_snapshot(
            tmp_path, Snapshot(time=0.0, attempt=1, nodes=1, phases={"train": 1}, usual_seconds=0.5)
        )
        _, undo = hit("slow", tmp_path)
        assert reaches(sleepers[1].pid, "T")
        undo()
        assert reaches(sleepers[1].pid, "S")


def test_a_full_disk_is_that_ranks_alone(tmp_path: Path) -> None:
    writer = "import sys; sys.stdin.readline(); open(sys.argv[1], 'wb').write(bytes(9000))  # tumen"
    with (
        crew(tmp_path),
        subprocess.Popen(
            [sys.executable, "-c", writer, tmp_path / "x"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as one,
    ):
        named(one.pid)
        said = {"pid": one.pid, "attempt": 1, "ranks": {0: one.pid}}
        (tmp_path / "ranks" / "n1" / "agent.json").write_text(json.dumps(said))
        hit("disk", tmp_path)
        _, error = one.communicate(b"\n", 20)
        assert b"File too large" in error
        assert (tmp_path / "x").stat().st_size <= 4096
        (tmp_path / "y").write_bytes(bytes(9000))


def test_a_damaged_checkpoint_is_the_newest(tmp_path: Path) -> None:
    with crew(tmp_path) as sleepers:
        with pytest.raises(EngineError, match="needs two checkpoints, there are 0"):
            hit("checkpoint", tmp_path)
        for step in (2, 10):
            (tmp_path / "work" / f"step-{step}").mkdir(parents=True)
            (tmp_path / "work" / f"step-{step}" / "shard.safetensors").write_bytes(b"whole")
        hit("checkpoint", tmp_path)
        assert sleepers[1].wait(10) == -signal.SIGKILL
        found = [
            (tmp_path / "work" / f"step-{step}" / "shard.safetensors").read_bytes()
            for step in (2, 10)
        ]
        assert found == [b"whole", b"whold"]


def test_nobody_else_is_hit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'fire' is unknown; known: rank, agent"):
        hit("fire", tmp_path)
    with pytest.raises(EngineError, match="no ranks of this job are alive on this machine"):
        hit("rank", tmp_path)
    with pytest.raises(EngineError, match="no watcher is running"):
        hit("watcher", tmp_path)
    (tmp_path / "watch.jsonl").write_text(
        json.dumps({"time": 1.0, "pid": os.getpid(), "event": "watch"}) + "\n"
    )
    with pytest.raises(EngineError, match="no watcher is running"):
        hit(
            "watcher", tmp_path
        )  # our own number: it was another process's when the row was written
    with crew(tmp_path) as sleepers:
        old = tmp_path / "ranks" / "n1" / "agent.json"
        os.utime(old, (1, 1))
        with pytest.raises(EngineError, match="no ranks of this job"):
            local_agents(tmp_path)
        assert all(one.poll() is None for one in sleepers)


ROWS = [
    {"time": 90.0, "event": "fault", "kind": "freeze", "step": 3},
    {"time": 90.0, "event": "decided", "action": "restart", "attempt": 2},
    {"time": 101.0, "event": "fault", "kind": "crash", "step": 18},
    {"time": 101.1, "event": "decided", "action": "restart", "attempt": 3},
    {"time": 104.0, "event": "resumed", "step": 13},
]


def test_a_report_counts_from_the_fault() -> None:
    found = drill_report("rank", "rank 1 on n1", 100.0, ROWS, step_seconds=0.5)
    assert (found.seen_seconds, found.named, found.right, found.resumed_seconds) == (
        1.0,
        "crash",
        True,
        4.0,
    )
    assert (found.lost_steps, found.lost_seconds) == (6, 7.0)


def test_a_report_says_what_did_not_happen() -> None:
    assert drill_report("rank", "", 100.0, ROWS[:2]).seen_seconds is None
    assert drill_report("rank", "", 100.0, ROWS[:4]).resumed_seconds is None
    assert not drill_report("freeze", "", 100.0, ROWS).right, "a kill taken for a freeze"
    both = [*ROWS[:4], {"time": 103.0, "event": "fault", "kind": "checkpoint", "step": 10}, ROWS[4]]
    assert (
        drill_report("checkpoint", "", 100.0, both).named,
        drill_report("checkpoint", "", 100.0, both).seen_seconds,
    ) == ("checkpoint", 1.0)
    slow = [
        {"time": 101.0, "event": "fault", "kind": "slow", "step": 9},
        {"time": 101.0, "event": "decided", "action": "wait", "attempt": 2},
    ]
    assert drill_report("slow", "", 100.0, [*ROWS[:2], *slow]).resumed_seconds == 1.0, (
        "it never stopped"
    )
    slow[1]["attempt"] = 3
    assert drill_report("slow", "", 100.0, [*ROWS[:2], *slow]).resumed_seconds is None, (
        "it waits, and then starts anew"
    )
    back = [{"time": 102.0, "event": "watch", "state": "resumed"}]
    assert (
        drill_report("watcher", "", 100.0, back).right,
        drill_report("watcher", "", 100.0, ROWS).right,
    ) == (True, False)


def test_every_fault_has_its_names() -> None:
    assert set(INJECTABLE_FAULTS) == {
        "rank",
        "agent",
        "freeze",
        "slow",
        "disk",
        "checkpoint",
        "node",
        "watcher",
    }
