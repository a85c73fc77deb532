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
    """Return the snapshot of a run's state."""
    ranks = state.ranks
    silent = {}
    for agent in state.agents.values():
        seconds = now - agent.last_report
        if seconds > LATE_SECONDS:
            silent[agent.name] = round(seconds, 1)
    slow: dict[str, float] = {}
    slow_rank = ranks.slow_rank()
    if slow_rank is not None:
        slow = dict.fromkeys(state.nodes_of(slow_rank), ranks.recent[-1])
    return Snapshot(
        time=now,
        attempt=state.order.attempt,
        nodes=len(state.agents),
        phases=dict(Counter(PHASES[phase] for phase in ranks.phase.tolist())),
        step=ranks.furthest_step,
        step_seconds=ranks.step_seconds(),
        usual_seconds=ranks.usual_seconds(),
        silent=silent,
        slow=slow,
    )


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write a snapshot into a job's folder.

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
    if ended or snapshot is None:
        return faults
    return [*_rank_lines(snapshot), *faults, *_watcher_lines(snapshot)]


def _rank_lines(snapshot: Snapshot) -> Iterator[str]:
    """Yield what the ranks do, and the nodes that differ from the others."""
    most_first = sorted(snapshot.phases.items(), key=lambda item: (-item[1], item[0]))
    phases = ", ".join(f"{number:,} {phase}" for phase, number in most_first)
    pace = ""
    if snapshot.step_seconds:
        pace = f"; a step takes {units.show_seconds(snapshot.step_seconds)}"
    ranks = f"{sum(snapshot.phases.values()):,} ranks on {snapshot.nodes:,} nodes"
    yield f"{ranks}, attempt {snapshot.attempt}: {phases}{pace}"
    if snapshot.silent:
        longest = units.show_seconds(max(snapshot.silent.values()))
        yield f"silent: {fold_hosts(snapshot.silent)}, for {longest}"
    if snapshot.slow:
        slowest = units.show_seconds(max(snapshot.slow.values()))
        yield f"slow: {fold_hosts(snapshot.slow)}, with {slowest} a step"


def _fault_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield how many faults there were of each kind, and the newest one with its outcome."""
    found = [number for number, row in enumerate(rows) if row.get("event") == "fault"]
    if not found:
        return
    kinds = Counter(str(rows[number].get("kind", "?")) for number in found).most_common()
    yield f"faults: {', '.join(f'{number} {kind}' for kind, number in kinds)}"
    fault = rows[found[-1]]
    clock = time.strftime("%H:%M:%S", time.localtime(float(fault.get("time", 0))))
    details = ", ".join(_details(fault))
    about = f" ({details})" if details else ""
    outcome = _outcome(rows[found[-1] :])
    yield f"last fault, {clock}: {fault.get('kind', '?')}{about}; {outcome}"


def _details(fault: Mapping[str, Any]) -> Iterator[str]:
    for name in ("rank", "node", "step"):
        if fault.get(name) not in (None, "", -1):
            yield f"{name} {fault[name]}"
    if fault.get("why"):
        yield str(fault["why"])


def _outcome(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what was decided about a fault, and whether training resumed, from the rows since it."""
    decided = [row for row in rows if row.get("event") == "decided"]
    resumed = [row for row in rows if row.get("event") == "resumed"]
    if resumed:
        seconds = units.show_seconds(float(resumed[-1].get("seconds") or 0))
        return f"resumed at step {resumed[-1].get('step')} after {seconds}"
    if decided:
        action, attempt = decided[-1].get("action"), decided[-1].get("attempt")
        return f"{action} as attempt {attempt}, no new step yet"
    return "nothing decided yet"


def _watcher_lines(snapshot: Snapshot) -> Iterator[str]:
    silent = time.time() - snapshot.time
    if silent > OLD_SECONDS:
        seen = units.show_seconds(silent)
        yield f"no watcher is running: it was last seen {seen} ago; `tumen watch RUN` continues"
