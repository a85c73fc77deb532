"""A request for another number of ranks, as a file in the job's folder."""

from __future__ import annotations

import json
from pathlib import Path

from tumen.cluster.job_files import RESIZE_FILE
from tumen.core.artifact import write_text


def request_resize(folder: Path, ranks: int) -> None:
    """Request a number of ranks from the watcher of a job.

    Args:
        folder: of the job.
        ranks: number of ranks.

    Raises:
        DiskError: the job's folder cannot be written.
    """
    write_text(folder / RESIZE_FILE, json.dumps({"ranks": ranks}))


def requested_ranks(folder: Path) -> int | None:
    """Return the requested number of ranks, None where there is no valid request."""
    # Any program may have written it.
    try:
        ranks = json.loads((folder / RESIZE_FILE).read_text("utf-8"))["ranks"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ranks if isinstance(ranks, int) and ranks > 0 else None
