"""Fault drills: inject a fault into a training on this machine and wait until it recovers."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from tumen.cluster import WATCH_FILE, DrillReport, drill_report, inject_fault
from tumen.cluster.agents import replica_folder
from tumen.core.events import read
from tumen.pipeline.training.tier_job import job_folder

PATIENCE_SECONDS = 180.0
POLL_SECONDS = 0.1
TAIL_BYTES = 16384  # of events.jsonl hold the newest events of a tier


def drill_tier(
    run: Path, tier: str, fault: str, seed: int, patience: float = PATIENCE_SECONDS
) -> DrillReport:
    """Inject a fault into a tier's training and wait until it goes on, or ends.

    Args:
        run: folder of the run.
        tier: that is being trained.
        fault: one of `tumen.cluster.INJECTABLE_FAULTS`.
        seed: decides which rank and node are hit.
        patience: seconds to wait.

    Raises:
        InputError: there is no such fault.
        EngineError: no training is running, or no watcher.
    """
    job = job_folder(run, tier)
    checkpoints = run / f".{tier}.work"
    replicas = list(replica_folder(job, "any").parent.glob("*"))
    since = time.time()
    victim, undo = inject_fault(fault, job, checkpoints, replicas, random.Random(seed))
    try:
        while True:
            # Asked before the report, so that a last row is in it.
            over = _training_ended(job, since) or time.time() - since > patience
            report = _report(run, tier, fault, victim, since)
            if over or report.resumed_seconds is not None:
                return report
            time.sleep(POLL_SECONDS)
    finally:
        undo()


def _training_ended(job: Path, since: float) -> bool:
    """Whether the watcher has written, since a Unix time, that the training ended."""
    rows = read(job / WATCH_FILE, "watch", tail_bytes=TAIL_BYTES)
    return any(row["state"] == "ended" and row["time"] >= since for row in rows)


def _report(run: Path, tier: str, fault: str, victim: str, since: float) -> DrillReport:
    """Return what the watcher and the training have reported so far."""
    restart = _newest(run, tier, "train", since)
    step = _newest(run, tier, "step")
    restored_step = int(restart["step"]) if restart else None
    step_seconds = float(step["step_seconds"]) if step else 0.0
    rows = list(read(job_folder(run, tier) / WATCH_FILE))
    return drill_report(fault, victim, since, rows, restored_step, step_seconds)


def _newest(run: Path, tier: str, event: str, since: float = 0.0) -> dict[str, Any]:
    """Return the newest event of a tier's training since a Unix time, or an empty one."""
    found: dict[str, Any] = {}
    for row in read(run / "events.jsonl", event, tail_bytes=TAIL_BYTES):
        if row.get("tier") == tier and row["time"] >= since:
            found = row
    return found
