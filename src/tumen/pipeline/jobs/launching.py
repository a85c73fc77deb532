"""Launch a tier's training on an engine, and find the jobs of a run again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.cluster.engines import ClusterEngine, Engine, JobSpec, JobStatus, connect, render_job
from tumen.cluster.watcher import request_resize
from tumen.core import units
from tumen.core.artifact import Manifest
from tumen.core.errors import DiskError, EngineError, InputError
from tumen.core.events import read
from tumen.pipeline.lineage import Link, links
from tumen.pipeline.run import Run
from tumen.pipeline.stage import Progress, Work
from tumen.pipeline.stages import find_training, stages
from tumen.pipeline.training.tier import TrainingStage
from tumen.pipeline.training.tier_job import job_folder
from tumen.pipeline.training.watcher_process import is_watched
from tumen.recipe import Recipe

TAIL_BYTES = 65536  # of events.jsonl hold the newest steps of each tier


@dataclass(frozen=True)
class Launch:
    """A tier, its job, and the engine that gets it."""

    run: Run
    stage: TrainingStage
    engine: Engine
    job: JobSpec

    @property
    def on_cluster(self) -> bool:
        """Whether the job outlives the command that launches it."""
        return isinstance(self.engine, ClusterEngine)

    def text(self) -> str:
        """Return exactly what would be submitted."""
        return render_job(self.engine, self.job)

    def train(self, progress: Progress) -> Manifest:
        """Train on the local engine and wait for the end; several ranks are watched.

        The caller holds the run's lock.

        Raises:
            TrainError: it ended without a checkpoint.
        """
        with progress, progress.task(self.stage.name) as update:
            work = Work(self.run.folder, "", self.run.events(), progress, update)
            return self.stage.make(work)

    def submit(self) -> None:
        """Submit the job to a cluster, with an event in the run. The caller holds the run's lock.

        Raises:
            EngineError: the engine refuses.
            DiskError: the event cannot be written; the job is cancelled, as it could write no
                checkpoint either.
        """
        events = self.run.events()
        self.engine.submit(self.job)
        try:
            events.emit(
                "launched",
                tier=self.stage.name,
                engine=self.stage.fleet.engine,
                nodes=self.job.nodes,
                processes=self.job.ranks_per_node,
            )
        except DiskError:
            with suppress(DiskError):
                self.engine.cancel(str(self.job.folder))
            raise

    def reject_second_job(self) -> None:
        """Check that the tier has no job that is alive.

        Raises:
            EngineError: it has one, or the engine does not answer.
        """
        folder = self.job.folder
        if folder.exists():
            status = self.engine.status(str(folder))
        else:
            status = JobStatus("lost")
        if not status.ended:
            raise EngineError(
                f"{folder.name} is {status.state} already as {engine_name(folder)}; "
                f"`tumen cancel {self.run.folder}` stops it"
            )


def prepare_launch(run: Run, tier: str | None, must_be_ready: bool = True) -> Launch:
    """Return the launch of a tier.

    Args:
        run: whose recipe names the engine.
        tier: of the family; default: the first that is not trained.
        must_be_ready: whether the tier's parents must be made; not needed to print the job.

    Raises:
        InputError: there is no such tier, all are trained, or a parent is not made.
        PlanError: the mesh does not fit the fleet.
    """
    stage = _choose(run, tier, must_be_ready)
    fleet = run.recipe.fleet
    return Launch(run, stage, connect(fleet.engine, fleet), stage.job(run.folder))


def _choose(run: Run, tier: str | None, must_be_ready: bool) -> TrainingStage:
    """Return the training stage to launch."""
    check_tier(run.recipe, tier)
    state = {link.stage.name: link for link in links(run.recipe, run.folder)}
    if tier:
        wanted = [tier]
    else:
        wanted = run.recipe.tiers_in_order()
    if must_be_ready:
        wanted = [name for name in wanted if state[name].state != "done"]
    if not wanted:
        raise InputError(f"{run.folder}: {tier or 'every tier'} is trained already")
    stage = state[wanted[0]].stage
    assert isinstance(stage, TrainingStage)  # a tier's name is that of its training
    if must_be_ready:
        _check_parents(run, stage, state)
    return stage


def _check_parents(run: Run, stage: TrainingStage, state: Mapping[str, Link]) -> None:
    """Check that everything a tier is trained from is made.

    Raises:
        InputError: names the first parent that is not, and the command that makes it.
    """
    for parent in stage.parents:
        if state[parent].state == "done":
            continue
        command = f"tumen run RECIPE --run {run.folder} --until {parent}"
        if parent in run.recipe.family:
            command = f"tumen launch {run.folder} --tier {parent}"
        raise InputError(
            f"{stage.name} is trained from {parent}, which is {state[parent].state}; "
            f"`{command}` makes it"
        )


def check_tier(recipe: Recipe, tier: str | None) -> None:
    """Check that a tier that is named is one of the recipe's.

    Raises:
        InputError: names the tiers that it has.
    """
    if tier and tier not in recipe.family:
        tiers = ", ".join(recipe.family)
        raise InputError(f"--tier {tier!r} is not a tier of {recipe.name}; it has {tiers}")


@dataclass(frozen=True)
class LaunchedJob:
    """A tier of a run that has a job, and the engine that has it."""

    run: Run
    tier: str
    engine: Engine

    @property
    def folder(self) -> Path:
        """Folder of the job, which is its id as well."""
        return job_folder(self.run.folder, self.tier)

    def spec(self) -> JobSpec:
        """Return what the engine was asked to start.

        Raises:
            PlanError: the mesh does not fit the fleet.
        """
        return find_training(stages(self.run.recipe), self.tier).job(self.run.folder)

    def status(self) -> JobStatus:
        """Return what the engine knows of the job."""
        return self.engine.status(str(self.folder))

    def logs(self) -> str:
        """Return what the job has printed."""
        return self.engine.logs(str(self.folder))

    def cancel(self) -> JobStatus:
        """Stop the job; return the status it had before."""
        before = self.status()
        self.engine.cancel(str(self.folder))
        return before

    def resize(self, ranks: int) -> None:
        """Ask the watcher of the job for another number of ranks.

        Raises:
            PlanError: the mesh cannot be resized to that.
            EngineError: the job is not running, or no watcher is.
        """
        stage = find_training(stages(self.run.recipe), self.tier)
        train = stage.tier.train
        train.mesh.over(ranks, train.batch_size)
        job = stage.job(self.run.folder)
        status = self.status()
        if status.ended:
            raise EngineError(f"{self.tier} is {status.state}; only a running training is resized")
        if not is_watched(job):
            raise EngineError(
                f"no watcher is running for {self.tier}; "
                f"start `tumen watch {self.run.folder}` to apply the resize"
            )
        request_resize(job.folder, ranks)


def must_launch(run: Run, tier: str | None) -> bool:
    """Return whether a tier's training belongs on this machine and is not running now.

    Args:
        run: whose recipe names the engine.
        tier: of the family; default: the newest job's.
    """
    fleet = run.recipe.fleet
    engine = connect(fleet.engine, fleet)
    if isinstance(engine, ClusterEngine):
        return False
    launched = launched_jobs(run)
    if not launched:
        return True
    return LaunchedJob(run, tier or launched[-1].tier, engine).status().ended


def launched_jobs(run: Run) -> list[LaunchedJob]:
    """Return the jobs of a run, oldest first."""
    fleet = run.recipe.fleet
    engine = connect(fleet.engine, fleet)
    found = [LaunchedJob(run, tier, engine) for tier in run.recipe.family]
    launched = [job for job in found if job.folder.is_dir()]
    return sorted(launched, key=lambda job: job.folder.stat().st_mtime)


def find_job(run: Run, tier: str | None) -> LaunchedJob:
    """Return the job of a tier, or the newest.

    Raises:
        InputError: the tier was not launched.
    """
    launched = launched_jobs(run)
    found = [job for job in launched if tier in (None, job.tier)]
    if not found:
        names = ", ".join(job.tier for job in launched) or "none"
        raise InputError(
            f"{run.folder}: {tier or 'a tier'} was never launched; launched so far: {names}"
        )
    return found[-1]


def engine_name(folder: Path) -> str:
    """Return the engine's name for a job, such as `job 123`, or "" if it has none.

    Args:
        folder: of the job.
    """
    path = folder / "id"
    if path.exists():
        name = path.read_text("utf-8").strip()
    else:
        name = ""
    return f"job {name}" if name else ""


def tier_progress(run: Path, tier: str) -> str:
    """Return the newest step of a tier in one line, "" before the first."""
    last: dict[str, Any] = {}
    for row in read(run / "events.jsonl", "step", tail_bytes=TAIL_BYTES):
        if row.get("tier") == tier:
            last = row
    if not last:
        return ""
    left = units.show_seconds(last["seconds_left"])
    return f"step {last['step']} of {last['steps']}, loss {last['loss']:.3f}, {left} left"
