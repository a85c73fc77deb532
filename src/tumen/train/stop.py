"""Stop on request: on SIGTERM a run finishes its step, writes a checkpoint and exits with code 0.

A rank that got the signal adds it to its loss, which is summed over all ranks anyway. So all ranks
know it in the same step, at no cost.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """Whether this run should end after its step.

    Attributes:
        asked: this rank got SIGTERM.
        agreed: some rank did, and all ranks know.
    """

    asked: bool = False
    agreed: bool = False

    @contextmanager
    def by_signal(self) -> Iterator[None]:
        """Take SIGTERM as a request instead of dying. Only the main thread can receive signals."""
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
