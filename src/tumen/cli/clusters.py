"""Cluster: trainings on the engine that a team has."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from tumen.cli.board import Board
from tumen.cli.options import CHANGES, ENGINE, JSON, PLAN, RUN, TIER
from tumen.cluster import WATCH_FILE
from tumen.cluster.engines import ClusterEngine, JobStatus, Node, fold_hosts
from tumen.cluster.watcher import format_row, status_lines, watch_job
from tumen.core.errors import EngineError, InputError, TrainError
from tumen.pipeline import Run, engine_of, recipe_and_run, with_plan
from tumen.pipeline.jobs import (
    Launch,
    LaunchedJob,
    engine_name,
    find_job,
    launched_jobs,
    must_launch,
    prepare_launch,
    tier_progress,
)
from tumen.pipeline.training import gave_up

SIGTERM_EXIT = 143  # 128 + SIGTERM, as a shell reports it


def launch(
    run: Path = RUN,
    on: str = ENGINE,
    tier: str = typer.Option(
        None, "--tier", help="Tier of the family; default: the first that is not trained."
    ),
    plan: Path = PLAN,
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Print exactly what would be submitted and stop."
    ),
    changes: list[str] = CHANGES,
) -> None:
    """Start a tier's training on an engine.

    A cluster's job outlives this command; a training on this machine is waited for.
    """
    recipe, folder = recipe_and_run(run, on, changes)
    if plan:
        recipe = with_plan(recipe, plan)
    wanted = prepare_launch(Run(recipe, folder), tier, must_be_ready=not dry_run)
    if dry_run:
        print(wanted.text(), end="")
        return
    with wanted.run.locked():
        wanted.reject_second_job()
        wanted.run.write_recipe()
        # A training of this machine ends with this process, so it is waited for.
        if not wanted.on_cluster:
            _train_here(wanted)
            return
        wanted.submit()
    job = wanted.job
    where = f"submitted to {recipe.fleet.engine} as {engine_name(job.folder)}"
    size = f"{job.nodes} nodes x {job.ranks_per_node} ranks"
    print(f"{wanted.stage.name}: {where}, {size}; `tumen status {folder}` shows its state")


def _train_here(wanted: Launch) -> None:
    """Train a tier on this machine and wait for it."""
    manifest = wanted.train(Board())
    print(f"{wanted.stage.name}: trained, {manifest.digest}")


def status(run: Path = RUN, as_json: bool = JSON) -> None:
    """Show the state of a run's jobs.

    waiting, running, silent (the engine does not answer), done, failed, cancelled or lost.
    """
    recipe, folder = recipe_and_run(run)
    jobs = launched_jobs(Run(recipe, folder))
    states = {job.tier: job.status() for job in jobs}
    if as_json:
        found = {tier: asdict(state) for tier, state in states.items()}
        print(json.dumps(found, indent=1))
        return
    if not jobs:
        print(f"{folder}: nothing was launched; `tumen launch {run}` does it")
    for job in jobs:
        _print_state(job, states[job.tier])


def _print_state(job: LaunchedJob, state: JobStatus) -> None:
    """Print a job's headline, and what its watcher knows below it."""
    print(f"{job.tier}: {_headline(job, state)}")
    for line in status_lines(job.folder, state.ended):
        print(f"  {line}")


def _headline(job: LaunchedJob, state: JobStatus) -> str:
    """Return what the engine and the training report of a job, in one line.

    Args:
        job: that was launched.
        state: what its engine says of it.
    """
    text: str = state.state
    if state.exit_code:
        text += f" with exit code {state.exit_code}"
    # Each of these may be empty.
    more = [state.reason, engine_name(job.folder), tier_progress(job.run.folder, job.tier)]
    for part in more:
        if part:
            text += f", {part}"
    return text


def logs(run: Path = RUN, tier: str = TIER) -> None:
    """Print the output of a job."""
    print(_job(run, tier).logs(), end="")


def cancel(run: Path = RUN, tier: str = TIER) -> None:
    """Stop a job and everything it started.

    Its checkpoints stay: launch it again to resume.
    """
    job = _job(run, tier)
    before = job.cancel()
    result = "cancelled"
    if before.ended:
        result = f"was {before.state} already"
    print(f"{job.tier}: {result}")


