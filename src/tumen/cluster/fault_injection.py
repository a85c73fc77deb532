"""Fault injection (`tumen drill`): cause a fault in a live run, report how it was healed.

    rank         a rank is killed
    agent        a node's agent is killed
    node         agent, ranks and memory of a node are gone
    freeze       a rank is stopped (SIGSTOP)
    slow         a rank is stopped again and again
    disk         a rank has no room to write
    checkpoint   the newest checkpoint is damaged, then a rank is killed
    watcher      the watcher is killed

Only processes of this machine are hit. They are found by the agents' own files, and checked to
belong to this run. A full disk is a limit on one process's files (setrlimit(2), RLIMIT_FSIZE), so
no disk of anybody else is filled.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tumen.cluster.job_files import AGENT_FILE, RANKS_FOLDER, WATCH_FILE
from tumen.cluster.watcher.monitor import SLOW_STEPS, USUAL_STEPS
from tumen.cluster.watcher.snapshot import read_snapshot
from tumen.core import lifetime
from tumen.core.errors import EngineError, InputError
from tumen.core.events import read

# Injected fault -> the kinds that a watcher may report.
INJECTABLE_FAULTS = {
    "rank": ("crash",),
    "agent": ("agent", "node"),
    "freeze": ("freeze",),
    "slow": ("slow",),
    "disk": ("disk",),
    "checkpoint": ("checkpoint",),
    "node": ("node", "agent"),  # on one machine no engine reports that a host is gone
    "watcher": ("resumed",),
}
ROOM_BYTES = 4096  # that a rank with a full disk may still write to a file
SLACK_SECONDS = 2.0  # of a process's start time, which counts from a rounded boot time
STOPPED_SECONDS = 0.25  # of a slow rank, in turn with RUNNING_SECONDS
RUNNING_SECONDS = 0.05
Undo = Callable[[], None]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class LocalAgent:
    """The agent of a node and its ranks, by process id."""

    node: str
    agent: int
    ranks: dict[int, int]  # rank -> process id


@dataclass(frozen=True)
class DrillReport:
    """What became of an injected fault.

    Seconds count from the injection; None: it did not happen in time.

    Attributes:
        fault: key of INJECTABLE_FAULTS.
        victim: which rank, node or process was hit.
        seen_seconds: until the watcher reported a fault.
        named: the kind that it reported.
        right: whether that kind is one of INJECTABLE_FAULTS.
        resumed_seconds: until the first new step.
        lost_steps: steps that were done again.
        lost_seconds: until the first new step, and for the steps that were done again.
    """

    fault: str
    victim: str
    seen_seconds: float | None = None
    named: str = ""
    right: bool = False
    resumed_seconds: float | None = None
    lost_steps: int = 0
    lost_seconds: float = 0.0


# -- injection


def local_agents(job: Path) -> list[LocalAgent]:
    """Return the agents of a job that are alive on this machine.

    Raises:
        EngineError: there are none.
    """
    found = []
    for path in sorted((job / RANKS_FOLDER).glob(f"*/{AGENT_FILE}")):
        # A file that cannot be read belongs to an agent that just starts or ends.
        with contextlib.suppress(OSError, ValueError, KeyError):
            agent = _read_agent(path)
            written = path.stat().st_mtime
            pids = (agent.agent, *agent.ranks.values())
            if all(_is_ours(pid, written) for pid in pids):
                found.append(agent)
    if not found:
        raise EngineError(
            f"{job}: no ranks of this job are alive on this machine; "
            "a drill needs a run that trains here"
        )
    return found


def _read_agent(path: Path) -> LocalAgent:
    """Return the agent that wrote its process ids into a file."""
    facts = json.loads(path.read_text("utf-8"))
    ranks = {int(rank): int(pid) for rank, pid in facts["ranks"].items()}
    return LocalAgent(path.parent.name, int(facts["pid"]), ranks)


def inject_fault(
    fault: str, job: Path, checkpoints: Path, replicas: Sequence[Path], draw: random.Random
) -> tuple[str, Undo]:
    """Cause a fault on a rank and node that `draw` picks.

    Args:
        fault: key of INJECTABLE_FAULTS.
        job: folder of the job.
        checkpoints: folder of the tier's working checkpoints.
        replicas: folders where nodes hold replicas in memory, named like their nodes.
        draw: picks the victim.

    Returns:
        Who was hit, and a function that ends the fault where it does not end by itself.

    Raises:
        InputError: no such fault.
        EngineError: there is no victim on this machine, or it is too early for this fault.
    """
    if fault not in INJECTABLE_FAULTS:
        known = ", ".join(INJECTABLE_FAULTS)
        raise InputError(f"--fault {fault!r} is unknown; known: {known}")
    if fault == "watcher":
        return _kill_watcher(job), _nothing
    victim = draw.choice(local_agents(job))
    if fault in ("agent", "node"):
        # Of a node the memory goes, too; an agent leaves its replicas to its successor.
        _kill_node(victim, replicas if fault == "node" else ())
        return f"{fault} {victim.node}", _nothing
    rank = draw.choice(sorted(victim.ranks))
    if fault == "checkpoint":
        _damage(checkpoints, replicas, draw)
    undo = _hit_rank(fault, job, victim.ranks[rank])
    return f"rank {rank} on {victim.node}", undo


def _hit_rank(fault: str, job: Path, pid: int) -> Undo:
    """Cause a fault on the process of one rank; returns a function that ends the fault.

    Args:
        fault: key of INJECTABLE_FAULTS that hits a rank.
        job: folder of the job.
        pid: of the rank's process.

    Raises:
        EngineError: it is too early for this fault.
    """
    if fault == "freeze":
        os.kill(pid, signal.SIGSTOP)
        return _nothing
    if fault == "slow":
        _require_usual_step_time(job)
        return _slow_down(pid)
    if fault == "disk":
        limit = (ROOM_BYTES, resource.RLIM_INFINITY)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
        return _nothing
    os.kill(pid, signal.SIGKILL)
    return _nothing


def _nothing() -> None:
    """End a fault that ends by itself."""


def _kill_watcher(job: Path) -> str:
    """Kill the watcher that wrote the newest row; returns what was hit."""
    rows = read(job / WATCH_FILE)
    # Several watchers may have written rows; only the newest can be alive.
    newest = max(rows, key=lambda row: float(row["time"]), default={"pid": 0, "time": 0.0})
    pid = int(newest["pid"])
    if not _is_ours(pid, newest["time"]):
        raise EngineError(f"{job}: no watcher is running; start `tumen watch RUN`")
    os.kill(pid, signal.SIGKILL)
    return f"watcher, process {pid}"


def _kill_node(victim: LocalAgent, replicas: Sequence[Path]) -> None:
    """Kill an agent and its ranks, and remove the replicas of its node.

    The agent first: it must not have the time to report what became of its ranks.

    Args:
        victim: the agent and its ranks.
        replicas: folders with replicas in memory, named like their nodes.
    """
    for pid in (victim.agent, *victim.ranks.values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for folder in replicas:
        if folder.name == victim.node:
            shutil.rmtree(folder, ignore_errors=True)


def _require_usual_step_time(job: Path) -> None:
    """Raise EngineError while the watcher cannot tell a slow step from a usual one."""
    snapshot = read_snapshot(job)
    if snapshot is None or not snapshot.usual_seconds:
        raise EngineError(
            f"{job}: its watcher does not know yet how long a step usually takes; "
            f"it needs {USUAL_STEPS + SLOW_STEPS} samples, about one a second"
        )


def _slow_down(pid: int) -> Undo:
    """Stop a process again and again until the returned function is called."""
    over = threading.Event()

    def alternate() -> None:
        with contextlib.suppress(ProcessLookupError):
            while not over.is_set():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(STOPPED_SECONDS)
                os.kill(pid, signal.SIGCONT)
                time.sleep(RUNNING_SECONDS)

    thread = threading.Thread(target=alternate, daemon=True)
    thread.start()

    def undo() -> None:
        over.set()
        thread.join()

    return undo


def _damage(checkpoints: Path, replicas: Sequence[Path], draw: random.Random) -> None:
    """Flip a bit of the newest checkpoint, and remove the replicas that would replace it.

    Args:
        checkpoints: folder of the tier's working checkpoints.
        replicas: folders with replicas in memory.
        draw: picks the file.
    """
    steps = sorted(checkpoints.glob("step-*"), key=_step_of)
    if len(steps) < 2:
        raise EngineError(
            f"{checkpoints}: the drill needs two checkpoints, there are {len(steps)}; "
            "wait for the next one"
        )
    file = draw.choice(sorted(steps[-1].glob("*.safetensors")))
    # The last byte belongs to a tensor; the header at the front stays readable.
    with open(file, "r+b") as payload:
        payload.seek(-1, os.SEEK_END)
        last = payload.read(1)
        payload.seek(-1, os.SEEK_END)
        payload.write(bytes([last[0] ^ 1]))
    for folder in replicas:
        for replica in folder.glob("*"):
            replica.unlink(missing_ok=True)


def _step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint, by its name."""
    return int(checkpoint.name.removeprefix("step-"))


