"""The rows of watch.jsonl: what the watcher detected and what it decided.

    watch     {state, attempt}                     a watcher started, resumed or ended
    fault     {kind, rank, node, step, why, silent_seconds}
    decided   {action, attempt, world, avoid, why}
    resumed   {attempt, step, seconds, detection_seconds}      the first new step after a fault

The goodput report, drills, `tumen status` and the next watcher read them; times are added by the
writer (core/events.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Row = dict[str, Any]
FaultKind = Literal[
    "crash",
    "agent",
    "freeze",
    "collective",
    "slow",
    "nan",
    "spike",
    "disk",
    "checkpoint",
    "node",
    "engine",
    "skew",
]
Action = Literal["restart", "resubmit", "drain", "wait", "give_up", "resize"]


@dataclass(frozen=True)
class Fault:
    """A detected fault.

    Attributes:
        kind: its name in watch.jsonl.
        why: one line for people.
        step: the furthest finished step.
        first_sign: when its first sign was there, in seconds of the watcher's clock.
        rank: the rank that caused it, where that is known.
        nodes: the nodes that are affected; the first one is written down.
    """

    kind: FaultKind
    why: str
    step: int
    first_sign: float
    rank: int | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpenFault:
    """A fault from which training has not recovered yet, in seconds of the watcher's clock."""

    first_sign: float
    detected: float


def fault_row(fault: Fault, now: float) -> Row:
    """Return the row of a fault that was detected now.

    Args:
        fault: that was detected.
        now: time of the watcher's clock in seconds.
    """
    return {
        "event": "fault",
        "kind": fault.kind,
        "rank": fault.rank,
        "node": fault.nodes[0] if fault.nodes else None,
        "step": fault.step,
        "why": fault.why,
        "silent_seconds": round(max(0.0, now - fault.first_sign), 2),
    }


def decided_row(action: Action, why: str, attempt: int, world: int, avoid: Sequence[str]) -> Row:
    """Return the row of a decision.

    Args:
        action: what is done.
        why: one line for people.
        attempt: the attempt that follows; the present one where it goes on.
        world: number of ranks of that attempt.
        avoid: nodes that the job must not use any more.
    """
    return {
        "event": "decided",
        "action": action,
        "attempt": attempt,
        "world": world,
        "avoid": list(avoid),
        "why": why,
    }


def resumed_row(attempt: int, step: int, fault: OpenFault, now: float) -> Row:
    """Return the row of the first new step after a fault.

    Args:
        attempt: that made the step.
        step: the first new one.
        fault: from which training recovered.
        now: time of the watcher's clock in seconds.
    """
    return {
        "event": "resumed",
        "attempt": attempt,
        "step": step,
        "seconds": round(now - fault.first_sign, 2),
        "detection_seconds": round(fault.detected - fault.first_sign, 2),
    }


def watch_row(state: Literal["started", "resumed", "ended"], attempt: int) -> Row:
    """Return the row of a watcher that starts, resumes or ends."""
    return {"event": "watch", "state": state, "attempt": attempt}


def format_row(row: Mapping[str, Any]) -> str:
    """Return a row of watch.jsonl as one line for people."""
    if row["event"] == "fault":
        return _format_fault(row)
    if row["event"] == "decided":
        return _format_decision(row)
    if row["event"] == "resumed":
        times = f"{row['seconds']:.1f} s after the fault"
        detected = f"detected after {row['detection_seconds']:.1f} s"
        return f"resumed: attempt {row['attempt']}, step {row['step']}, {times} ({detected})"
    return f"watch: {row['state']}, attempt {row['attempt']}"


def _format_decision(row: Mapping[str, Any]) -> str:
    """Return a decision: what is done, for which attempt, and why."""
    about = f"attempt {row['attempt']}, {row['world']} ranks"
    if row["avoid"]:
        about += f", without {', '.join(row['avoid'])}"
    return f"decided: {row['action']}, {about}: {row['why']}"


def _format_fault(row: Mapping[str, Any]) -> str:
    """Return a fault: its kind, where it was as far as that is known, and why."""
    where = []
    if row["rank"] is not None:
        where.append(f"rank {row['rank']}")
    if row["node"] is not None:
        where.append(f"node {row['node']}")
    where.append(f"step {row['step']}")
    return f"fault: {row['kind']}, {', '.join(where)}: {row['why']}"
