"""Progress on the terminal: a live bar, or a line from time to time where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from tumen.pipeline import Progress, Update

QUIET_SECONDS = 15.0  # without a terminal: seconds between two lines of progress
BAR_COLUMNS = 30


class Board(Progress):
    """Shows the progress of a run."""

    def __init__(self, stderr: bool = False) -> None:
        self.console = Console(highlight=False, stderr=stderr)
        self.live = self.console.is_terminal
        self.bar = Bar(
            TextColumn("{task.description:<24}"),
            BarColumn(BAR_COLUMNS),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            # The bar vanishes; a line about the finished stage stays.
            transient=True,
        )

    def __enter__(self) -> Board:
        if self.live:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.bar.stop()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, soft_wrap=True)

    @contextmanager
    def task(self, name: str) -> Iterator[Update]:
        """Show a stage while the block runs; yields the function that updates it."""
        task = self.bar.add_task(name, total=None, text="")
        last = time.monotonic()  # when a line was printed

        def update(step: int, steps: int, text: str) -> None:
            nonlocal last
            self.bar.update(task, completed=step, total=steps, text=text)
            # A log gets a line now and then, not thousands of them.
            now = time.monotonic()
            if not self.live and now - last > QUIET_SECONDS:
                last = now
                self.line(f"{name:<24} step {step} of {steps}, {text}")

        try:
            yield update
        finally:
            self.bar.remove_task(task)
