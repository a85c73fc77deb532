"""Which start of a job holds a run: what an older one left alive, on a node its engine lost, must not write beside the new one.

An engine that may start a job again numbers its starts (12.1 and 12.2 are job 12's first and second) and writes the number into the
job's folder before it starts anything. Agents and ranks compare it with their own.
"""

from __future__ import annotations

import os
from pathlib import Path

from tumen.core.errors import TrainError

EPOCH_FILE, EPOCH_ENV, JOB_ENV = (
    "epoch",
    "TUMEN_EPOCH",
    "TUMEN_JOB",
)  # of a job's folder; environment of a rank: its start, the folder


def newer_epoch(folder: Path, mine: str) -> str:
    """The start that holds a job's folder if it is newer than `mine`, else "" (also when nobody wrote one)."""
    try:
        said = (folder / EPOCH_FILE).read_text("utf-8").strip()
    except OSError:
        return ""
    return said if mine and parse_epoch(said) > parse_epoch(mine) else ""


def reject_stale(folder: Path | None = None, mine: str = "") -> None:
    """Before something is written that others will read. Default: the job and start of this rank's environment.

    Raises:
        TrainError: a newer start holds the run.
    """
    folder, mine = (
        (folder, mine)
        if folder
        else (Path(os.environ.get(JOB_ENV, "")), os.environ.get(EPOCH_ENV, ""))
    )
    if other := newer_epoch(folder, mine):
        raise TrainError(
            f"epoch {mine} of this job is stale: the engine started epoch {other}, which owns the run now"
        )


def parse_epoch(start: str) -> tuple[int, ...]:
    """A start as numbers, of which the newer is greater; () for none."""
    parts = start.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
