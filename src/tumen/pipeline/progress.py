"""How a run reports progress: whoever shows it implements this."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Update(Protocol):
    """Report a step of the current task."""

    def __call__(self, step: int, steps: int, text: str) -> None: ...


class Progress(AbstractContextManager["Progress"], Protocol):
    """Where a run reports what it makes."""

    live: bool  # whether somebody looks at a terminal

    def line(self, text: str) -> None:
        """Show a line that stays."""

    def task(self, name: str) -> AbstractContextManager[Update]:
        """Show one stage at work."""
