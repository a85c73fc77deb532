"""How a watched run stands, in lines that are as many for 1,250 nodes as for one.

jobs/TIER/snapshot.json   what the watcher sees now, summed up by it (Glance); replaced whole, every few seconds
jobs/TIER/watch.jsonl   what it saw and decided, of which the newest matters here
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tumen.cluster.engines.hostlist import fold_hosts
from tumen.cluster.order import WATCH_FILE
from tumen.cluster.watcher.monitor import RunMonitor
from tumen.core import units
from tumen.core.artifact import write_text
from tumen.core.events import read
from tumen.core.shape import Frozen
from tumen.heartbeat import PHASES

SNAPSHOT_FILE = "snapshot.json"
LATE_SECONDS = 2.5  # two reports of an agent that did not come
OLD_SECONDS = 15.0  # a watcher that wrote nothing for so long does not live


class Snapshot(Frozen):
    """What a watcher sees at a time, in seconds since 1970: ranks by phase; nodes silent for seconds, slow by seconds of a step.

    `usual_seconds` is for the next watcher, which need not learn it again (`Watch.resume`).
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


def take_snapshot(watch: RunMonitor, now: float) -> Snapshot:
    """What a watcher sees now."""
    signs = watch.signs
    late = {
        seat.name: round(now - seat.heard, 1)
        for seat in watch.seats.values()
        if now - seat.heard > LATE_SECONDS
    }
    rank = signs.slow() if signs.recent else None
    slow = {} if rank is None else dict.fromkeys(watch.nodes_of(rank), signs.recent[-1])
    phases = Counter(PHASES[phase] for phase in signs.phase.tolist())
    seen = {"nodes": len(watch.seats), "phases": dict(phases), "silent": late, "slow": slow}
    pace = {
        "step": signs.steps,
        "step_seconds": signs.step_seconds(),
        "usual_seconds": signs.usual_seconds(),
    }
    return Snapshot(time=now, attempt=watch.order.attempt, **pace, **seen)


def write_snapshot(folder: Path, glance: Snapshot) -> None:
    """Keep it for `tumen status` and the console.

    Raises:
        DiskError: the disk refuses; the one before stands.
    """
    write_text(folder / SNAPSHOT_FILE, glance.model_dump_json())


def read_snapshot(folder: Path) -> Snapshot | None:
    """The newest of a job's folder; None when nobody ever watched, or it is damaged."""
    try:
        return Snapshot.model_validate_json((folder / SNAPSHOT_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def status_lines(folder: Path, ended: bool = False) -> list[str]:
    """Lines about a job that is or was watched, none when nobody ever watched. Of one that ended, its faults alone."""
    rows = list(read(folder / WATCH_FILE))
    lines = list(_faults(rows))
    if ended or not (now := read_snapshot(folder)):
        return lines
    return [*_seen(now), *lines, *_watcher(now)]


def _seen(now: Snapshot) -> Iterator[str]:
    """Ranks by what they do, and the nodes that are not as the others."""
    does = ", ".join(
        f"{number:,} {phase}"
        for phase, number in sorted(now.phases.items(), key=lambda item: (-item[1], item[0]))
    )
    pace = f"; a step takes {units.show_seconds(now.step_seconds)}" if now.step_seconds else ""
    yield f"{sum(now.phases.values()):,} ranks on {now.nodes:,} nodes, attempt {now.attempt}: {does}{pace}"
    if now.silent:
        yield f"silent: {fold_hosts(now.silent)}, for {units.show_seconds(max(now.silent.values()))}"
    if now.slow:
        yield f"slow: {fold_hosts(now.slow)}, with {units.show_seconds(max(now.slow.values()))} a step"


def _faults(rows: list[dict[str, Any]]) -> Iterator[str]:
    """How many of each kind, and the newest with what became of it."""
    found = [number for number, row in enumerate(rows) if row.get("event") == "fault"]
    if not found:
        return
    kinds = Counter(str(rows[number].get("kind", "?")) for number in found).most_common()
    yield f"faults: {', '.join(f'{number} {kind}' for kind, number in kinds)}"
    fault, since = rows[found[-1]], rows[found[-1] :]
    clock = time.strftime("%H:%M:%S", time.localtime(float(fault.get("time", 0))))
    about = ", ".join(part for part in (_where(fault), str(fault.get("why") or "")) if part)
    yield f"last fault, {clock}: {fault.get('kind', '?')}{f' ({about})' if about else ''}; {_became(since)}"


def _where(fault: dict[str, Any]) -> str:
    known = ((name, fault.get(name)) for name in ("rank", "node", "step"))
    return ", ".join(f"{name} {value}" for name, value in known if value not in (None, "", -1))


def _became(since: list[dict[str, Any]]) -> str:
    """What was decided about a fault, and whether training went on."""
    decided = [row for row in since if row.get("event") == "decided"]
    resumed = [row for row in since if row.get("event") == "resumed"]
    if resumed:
        return f"went on at step {resumed[-1].get('step')} after {units.show_seconds(float(resumed[-1].get('seconds') or 0))}"
    if decided:
        return (
            f"{decided[-1].get('action')} as attempt {decided[-1].get('attempt')}, no new step yet"
        )
    return "nothing decided yet"


def _watcher(now: Snapshot) -> Iterator[str]:
    if (silent := time.time() - now.time) > OLD_SECONDS:
        yield f"nobody watches: the watcher was last seen {units.show_seconds(silent)} ago; `tumen watch RUN` goes on"
