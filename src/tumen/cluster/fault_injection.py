"""Drills: a fault is played on a live run, and what its watcher wrote down is the report.

    rank         a rank is killed                         slow         a rank is held up, again and again
    agent        a node's agent is killed                 disk         a rank finds no room to write
    node         agent, ranks and memory of a node go     checkpoint   the newest checkpoint is damaged, then a rank is killed
    freeze       a rank is stopped (SIGSTOP)              watcher      the watcher is killed

Processes of this machine alone: they are found by the agents' own files, and only those of this run are touched. A full disk is
played by a limit on a process's files (setrlimit(2), RLIMIT_FSIZE), so nobody else's disk is filled.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.cluster.order import AGENT_FILE, RANKS, WATCH_FILE
from tumen.cluster.watcher.rank_table import SLOW_STEPS, USUAL_STEPS
from tumen.cluster.watcher.snapshot import read_snapshot
from tumen.core.errors import EngineError, InputError
from tumen.core.events import read

INJECTABLE_FAULTS = {  # fault -> what the watcher may call it
    "rank": ("crash",),
    "agent": ("agent", "node"),
    "freeze": ("freeze",),
    "slow": ("slow",),
    "disk": ("disk",),
    "checkpoint": ("checkpoint",),
    "node": ("node", "agent"),  # one machine cannot tell: nobody says that a host is gone
    "watcher": ("resumed",),
}
ROOM_BYTES = 4096  # what a rank with a full disk may still write
SLACK_SECONDS = 2.0  # of a process's start, which the kernel counts from a rounded boot
HELD_SECONDS, FREE_SECONDS = 0.25, 0.05  # of a slow rank, in turn
Undo = Callable[[], None]


@dataclass(frozen=True)
class LocalAgent:
    """A node's agent and its ranks, by their process ids."""

    node: str
    agent: int
    ranks: dict[int, int]


@dataclass(frozen=True)
class DrillReport:
    """What became of a fault. Seconds count from the moment it was played; None: it did not happen within the patience."""

    fault: str
    victim: str
    seen_seconds: float | None = None
    named: str = ""
    right: bool = False
    resumed_seconds: float | None = None
    lost_steps: int = 0
    lost_seconds: float = 0.0


def local_agents(job: Path) -> list[LocalAgent]:
    """The agents of a job that live on this machine.

    Raises:
        EngineError: there is none.
    """
    found = []
    for path in sorted((job / RANKS).glob(f"*/{AGENT_FILE}")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            said = json.loads(path.read_text("utf-8"))
            crew = LocalAgent(
                path.parent.name,
                int(said["pid"]),
                {int(rank): int(pid) for rank, pid in said["ranks"].items()},
            )
            if all(
                _is_ours(pid, path.stat().st_mtime) for pid in (crew.agent, *crew.ranks.values())
            ):
                found.append(crew)
    if not found:
        raise EngineError(
            f"{job}: no ranks of this job live on this machine; a drill needs a run that trains"
        )
    return found


def inject_fault(
    fault: str, job: Path, checkpoints: Path, copies: Sequence[Path], draw: random.Random
) -> tuple[str, Undo]:
    """Play a fault on a rank and node that `draw` picks; returns who was hit, and what takes back what is not over by itself.

    Args:
        job: folder of the job.
        checkpoints: folder of the tier's working checkpoints.
        copies: folders where nodes keep copies in memory; a node's is found by its name.

    Raises:
        InputError: no such fault.
        EngineError: nobody of this run is here to be hit, or it is too early for this fault.
    """
    if fault not in INJECTABLE_FAULTS:
        raise InputError(f"--fault {fault!r} is unknown; known: {', '.join(INJECTABLE_FAULTS)}")
    if fault == "watcher":
        last = max(
            read(job / WATCH_FILE),
            key=lambda row: float(row["time"]),
            default={"pid": 0, "time": 0.0},
        )
        pid = int(last["pid"])
        if not _is_ours(pid, last["time"]):
            raise EngineError(f"{job}: nobody watches this job; `tumen watch RUN` does")
        os.kill(pid, signal.SIGKILL)
        return f"watcher, process {pid}", _nothing
    crew = draw.choice(local_agents(job))
    rank = draw.choice(sorted(crew.ranks))
    pid = crew.ranks[rank]
    if fault in ("agent", "node"):
        _kill_node(crew, copies if fault == "node" else ())
        return f"{fault} {crew.node}", _nothing
    if fault == "freeze":
        os.kill(pid, signal.SIGSTOP)
    elif fault == "slow":
        now = read_snapshot(job)
        if not (now and now.usual_seconds):
            needs = f"that needs {USUAL_STEPS + SLOW_STEPS} looks, about one a second"
            raise EngineError(
                f"{job}: its watcher does not know yet how long a step usually takes; {needs}"
            )
        return f"rank {rank} on {crew.node}", _held_up(pid)
    elif fault == "disk":
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (ROOM_BYTES, resource.RLIM_INFINITY))
    else:
        if fault == "checkpoint":
            _damage(checkpoints, copies, draw)
        os.kill(pid, signal.SIGKILL)
    return f"rank {rank} on {crew.node}", _nothing


