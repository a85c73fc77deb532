"""The watcher of a training on this machine, a process beside the one that started it."""

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

END_SECONDS = 10.0  # for a watcher to notice that its job is over


class WatcherProcess:
    """`tumen watch` for one tier; restarted when it is killed, and killed with this process."""

    def __init__(self, run: Path, tier: str, job: JobSpec) -> None:
        self.command = [sys.executable, "-m", "tumen", "watch", str(run), "--tier", tier]
        self.log = job.folder / "watch.log"
        self.tail = Tail(job.folder / WATCH_FILE)
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

    def new_rows(self) -> list[dict[str, Any]]:
        """Return what it has written since the last call; restart it if a signal killed it."""
        code = self.process.poll()
        if code is not None and code < 0:
            self.process = self._start()
        return self.tail.new()

    def stop(self) -> None:
        """Wait until it has seen the end of its job; terminate it if that takes too long."""
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait()


@contextmanager
def watched(run: Path, tier: str, job: JobSpec, needed: bool) -> Iterator[WatcherProcess | None]:
    """Run a watcher beside a job while the block runs, if one is needed."""
    if not needed:
        yield None
        return
    watcher = WatcherProcess(run, tier, job)
    try:
        yield watcher
    finally:
        watcher.stop()


def is_watched(job: JobSpec) -> bool:
    """Return whether a watcher is running for a job."""
    states = [row["state"] for row in read(job.folder / WATCH_FILE, "watch")]
    return bool(states) and states[-1] != "ended"


def gave_up(job: JobSpec) -> str:
    """Return why the watcher gave a job up, or "" if it did not."""
    decisions = list(read(job.folder / WATCH_FILE, "decided"))
    if decisions and decisions[-1]["action"] == "give_up":
        return str(decisions[-1]["why"])
    return ""
