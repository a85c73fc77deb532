"""The stage that trains a tier: as a job on the recipe's engine, followed until it ends."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.cluster.engines import ClusterEngine, Engine, JobSpec, connect
from tumen.cluster.watcher import announce_watcher, format_row
from tumen.core import units
from tumen.core.artifact import Manifest, verify
from tumen.core.errors import TrainError
from tumen.core.events import read
from tumen.core.extras import require
from tumen.pipeline.stage import Stage, Update, Work
from tumen.pipeline.training.tier_job import cause, training_job
from tumen.pipeline.training.watcher_process import WatcherProcess, gave_up, watched
from tumen.recipe import Fleet, Tier, Train

LOCAL_POLL_SECONDS = 0.25
CLUSTER_POLL_SECONDS = 5.0  # a cluster's controller serves many users
TAIL_BYTES = 4096  # of events.jsonl hold the newest steps
# Fields of a train section that leave the weights as they are: how often and where they are saved,
# when a training gives up, and over how many ranks it is spread.
UNDECISIVE = ("checkpoint_every", "keep", "async_checkpoint", "spike", "mesh")


@dataclass(frozen=True)
class TrainingStage(Stage):
    """A tier's training. `tumen train` does the work in each rank, see learn.py.

    Attributes:
        tier: its section of the recipe.
        seed: of fresh weights and of the order of the data.
        fleet: where it runs.
        recipe_name: part of the job's name.
        start_digest: of the weights it starts from, "" for fresh ones.
    """

    kind = "checkpoint"
    maker = 3
    tier: Tier
    seed: int
    fleet: Fleet
    recipe_name: str
    start_digest: str = ""

    def settings(self) -> Any:
        """Return what decides the weights."""
        tier = self.tier
        settings: dict[str, Any] = {
            "shape": tier.shape,
            "train": decisive(tier.train),
            "distil": tier.distil,
            "seed": self.seed,
        }
        if tier.prune:
            settings["prune"] = tier.prune
        if tier.init_from:
            settings["start"] = self.start_digest
            if isinstance(tier.init_from.layers, tuple):  # a number of layers is in the shape
                settings["layers"] = tier.init_from.layers
            if tier.init_from.tune == "lora":
                settings["lora"] = tier.init_from.model_dump(exclude={"path", "merge"})
        return settings

    def job(self, run: Path) -> JobSpec:
        """Return the job that trains it.

        Raises:
            PlanError: the mesh does not fit the fleet.
        """
        ranks = self.tier.train.mesh.ranks
        return training_job(run, self.recipe_name, self.name, self.fleet, ranks)

    def make(self, work: Work) -> Manifest:
        """Train the tier through its engine.

        On a cluster, a job of this tier that is still alive is followed.

        Raises:
            TrainError: it ended without a checkpoint; says why.
        """
        engine = connect(self.fleet.engine, self.fleet)
        job = self.job(work.run)
        _train(self.name, engine, job, work)
        return verify(work.run / self.name, "checkpoint")


@dataclass(frozen=True)
class QatStage(TrainingStage):
    """Quantization-aware training: train on with weights rounded to their quantization types."""

    def settings(self) -> Any:
        """Return what decides the weights; the trained tier is a parent."""
        return {
            "train": decisive(self.tier.train),
            "teach": self.tier.quantize.teach,
            "seed": self.seed,
        }


def decisive(train: Train) -> dict[str, Any]:
    """Return the fields of a train section that decide the weights."""
    return {name: value for name, value in train.model_dump().items() if name not in UNDECISIVE}


def _train(name: str, engine: Engine, job: JobSpec, work: Work) -> None:
    """Submit the job unless it is alive already, and follow it.

    It is cancelled when this process stops following.

    Raises:
        MissingExtra: it would train on this machine, where torch is not installed.
        TrainError: it ended without success.
    """
    on_cluster = isinstance(engine, ClusterEngine)
    job_id = str(job.folder)
    alive = on_cluster and not engine.status(job_id).ended
    since = 0.0 if alive else time.time()
    needs_watcher = not on_cluster and job.nodes * job.ranks_per_node > 1
    if not on_cluster:
        require("torch", "training")
    if not alive:
        shutil.rmtree(job.folder, ignore_errors=True)
        if needs_watcher:
            announce_watcher(job.folder)
        engine.submit(job)
    poll_seconds = CLUSTER_POLL_SECONDS if on_cluster else LOCAL_POLL_SECONDS
    with watched(work.run, name, job, needs_watcher) as watcher:
        try:
            while not (status := engine.status(job_id)).ended:
                _show_newest_step(work.run / name, since, work.update)
                _show_faults(name, watcher, work)
                time.sleep(poll_seconds)
        finally:
            engine.cancel(job_id)
    if status.state != "done":
        why = gave_up(job) or cause(engine.logs(job_id), status)
        raise TrainError(f"{name}: {why} (log: {job.folder / 'log'})")


def _newest_step(events: Path, since: float) -> dict[str, Any]:
    """Return the newest row about a step or about stored logits; {} if there is none."""
    newest: dict[str, Any] = {}
    for row in read(events, tail_bytes=TAIL_BYTES):
        if row.get("event") in ("step", "logits") and row["time"] >= since:
            newest = row
    return newest


def _show_newest_step(folder: Path, since: float, update: Update) -> None:
    """Show the newest step that a tier has reported since a time.

    Args:
        folder: of its artifact; its events lie beside it, and name the tier like the folder.
        since: seconds since 1970.
    """
    newest = _newest_step(folder.with_name("events.jsonl"), since)
    if not newest:
        return
    if newest["event"] == "logits":
        update(newest["step"], newest["steps"], f"logits of {newest['tier']}")
    elif newest["tier"] == folder.name:
        left = units.show_seconds(newest["seconds_left"])
        speed = f"{newest['tokens_per_second']:,} tokens/s"
        update(newest["step"], newest["steps"], f"loss {newest['loss']:.3f}, {speed}, {left} left")


def _show_faults(name: str, watcher: WatcherProcess | None, work: Work) -> None:
    """Show what the watcher has detected and decided."""
    for row in watcher.new_rows() if watcher else ():
        if row["event"] != "watch":  # rows about the watcher itself
            work.progress.line(f"{name}: {format_row(row)}")
