"""Locks: one process at a time works on a folder. The kernel frees a lock when its holder ends."""

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
        where: the folder.
        on: what the other process works on, for the error.

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
            holder = handle.read().strip() or "?"
            raise RunnerBusy(
                f"{where}: process {holder} works on {on}; wait for it, or stop it"
            ) from None
        # The process id is only for the error above; a full disk must not stop the holder here.
        with suppress(OSError):
            os.ftruncate(handle.fileno(), 0)
            os.write(handle.fileno(), str(os.getpid()).encode())
        yield