def drill_report(
    fault: str,
    victim: str,
    since: float,
    rows: Sequence[dict[str, Any]],
    restored: int | None = None,
    pace: float = 0.0,
) -> DrillReport:
    """The report, from the rows of watch.jsonl.

    Args:
        since: when the fault was played, in seconds since 1970.
        restored: the step that training went on from, as it says itself; default: the one before the first the watcher heard of.
        pace: seconds of a step, for what the lost ones cost.
    """
    after = [row for row in rows if row["time"] >= since]
    attempt = max((int(row.get("attempt") or 0) for row in rows if row["time"] < since), default=0)
    if fault == "watcher":
        back = next(
            (row for row in after if row["event"] == "watch" and row["state"] == "resumed"), None
        )
        seconds = back["time"] - since if back else None
        return DrillReport(
            fault, victim, seconds, "resumed" if back else "", back is not None, seconds, 0, 0.0
        )
    faults = [row for row in after if row["event"] == "fault"]
    if not faults:
        return DrillReport(fault, victim)
    right = next((row for row in faults if row["kind"] in INJECTABLE_FAULTS[fault]), None)
    named = (right or faults[0])["kind"]
    decided = [row for row in after if row["event"] == "decided"]
    resumed = [row for row in after if row["event"] == "resumed"]
    seen = faults[0]["time"] - since
    if not resumed:
        goes_on = decided and all(row["attempt"] == attempt for row in decided)
        return DrillReport(fault, victim, seen, named, right is not None, seen if goes_on else None)
    restored = int(resumed[-1]["step"]) - 1 if restored is None else restored
    lost = max(0, max(int(row.get("step") or 0) for row in faults) - restored)
    seconds = resumed[-1]["time"] - since
    return DrillReport(
        fault, victim, seen, named, right is not None, seconds, lost, seconds + lost * pace
    )


def _nothing() -> None:
    """What is over by itself needs nothing."""


def _kill_node(crew: LocalAgent, copies: Sequence[Path]) -> None:
    """The agent first: it must not have the time to tell what became of its ranks. They die with it."""
    for pid in (crew.agent, *crew.ranks.values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for folder in copies:
        if folder.name == crew.node:
            shutil.rmtree(folder, ignore_errors=True)


def _held_up(pid: int) -> Undo:
    """Stop a process again and again, until it is taken back."""
    over = threading.Event()

    def hold() -> None:
        with contextlib.suppress(ProcessLookupError):
            while not over.is_set():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(HELD_SECONDS)
                os.kill(pid, signal.SIGCONT)
                time.sleep(FREE_SECONDS)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()

    def undo() -> None:
        over.set()
        thread.join()

    return undo


def _damage(checkpoints: Path, copies: Sequence[Path], draw: random.Random) -> None:
    """Turn a byte of the newest checkpoint, and leave no copy in memory that would serve instead."""
    steps = sorted(
        checkpoints.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-"))
    )
    if len(steps) < 2:
        raise EngineError(
            f"{checkpoints}: the drill needs two checkpoints, there are {len(steps)}; wait for the next one"
        )
    file = draw.choice(sorted(steps[-1].glob("*.safetensors")))
    with open(file, "r+b") as payload:
        payload.seek(-1, os.SEEK_END)
        last = payload.read(1)
        payload.seek(-1, os.SEEK_END)
        payload.write(bytes([last[0] ^ 1]))
    for copy in [file for folder in copies for file in folder.glob("*")]:
        copy.unlink(missing_ok=True)


def _is_ours(pid: int, named: float) -> bool:
    """Whether a process of tumen lives that did so when it was named, `named` seconds after 1970: a number may be taken again."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        boot = next(
            int(line.split()[1])
            for line in Path("/proc/stat").read_text().splitlines()
            if line.startswith("btime")
        )
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        began = boot + int(fields[18]) / os.sysconf("SC_CLK_TCK")
        return (
            state != "Z"
            and began < named + SLACK_SECONDS
            and b"tumen" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
    return False
