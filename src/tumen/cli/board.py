"""Progress on the terminal: a live bar, or a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

QUIET_SECONDS = 15.0  # without a terminal: one line of progress this often


class Board:
    """Progress: a live bar on a terminal, a line now and then elsewhere."""

    def __init__(self, stderr: bool = False) -> None:
        self.console = Console(highlight=False, stderr=stderr)
        self.live = self.console.is_terminal
        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(30),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self.progress = Progress(*columns, console=self.console, transient=True)

    def __enter__(self) -> Board:
        if self.live:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.progress.stop()

    def line(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, soft_wrap=True)

    @contextmanager
    def task(self, name: str) -> Iterator[Callable[..., None]]:
        """One stage at work; yields update(step, steps, text)."""
        task = self.progress.add_task(name, total=None, text="")
        last = time.monotonic()

        def update(step: int, steps: int, text: str) -> None:
            nonlocal last
            self.progress.update(task, completed=step, total=steps, text=text)
            if not self.live and time.monotonic() - last > QUIET_SECONDS:
                last = time.monotonic()
                self.line(f"{name:<24} step {step} of {steps}, {text}")

        try:
            yield update
        finally:
            self.progress.remove_task(task)
