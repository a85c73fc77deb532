"""`tumen watch | resize`: see what breaks in a launched training and mend it; give it another number of ranks."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import typer

from tumen.cli.board import Board
from tumen.cli.options import RUN, TIER
from tumen.cluster import WATCH_FILE
from tumen.cluster.engines import ClusterEngine, connect
from tumen.cluster.watcher import format_row, request_resize, watch_job
from tumen.core.errors import EngineError, TrainError
from tumen.core.lock import alone
from tumen.pipeline.folder import asked, stage_of
from tumen.pipeline.training.guard import gave_up, is_watched
from tumen.pipeline.training.jobs import FOLDER, chosen, job_of, jobs, one_of
from tumen.pipeline.training.tier import train_here


def watch(
    run: Path = RUN,
    tier: str = TIER,
    address: str = typer.Option(
        "127.0.0.1",
        "--address",
        help="Of this machine, as the nodes reach it: agents send their reports there.",
    ),
) -> None:
    """See every fault of a launched training, name it, mend it, write it down in RUN/jobs/TIER/watch.jsonl. Ends with the job.

    On the local engine it launches what is not running. Killed and started again, it goes on.
    """
    recipe, where = asked(run)
    engine = connect(recipe.fleet.engine, recipe.fleet)
    begun = list(jobs(recipe, where))
    if not isinstance(engine, ClusterEngine) and (
        not begun or engine.status(str(where / FOLDER / (tier or begun[-1]))).ended
    ):
        stage = chosen(recipe, where, tier, dry_run=False)
        with alone(where):
            print(train_here(recipe, stage, where, Board()))
        return
    tier = one_of(recipe, where, tier)
    job = job_of(recipe, stage_of(recipe, tier), where)
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that the agents learn that they are alone
    code = watch_job(
        engine, job, address, where / "events.jsonl", lambda row: print(format_row(row), flush=True)
    )
    if code:
        raise TrainError(
            f"{tier}: {gave_up(job) or f'ended with exit code {code}'} (log: {job.folder / 'log'})"
        )


def resize(
    run: Path = RUN,
    ranks: int = typer.Argument(..., min=1, help="How many ranks the training shall have."),
    tier: str = TIER,
) -> None:
    """Give a watched training more ranks, or fewer: it takes a checkpoint and goes on from it, every sample once."""
    recipe, where = asked(run)
    tier = one_of(recipe, where, tier)
    stage, engine = stage_of(recipe, tier), connect(recipe.fleet.engine, recipe.fleet)
    job = job_of(recipe, stage, where)
    assert stage.settings is not None
    stage.settings.train.mesh.over(ranks, stage.settings.train.batch_size)
    if (status := engine.status(str(job.folder))).ended:
        raise EngineError(
            f"{tier} is {status.state}; only a training that runs can have another number of ranks"
        )
    if not is_watched(job):
        raise EngineError(
            f"nobody watches {tier}; `tumen watch {where}` brings about what you wish"
        )
    request_resize(job.folder, ranks)
    print(f"{tier}: {ranks} ranks are wished; {job.folder / WATCH_FILE} says when they are there")
