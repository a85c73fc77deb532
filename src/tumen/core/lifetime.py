"""Processes of this machine: end together with the one that started them, and facts from /proc."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Looked up now: between fork and exec it is too late.
PRCTL = getattr(ctypes.CDLL(None), "prctl", None)


def die_with_parent(parent: int | None = None) -> None:
    """Let the kernel kill this process when its parent dies, by kill -9 too. Only on Linux.

    Args:
        parent: process id of the parent; if it is gone already, this process ends at once.
    """
    if PRCTL is None:
        return
    PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat (proc(5)) from the state on.

    Index 0 is the state, 11 and 12 are CPU ticks in user and kernel mode, 19 is the start time.
    The list is empty where there is no such process or no /proc.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        # The name before it is in parentheses and may itself contain some.
        return text.rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []
