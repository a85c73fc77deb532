"""The watcher process beside a local training of several ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tumen.cluster import WATCH_FILE
from tumen.cluster.engines import JobSpec
from tumen.core import lifetime
from tumen.core.events import Tail, read


def is_watched(job: JobSpec) -> bool:
    """Whether somebody watches a job."""
    states = [row["state"] for row in read(job.folder / WATCH_FILE, "watch")]
    return bool(states) and states[-1] != "ended"


def gave_up(job: JobSpec) -> str:
    """Why a watcher gave a job up, "" if it did not."""
    rows = [row for row in read(job.folder / WATCH_FILE) if row["event"] in ("decided", "watch")]
    for row in reversed(rows):
        if row["event"] == "decided":
            return str(row["why"]) if row["action"] == "give_up" else ""
    return ""


LAST_SECONDS = 10.0  # for a watcher to see that its job is over


class Guard:
    """A watcher as a process beside this one, started again when it is killed; it dies with this process."""

    def __init__(self, where: Path, tier: str, job: JobSpec) -> None:
        self.command = [sys.executable, "-m", "tumen", "watch", str(where), "--tier", tier]
        self.log, self.tail = job.folder / "watch.log", Tail(job.folder / WATCH_FILE)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        parent = os.getpid()
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: lifetime.die_with_parent(parent),
            )

    def look(self) -> list[dict[str, Any]]:
        """What it wrote down since the last look."""
        code = self.process.poll()
        if code is not None and code < 0:
            self.process = self._start()
        return self.tail.new()

    def stop(self) -> None:
        """Let it end; the job is over."""
        try:
            self.process.wait(LAST_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait()


@contextmanager
def guarded(where: Path, tier: str, job: JobSpec, needed: bool) -> Iterator[Guard | None]:
    """A watcher around a job that runs, where one is needed."""
    guard = Guard(where, tier, job) if needed else None
    try:
        yield guard
    finally:
        if guard:
            guard.stop()
