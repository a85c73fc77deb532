"""What the watcher knows of a run at one moment, in as few lines for 1,250 nodes as for one.

The watcher replaces jobs/TIER/snapshot.json every second. `tumen status` prints it together with
the newest rows of watch.jsonl.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tumen.cluster.engines.hostlist import fold_hosts
from tumen.cluster.job_files import SNAPSHOT_FILE, WATCH_FILE
from tumen.cluster.watcher.monitor import RunState
from tumen.core import units
from tumen.core.artifact import write_text
from tumen.core.events import read
from tumen.core.shape import Frozen
from tumen.heartbeat import PHASES

LATE_SECONDS = 2.5  # an agent that missed two reports
OLD_SECONDS = 15.0  # a watcher that wrote nothing for so long is not running


class Snapshot(Frozen):
    """The state of a watched run.

    Attributes:
        time: when it was taken, in seconds since 1970.
        attempt: number of the attempt.
        nodes: number of agents.
        phases: phase -> number of ranks.
        step: the furthest finished step.
        step_seconds: median step time, 0 before any is known.
        usual_seconds: usual step time, for the next watcher (`RunMonitor.resume`).
        silent: node -> seconds without a report, of those that missed two.
        slow: node -> seconds of a step, of the node that the others wait for.
    """

    time: float
    attempt: int
    nodes: int
    phases: dict[str, int]
    step: int = 0
    step_seconds: float = 0.0
    usual_seconds: float = 0.0
    silent: dict[str, float] = Field({})
    slow: dict[str, float] = Field({})


def take_snapshot(state: RunState, now: float) -> Snapshot:
    """Return the snapshot of a run's state.

    Args:
        state: is only read.
        now: time of the watcher's clock in seconds.
    """
    ranks = state.ranks
    phases = Counter(PHASES[phase] for phase in ranks.phase.tolist())
    return Snapshot(
        time=now,
        attempt=state.order.attempt,
        nodes=len(state.agents),
        phases=dict(phases),
        step=ranks.furthest_step,
        step_seconds=ranks.step_seconds(),
        usual_seconds=ranks.usual_seconds(),
        silent=_silent_nodes(state, now),
        slow=_slow_nodes(state),
    )


def _silent_nodes(state: RunState, now: float) -> dict[str, float]:
    """Return the nodes whose agents missed two reports -> seconds since the last one."""
    silent = {}
    for agent in state.agents.values():
        seconds = now - agent.last_report
        if seconds > LATE_SECONDS:
            silent[agent.name] = round(seconds, 1)
    return silent


def _slow_nodes(state: RunState) -> dict[str, float]:
    """Return the node that the others wait for -> seconds of a step; empty where there is none."""
    ranks = state.ranks
    slow_rank = ranks.slow_rank()
    if slow_rank is None:
        return {}
    nodes = state.nodes_of(slow_rank)
    return dict.fromkeys(nodes, ranks.recent[-1])


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write a snapshot into a job's folder.

    Args:
        folder: of the job.
        snapshot: of its run.

    Raises:
        DiskError: the disk rejects it; the one before stays.
    """
    write_text(folder / SNAPSHOT_FILE, snapshot.model_dump_json())


def read_snapshot(folder: Path) -> Snapshot | None:
    """Return the newest snapshot of a job, None where there is none or it is damaged."""
    try:
        return Snapshot.model_validate_json((folder / SNAPSHOT_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def status_lines(folder: Path, ended: bool = False) -> list[str]:
    """Return lines about a job that is or was watched.

    Args:
        folder: of the job.
        ended: whether the job ended; then there are only lines about its faults.

    Returns:
        No line where the job was never watched.
    """
    rows = list(read(folder / WATCH_FILE))
    faults = list(_fault_lines(rows))
    snapshot = read_snapshot(folder)
    # The last snapshot of a job that ended says nothing about now.
    if ended or snapshot is None:
        return faults
    return [*_rank_lines(snapshot), *faults, *_watcher_lines(snapshot)]


def _rank_lines(snapshot: Snapshot) -> Iterator[str]:
    """Yield what the ranks do, and the nodes that differ from the others."""
    ranks = sum(snapshot.phases.values())
    phases = _phases_text(snapshot.phases)
    line = f"{ranks:,} ranks on {snapshot.nodes:,} nodes, attempt {snapshot.attempt}: {phases}"
    if snapshot.step_seconds:
        line += f"; a step takes {units.show_seconds(snapshot.step_seconds)}"
    yield line
    if snapshot.silent:
        longest = max(snapshot.silent.values())
        yield f"silent: {fold_hosts(snapshot.silent)}, for {units.show_seconds(longest)}"
    if snapshot.slow:
        slowest = max(snapshot.slow.values())
        yield f"slow: {fold_hosts(snapshot.slow)}, with {units.show_seconds(slowest)} a step"


def _phases_text(phases: Mapping[str, int]) -> str:
    """Return how many ranks are in which phase, the most first."""

    def most_first(item: tuple[str, int]) -> tuple[int, str]:
        phase, number = item
        return -number, phase  # by name where they are as many

    ordered = sorted(phases.items(), key=most_first)
    return ", ".join(f"{number:,} {phase}" for phase, number in ordered)


def _fault_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield how many faults there were of each kind, and the newest one with its outcome."""
    places = [place for place, row in enumerate(rows) if row.get("event") == "fault"]
    if not places:
        return
    kinds = Counter(str(rows[place].get("kind", "?")) for place in places)
    counts = [f"{number} {kind}" for kind, number in kinds.most_common()]
    yield f"faults: {', '.join(counts)}"
    newest = places[-1]
    yield _newest_fault_line(rows[newest], rows[newest:])


def _newest_fault_line(fault: Mapping[str, Any], since: Sequence[Mapping[str, Any]]) -> str:
    """Return a line about a fault.

    Args:
        fault: its row.
        since: the rows from it on, which say what became of it.
    """
    local_time = time.localtime(float(fault.get("time", 0)))
    line = f"last fault, {time.strftime('%H:%M:%S', local_time)}: {fault.get('kind', '?')}"
    details = ", ".join(_details(fault))
    if details:
        line += f" ({details})"
    return f"{line}; {_outcome(since)}"


def _details(fault: Mapping[str, Any]) -> Iterator[str]:
    """Yield where a fault was and why, as far as its row says so."""
    for name in ("rank", "node", "step"):
        if fault.get(name) not in (None, "", -1):
            yield f"{name} {fault[name]}"
    if fault.get("why"):
        yield str(fault["why"])


def _outcome(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what was decided about a fault, and whether training resumed.

    Args:
        rows: of watch.jsonl since the fault.
    """
    decided = [row for row in rows if row.get("event") == "decided"]
    resumed = [row for row in rows if row.get("event") == "resumed"]
    if resumed:
        last = resumed[-1]
        seconds = units.show_seconds(float(last.get("seconds") or 0))
        return f"resumed at step {last.get('step')} after {seconds}"
    if decided:
        last = decided[-1]
        return f"{last.get('action')} as attempt {last.get('attempt')}, no new step yet"
    return "nothing decided yet"


def _watcher_lines(snapshot: Snapshot) -> Iterator[str]:
    """Yield a line where no watcher is running any more."""
    silent = time.time() - snapshot.time
    # A running watcher replaces the snapshot every second.
    if silent > OLD_SECONDS:
        seen = units.show_seconds(silent)
        yield f"no watcher is running: it was last seen {seen} ago; `tumen watch RUN` continues"
