"""A stop that is asked for: on SIGTERM a run finishes its step, writes a checkpoint and ends, with exit code 0.

A rank that was told says so beside its loss, which is summed over all ranks anyway: all know it in the same step, at no cost.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """`asked`: this rank was told. `agreed`: one was, and all know."""

    asked: bool = False
    agreed: bool = False

    @contextmanager
    def by_signal(self) -> Iterator[None]:
        """Inside, SIGTERM asks instead of killing; only a process's main thread is told of signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
