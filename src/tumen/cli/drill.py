"""`tumen drill RUN --fault KIND`: play a fault on a live run and say what became of it."""

from __future__ import annotations

import json
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from tumen.cli.options import JSON, RUN, TIER
from tumen.cluster import INJECTABLE_FAULTS, DrillReport, drill_report, inject_fault
from tumen.cluster.agents import replica_folder
from tumen.core.errors import TrainError
from tumen.core.events import read
from tumen.pipeline.folder import asked
from tumen.pipeline.training.jobs import FOLDER, one_of

PATIENCE_SECONDS = 180.0


def drill(
    run: Path = RUN,
    fault: str = typer.Option(..., "--fault", help=f"One of {', '.join(INJECTABLE_FAULTS)}."),
    seed: int = typer.Option(0, "--seed", help="Which rank and node are hit."),
    tier: str = TIER,
    patience: float = typer.Option(
        PATIENCE_SECONDS, "--patience", help="Seconds to wait until the run goes on."
    ),
    as_json: bool = JSON,
) -> None:
    """Play a fault on a live run of this machine and say how it was seen, named and healed, and what it cost."""
    recipe, where = asked(run)
    tier = one_of(recipe, where, tier)
    found = played(where, tier, fault, seed, patience)
    print(json.dumps(asdict(found)) if as_json else said(found))
    if not found.right or found.resumed_seconds is None:
        raise TrainError(
            f"drill {fault}: {'not seen' if found.seen_seconds is None else 'not healed as it should be'}"
        )


def played(
    where: Path, tier: str, fault: str, seed: int, patience: float = PATIENCE_SECONDS
) -> DrillReport:
    """Play a fault on a tier's training and wait for what becomes of it.

    Raises:
        InputError: no such fault.
        EngineError: nobody trains, or nobody watches.
    """
    job, work = where / FOLDER / tier, where / f".{tier}.work"
    copies = list(replica_folder(job, "any").parent.glob("*"))
    since = time.time()
    victim, undo = inject_fault(fault, job, work, copies, random.Random(seed))
    try:
        while True:
            began, step = newest(where, tier, "train", since), newest(where, tier, "step")
            restored, pace = (
                int(began["step"]) if began else None,
                float(step["step_seconds"]) if step else 0.0,
            )
            found = drill_report(
                fault, victim, since, list(read(job / "watch.jsonl")), restored, pace
            )
            if found.resumed_seconds is not None or time.time() - since > patience:
                return found
            time.sleep(0.1)
    finally:
        undo()


def newest(where: Path, tier: str, event: str, since: float = 0.0) -> dict[str, Any] | None:
    """The newest event of a tier's training."""
    rows = [
        row
        for row in read(where / "events.jsonl", event, tail_bytes=16384)
        if row.get("tier") == tier and row["time"] >= since
    ]
    return rows[-1] if rows else None


def said(found: DrillReport) -> str:
    """A report for people."""

    def after(seconds: float | None) -> str:
        return "never" if seconds is None else f"after {seconds:.1f} s"

    lines = [f"{found.fault}: {found.victim}", f"  seen     {after(found.seen_seconds)}"]
    lines += [f"  named    {found.named or '-'}{'' if found.right else ', which is wrong'}"]
    lines += [
        f"  resumed  {after(found.resumed_seconds)}",
        f"  lost     {found.lost_steps} steps, {found.lost_seconds:.1f} s",
    ]
    return "\n".join(lines)
