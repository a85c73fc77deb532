"""Which start of a job holds a run: what an older one left alive, on a node its engine lost, must not write beside the new one.

An engine that may start a job again numbers its starts (12.1 and 12.2 are job 12's first and second) and writes the number into the
job's folder before it starts anything. Agents and ranks compare it with their own.
"""

from __future__ import annotations

import os
from pathlib import Path

from tumen.core.errors import TrainError

START_FILE, START, JOB = (
    "start",
    "TUMEN_START",
    "TUMEN_JOB",
)  # of a job's folder; environment of a rank: its start, the folder


def newer(folder: Path, mine: str) -> str:
    """The start that holds a job's folder if it is newer than `mine`, else "" (also when nobody wrote one)."""
    try:
        said = (folder / START_FILE).read_text("utf-8").strip()
    except OSError:
        return ""
    return said if mine and number(said) > number(mine) else ""


def refuse_old(folder: Path | None = None, mine: str = "") -> None:
    """Before something is written that others will read. Default: the job and start of this rank's environment.

    Raises:
        TrainError: a newer start holds the run.
    """
    folder, mine = (
        (folder, mine) if folder else (Path(os.environ.get(JOB, "")), os.environ.get(START, ""))
    )
    if other := newer(folder, mine):
        raise TrainError(
            f"start {mine} of this job is over: its engine began start {other} elsewhere, which holds the run now"
        )


def number(start: str) -> tuple[int, ...]:
    """A start as numbers, of which the newer is greater; () for none."""
    parts = start.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