def _is_ours(pid: int, written: float) -> bool:
    """Whether a process of tumen is alive that was so when its id was written down.

    Args:
        pid: process id, which another process may have got meanwhile.
        written: when it was written down, in seconds since 1970.
    """
    fields = lifetime.stat_fields(pid)
    if not fields or fields[0] == "Z":
        return False
    # The process may end while its files are read.
    with contextlib.suppress(OSError, StopIteration, ValueError):
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        began = _boot_time() + since_boot
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
        is_old_enough = began < written + SLACK_SECONDS
        return is_old_enough and b"tumen" in command_line
    return False


def _boot_time() -> int:
    """Return when this machine booted, in seconds since 1970 (proc(5), btime).

    Raises:
        StopIteration: the kernel does not say so.
    """
    lines = Path("/proc/stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("btime"))


# -- report


def drill_report(
    fault: str,
    victim: str,
    since: float,
    rows: Rows,
    restored: int | None = None,
    step_seconds: float = 0.0,
) -> DrillReport:
    """Return the report of an injected fault.

    Args:
        fault: key of INJECTABLE_FAULTS.
        victim: who was hit.
        since: when the fault was injected, in seconds since 1970.
        rows: of watch.jsonl.
        restored: the step that training resumed from, as it says itself; default: the one before
            the first new step that the watcher saw.
        step_seconds: of a step, for the cost of the lost ones.
    """
    after = [row for row in rows if row["time"] >= since]
    if fault == "watcher":
        return _report_on_watcher(victim, since, after)
    faults = _of_event(after, "fault")
    if not faults:
        return DrillReport(fault, victim)
    right = [row for row in faults if row["kind"] in INJECTABLE_FAULTS[fault]]
    named = right or faults
    report = DrillReport(
        fault,
        victim,
        seen_seconds=faults[0]["time"] - since,
        named=named[0]["kind"],
        right=bool(right),
    )
    resumed = _of_event(after, "resumed")
    if resumed:
        last = resumed[-1]
        lost_steps = _lost_steps(faults, last, restored)
        resumed_seconds = last["time"] - since
        return replace(
            report,
            resumed_seconds=resumed_seconds,
            lost_steps=lost_steps,
            lost_seconds=resumed_seconds + lost_steps * step_seconds,
        )
    # A damaged checkpoint, for example, stops no rank: the run is back as soon as it is seen.
    if _never_stopped(rows, since):
        return replace(report, resumed_seconds=report.seen_seconds)
    return report


def _lost_steps(faults: Rows, resumed: Mapping[str, Any], restored: int | None) -> int:
    """Return how many steps were done again.

    Args:
        faults: rows of the faults.
        resumed: row of the first new step.
        restored: the step that training resumed from, None for the one before the new step.
    """
    if restored is None:
        restored = int(resumed["step"]) - 1
    furthest = max(int(row.get("step") or 0) for row in faults)
    return max(0, furthest - restored)


def _report_on_watcher(victim: str, since: float, after: Rows) -> DrillReport:
    """Return the report of a killed watcher: how long until another one continued.

    Args:
        victim: who was hit.
        since: when the watcher was killed, in seconds since 1970.
        after: rows of watch.jsonl from then on.
    """
    back = [row for row in _of_event(after, "watch") if row["state"] == "resumed"]
    if not back:
        return DrillReport("watcher", victim)
    seconds = back[0]["time"] - since
    return DrillReport("watcher", victim, seconds, "resumed", True, seconds)


def _never_stopped(rows: Rows, since: float) -> bool:
    """Whether all that was decided on the fault left the present attempt at work.

    Args:
        rows: of watch.jsonl.
        since: when the fault was injected, in seconds since 1970.
    """
    before = [row for row in rows if row["time"] < since]
    attempt = max((int(row.get("attempt") or 0) for row in before), default=0)
    after = [row for row in rows if row["time"] >= since]
    decided = _of_event(after, "decided")
    return bool(decided) and all(row["attempt"] == attempt for row in decided)


def _of_event(rows: Rows, event: str) -> list[Mapping[str, Any]]:
    """Return the rows of an event."""
    return [row for row in rows if row["event"] == event]
