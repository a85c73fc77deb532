"""`tumen watch | resize`: see what breaks in a launched training and mend it; give it another number of ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from tumen.cli import chain
from tumen.cli import launch as launching
from tumen.cli.job import FOLDER, job_of
from tumen.cluster import WATCH_FILE
from tumen.cluster.engines import Cluster, Job, connect
from tumen.cluster.watcher import expect, shown, watching, wish
from tumen.core import lifetime
from tumen.core.errors import EngineError, InputError, TrainError
from tumen.core.events import Tail, read
from tumen.core.lock import alone
from tumen.recipe import Recipe


def watch(
    run: Path = launching.RUN,
    tier: str = launching.TIER,
    address: str = typer.Option(
        "127.0.0.1",
        "--address",
        help="Of this machine, as the nodes reach it: agents send their reports there.",
    ),
) -> None:
    """See every fault of a launched training, name it, mend it, write it down in RUN/jobs/TIER/watch.jsonl. Ends with the job.

    On the local engine it launches what is not running. Killed and started again, it goes on.
    """
    recipe, where = launching.asked(run)
    engine = connect(recipe.fleet.engine, recipe.fleet)
    begun = list(launching.jobs(recipe, where))
    if not isinstance(engine, Cluster) and (
        not begun or engine.status(str(where / FOLDER / (tier or begun[-1]))).ended
    ):
        stage = launching.chosen(recipe, where, tier, dry_run=False)
        with alone(where):
            launching.train_here(recipe, stage, where)
        return
    tier = launching.one_of(recipe, where, tier)
    job = job_of(recipe, stage_of(recipe, tier), where)
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that the agents learn that they are alone
    code = watching(
        engine, job, address, where / "events.jsonl", lambda row: print(shown(row), flush=True)
    )
    if code:
        raise TrainError(
            f"{tier}: {gave_up(job) or f'ended with exit code {code}'} (log: {job.folder / 'log'})"
        )


def resize(
    run: Path = launching.RUN,
    ranks: int = typer.Argument(..., min=1, help="How many ranks the training shall have."),
    tier: str = launching.TIER,
) -> None:
    """Give a watched training more ranks, or fewer: it takes a checkpoint and goes on from it, every sample once."""
    recipe, where = launching.asked(run)
    tier = launching.one_of(recipe, where, tier)
    stage, engine = stage_of(recipe, tier), connect(recipe.fleet.engine, recipe.fleet)
    job = job_of(recipe, stage, where)
    assert stage.settings is not None
    stage.settings.train.mesh.over(ranks, stage.settings.train.rows)
    if (status := engine.status(str(job.folder))).ended:
        raise EngineError(
            f"{tier} is {status.state}; only a training that runs can have another number of ranks"
        )
    if not is_watched(job):
        raise EngineError(
            f"nobody watches {tier}; `tumen watch {where}` brings about what you wish"
        )
    wish(job.folder, ranks)
    print(f"{tier}: {ranks} ranks are wished; {job.folder / WATCH_FILE} says when they are there")


def stage_of(recipe: Recipe, tier: str) -> chain.Stage:
    """The stage that trains a tier.

    Raises:
        InputError: there is none.
    """
    for stage in chain.stages(recipe):
        if stage.name == tier and stage.kind == "checkpoint":
            return stage
    raise InputError(f"{tier!r} is no tier of {recipe.name}; it has {', '.join(recipe.family)}")


def is_watched(job: Job) -> bool:
    """Whether somebody watches a job."""
    states = [row["state"] for row in read(job.folder / WATCH_FILE, "watch")]
    return bool(states) and states[-1] != "ended"


def gave_up(job: Job) -> str:
    """Why a watcher gave a job up, "" if it did not."""
    rows = [row for row in read(job.folder / WATCH_FILE) if row["event"] in ("decided", "watch")]
    for row in reversed(rows):
        if row["event"] == "decided":
            return str(row["why"]) if row["action"] == "give_up" else ""
    return ""


LAST_SECONDS = 10.0  # for a watcher to see that its job is over


class Guard:
    """A watcher as a process beside this one, started again when it is killed; it dies with this process."""

    def __init__(self, where: Path, tier: str, job: Job) -> None:
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
def guarded(where: Path, tier: str, job: Job, needed: bool) -> Iterator[Guard | None]:
    """A watcher around a job that runs, where one is needed."""
    guard = Guard(where, tier, job) if needed else None
    try:
        yield guard
    finally:
        if guard:
            guard.stop()


__all__ = ["expect", "gave_up", "guarded", "is_watched", "resize", "watch"]
