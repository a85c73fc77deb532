"""Processes that must not outlive the one that started them, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PRCTL = getattr(
    ctypes.CDLL(None), "prctl", None
)  # found now: between fork and exec it is too late to look for it


def die_with_parent(parent: int | None = None) -> None:
    """Linux: the kernel kills this process when its starter dies, also by kill -9. Other systems: nothing happens.

    Args:
        parent: pid of the starter; if it is gone by now, this process ends at once.
    """
    if PRCTL is None:
        return
    PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
