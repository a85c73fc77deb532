"""Fencing: a stale incarnation of a job must not write to a run that a newer one owns.

An engine may start a job again while the processes of an earlier start are still alive, on a node
that it lost. So it numbers the starts of a job, its epochs (12.1 and 12.2 are the first and second
of job 12), and writes the newest into the job's folder before anything runs. Agents and ranks
compare it with their own epoch.
"""

from __future__ import annotations

import os
from pathlib import Path

from tumen.core.errors import TrainError

EPOCH_FILE = "epoch"  # in a job's folder
# Environment of a rank: its epoch, and the folder of its job.
EPOCH_ENV = "TUMEN_EPOCH"
JOB_ENV = "TUMEN_JOB"


def newer_epoch(folder: Path, own: str) -> str:
    """Return the epoch that owns a job's folder if it is newer than `own`, else "".

    It is "" too where there is no epoch, in the folder or of our own.
    """
    try:
        found = (folder / EPOCH_FILE).read_text("utf-8").strip()
    except OSError:
        return ""
    if not own:
        return ""
    return found if parse_epoch(found) > parse_epoch(own) else ""


def reject_stale(folder: Path | None = None, own: str = "") -> None:
    """Stop a stale process before it writes something that others will read.

    Args:
        folder: of the job; default: the folder and epoch of this rank's environment.
        own: epoch of this process.

    Raises:
        TrainError: a newer epoch owns the run.
    """
    if folder is None:
        # A process that no engine started has neither, and is never stale.
        folder = Path(os.environ.get(JOB_ENV, ""))
        own = os.environ.get(EPOCH_ENV, "")
    newer = newer_epoch(folder, own)
    if newer:
        raise TrainError(
            f"epoch {own} of this job is stale: the engine started epoch {newer}, "
            "which owns the run now"
        )


def parse_epoch(text: str) -> tuple[int, ...]:
    """Return an epoch as numbers; a newer one compares as greater. () for any other text."""
    parts = text.split(".")
    if not all(part.isdecimal() for part in parts):
        return ()
    return tuple(int(part) for part in parts)