def resize(
    run: Path = RUN,
    ranks: int = typer.Argument(..., min=1, help="New number of ranks."),
    tier: str = TIER,
) -> None:
    """Give a watched training more or fewer ranks.

    It writes a checkpoint and resumes from it; every sample is used once.
    """
    job = _job(run, tier)
    job.resize(ranks)
    print(f"{job.tier}: resize to {ranks} ranks requested; follow {job.folder / WATCH_FILE}")


def _job(run: Path, tier: str | None) -> LaunchedJob:
    """Return the launched job of a tier.

    Args:
        run: folder of a run, or a recipe.
        tier: None for that of the newest job.

    Raises:
        InputError: the tier was not launched.
    """
    recipe, folder = recipe_and_run(run)
    return find_job(Run(recipe, folder), tier)


def watch(
    run: Path = RUN,
    tier: str = TIER,
    address: str = typer.Option(
        "127.0.0.1",
        "--address",
        help="Of this machine, as the nodes reach it: agents send their reports there.",
    ),
) -> None:
    """Monitor a training: detect faults, recover, and log both to RUN/jobs/TIER/watch.jsonl.

    On this machine it first launches a training that is not running. It ends with the job; rerun
    it to resume.
    """
    recipe, folder = recipe_and_run(run)
    this = Run(recipe, folder)
    if must_launch(this, tier):
        wanted = prepare_launch(this, tier)
        with this.locked():
            _train_here(wanted)
        return
    job = find_job(this, tier)
    spec = job.spec()
    signal.signal(signal.SIGTERM, _exit)  # a normal exit, so that the agents get notice
    events = folder / "events.jsonl"
    code = watch_job(job.engine, spec, address, events, _print_row)
    if code:
        # The watcher's own words where it gave up; else the log says more.
        why = gave_up(spec) or f"ended with exit code {code}"
        raise TrainError(f"{job.tier}: {why} (log: {job.folder / 'log'})")


def _exit(number: int, frame: FrameType | None) -> None:
    """End this process on SIGTERM."""
    sys.exit(SIGTERM_EXIT)


def _print_row(row: dict[str, Any]) -> None:
    """Print a row of watch.jsonl at once, also into a pipe."""
    print(format_row(row), flush=True)


def nodes(
    run: Path = typer.Argument(
        None, help="Folder of a run, or a recipe, for its [fleet]; needed without --on."
    ),
    on: str = ENGINE,
    as_json: bool = JSON,
) -> None:
    """List the engine's nodes: their accelerators, and whether they take work.

    Nodes that are alike share a line.
    """
    found = engine_of(run, on).nodes()
    if as_json:
        print(json.dumps([asdict(node) for node in found], indent=1))
        return
    for line in node_lines(found):
        print(line)
    ready = [node for node in found if node.ready]
    accelerators = sum(node.accelerators for node in ready)
    print(f"{len(ready)} of {len(found)} nodes ready, {accelerators} accelerators")


def node_lines(found: Iterable[Node]) -> Iterator[str]:
    """Yield a line for each group of nodes with the same accelerators and the same reason.

    Ready ones come first.
    """
    groups: dict[tuple[bool, int, str], list[str]] = {}
    for node in found:
        is_away = not node.ready  # False sorts before True
        group = (is_away, node.accelerators, node.reason)
        groups.setdefault(group, []).append(node.name)
    for (is_away, accelerators, reason), names in sorted(groups.items()):
        state = reason if is_away else "ready"
        yield f"{fold_hosts(names):<24} {accelerators:>3} accelerators  {state}"


def drain(
    node: str = typer.Argument(..., help="Name of the node."),
    why: str = typer.Option(..., "--why", help="Reason shown on the drained node."),
    run: Path = typer.Option(
        None, "--run", help="Folder of a run, or a recipe, for its [fleet]; needed without --on."
    ),
    on: str = ENGINE,
) -> None:
    """Stop giving a node new work; its running jobs continue."""
    engine = engine_of(run, on)
    if not isinstance(engine, ClusterEngine):
        raise EngineError(
            f"{node}: this engine runs on this machine only; there is no node to drain"
        )
    if not why.strip():
        raise InputError("--why is empty; name the fault of the node")
    # On one line: operators read it in `sinfo -R`.
    engine.drain(node, " ".join(why.split()))
    print(f"{node}: takes no new work ({why})")
