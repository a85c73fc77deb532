"""Train a tier of a run through its engine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tumen.cluster.engines import ClusterEngine, connect
from tumen.cluster.watcher import announce_watcher, format_row
from tumen.core import units
from tumen.core.artifact import Manifest, verify
from tumen.core.errors import PlanError, TrainError
from tumen.core.events import Events, read
from tumen.pipeline import stages as chain
from tumen.pipeline.progress import Progress
from tumen.pipeline.training.guard import gave_up, guarded
from tumen.pipeline.training.jobs import cause, job_of
from tumen.recipe import Recipe, mesh_of_plan, read_plan

POLL_SECONDS = 0.25


CLUSTER_POLL_SECONDS = 5.0  # a controller answers many people


def planned(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with a plan's layout as the mesh of the tier it was made for.

    Raises:
        PlanError: no plan, or one for another tier or batch.
    """
    plan = read_plan(path)
    name = str(plan.get("name", "")).rpartition("/")[2]
    if name not in recipe.family:
        raise PlanError(
            f"{path}: planned for {plan.get('name')!r}, no tier of {recipe.name}; it has {', '.join(recipe.family)}"
        )
    tier = recipe.family[name]
    mesh = mesh_of_plan(plan, str(path), tier.train.batch_size, tier.train.seq_len)
    train = tier.train.model_copy(update={"mesh": mesh})
    return recipe.model_copy(
        update={"family": {**recipe.family, name: tier.model_copy(update={"train": train})}}
    )


def train_tier(
    recipe: Recipe, stage: chain.Stage, where: Path, events: Events, progress: Progress
) -> Manifest:
    """Train a tier through the engine and follow its events. A cluster's job of this tier that lives already is followed.

    Raises:
        TrainError: it ended without a checkpoint; says why.
    """
    engine, job = connect(recipe.fleet.engine, recipe.fleet), job_of(recipe, stage, where)
    lives = isinstance(engine, ClusterEngine) and not engine.status(str(job.folder)).ended
    since = 0.0 if lives else time.time()
    watched = not isinstance(engine, ClusterEngine) and job.nodes * job.ranks_per_node > 1
    if not lives:
        shutil.rmtree(job.folder, ignore_errors=True)
        if watched:
            announce_watcher(job.folder)
        engine.submit(job)
    job_id, said = str(job.folder), where / stage.tier
    with progress.task(stage.name) as update, guarded(where, stage.tier, job, watched) as guard:
        try:
            while not (status := engine.status(job_id)).ended:
                _follow(said.with_name("events.jsonl"), since, said.name, update)
                for row in guard.look() if guard else ():
                    if row["event"] != "watch":
                        progress.line(f"{stage.name}: {format_row(row)}")
                time.sleep(
                    CLUSTER_POLL_SECONDS if isinstance(engine, ClusterEngine) else POLL_SECONDS
                )
        finally:
            engine.cancel(job_id)
    if status.state != "done":
        raise TrainError(
            f"{stage.tier}: {gave_up(job) or cause(engine.logs(job_id), status)} (log: {job.folder / 'log'})"
        )
    return verify(where / stage.name, "checkpoint")


def _follow(path: Path, since: float, tier: str, update: Callable[..., None]) -> None:
    """Show the newest step of a tier."""
    newest: dict[str, Any] | None = None
    for row in read(path, tail_bytes=4096):
        if row.get("event") in ("step", "logits") and row["time"] >= since:
            newest = row
    if newest and newest["event"] == "step" and newest["tier"] == tier:
        left = units.show_seconds(newest["seconds_left"])
        text = f"loss {newest['loss']:.3f}, {newest['tokens_per_second']:,} tokens/s, {left} left"
        update(newest["step"], newest["steps"], text)
    elif newest and newest["event"] == "logits":
        update(newest["step"], newest["steps"], f"logits of {newest['tier']}")


def train_here(recipe: Recipe, stage: chain.Stage, where: Path, progress: Progress) -> str:
    """Train a tier on the local engine and wait for it; more than one rank are watched. The run's lock is the caller's."""
    with progress:
        manifest = train_tier(recipe, stage, where, Events(where / "events.jsonl"), progress)
    return f"{stage.name}: trained, {manifest.digest}"
