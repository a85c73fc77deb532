"""One process at a time: a lock that the kernel frees however its holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tumen.core.errors import RunnerBusy, disk

LOCK = ".lock"


@contextmanager
def alone(where: Path, on: str = "this run") -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is not there.

    Args:
        on: what the other process works on, for its line.

    Raises:
        RunnerBusy: another process holds it.
        DiskError: the disk refuses.
    """
    with disk(where):
        where.mkdir(parents=True, exist_ok=True)
        handle = open(where / LOCK, "a+")  # noqa: SIM115  held until the block ends
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise RunnerBusy(
                f"{where}: process {handle.read().strip() or '?'} works on {on}; wait for it, or stop it"
            ) from None
        with suppress(
            OSError
        ):  # a courtesy to whom it keeps out; a full disk is told by what needs room
            os.ftruncate(handle.fileno(), 0)
            os.write(handle.fileno(), str(os.getpid()).encode())
        yield
