"""`tumen launch | logs | cancel | drain`: a tier's training on the engine a team has."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import typer

from tumen.cli.board import Board
from tumen.cli.options import CHANGES, ON, RUN, TIER
from tumen.cluster.engines import ClusterEngine, connect, render_job
from tumen.core.artifact import write_text
from tumen.core.errors import DiskError, EngineError, InputError
from tumen.core.events import Events
from tumen.core.lock import alone
from tumen.pipeline.folder import asked, engine_of
from tumen.pipeline.training.jobs import FOLDER, chosen, job_of, named_by, one_of, refuse_second
from tumen.pipeline.training.tier import planned, train_here


def launch(
    run: Path = RUN,
    on: str = ON,
    tier: str = typer.Option(
        None, "--tier", help="Tier of the family; default: the first that is not trained."
    ),
    plan: Path = typer.Option(
        None, "--plan", help="A plan.json of `tumen plan --out`; its tier trains on its mesh."
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Print exactly what would be submitted and stop."
    ),
    changes: list[str] = CHANGES,
) -> None:
    """Start a tier's training on an engine. A cluster's job outlives this command; a local one is waited for."""
    recipe, where = asked(run, on, changes)
    recipe = planned(recipe, plan) if plan else recipe
    stage = chosen(recipe, where, tier, dry_run)
    engine, job = connect(recipe.fleet.engine, recipe.fleet), job_of(recipe, stage, where)
    if dry_run:
        print(render_job(engine, job), end="")
        return
    events = Events(where / "events.jsonl")
    with alone(where):
        refuse_second(engine, job.folder, where)
        write_text(where / "recipe.json", recipe.model_dump_json(indent=1))
        if not isinstance(engine, ClusterEngine):
            print(train_here(recipe, stage, where, Board()))
            return
        engine.submit(job)
        try:
            events.emit(
                "launched",
                tier=stage.name,
                engine=recipe.fleet.engine,
                nodes=job.nodes,
                processes=job.ranks_per_node,
            )
        except DiskError:  # it filled up meanwhile: a job could write no checkpoint either
            with suppress(DiskError):
                engine.cancel(str(job.folder))
            raise
    asked_for = f"{recipe.fleet.engine} as {named_by(job.folder)}, {job.nodes} nodes x {job.ranks_per_node} ranks"
    print(f"{stage.name}: submitted to {asked_for}; `tumen status {where}` says how it is")


def logs(run: Path = RUN, tier: str = TIER) -> None:
    """Print what a job has printed so far."""
    recipe, where = asked(run)
    print(
        connect(recipe.fleet.engine, recipe.fleet).logs(
            str(where / FOLDER / one_of(recipe, where, tier))
        ),
        end="",
    )


def cancel(run: Path = RUN, tier: str = TIER) -> None:
    """Stop a job and everything it started. Its checkpoints stay: launched again, it goes on."""
    recipe, where = asked(run)
    engine, tier = connect(recipe.fleet.engine, recipe.fleet), one_of(recipe, where, tier)
    folder = str(where / FOLDER / tier)
    before = engine.status(folder)
    engine.cancel(folder)
    print(f"{tier}: {f'was {before.state} already' if before.ended else 'cancelled'}")


def drain(
    node: str = typer.Argument(..., help="Name of the node."),
    why: str = typer.Option(..., "--why", help="For those who repair it: what is wrong with it."),
    run: Path = typer.Option(
        None, "--run", help="Folder of a run, or a recipe, for its [fleet]; needed without --on."
    ),
    on: str = ON,
) -> None:
    """Give a node no new work; what runs on it goes on."""
    engine = engine_of(run, on)
    if not isinstance(engine, ClusterEngine):
        raise EngineError(
            f"{node}: this engine runs on this machine only; there is no node to drain"
        )
    if not why.strip():
        raise InputError("--why is empty; say what is wrong, those who repair the node read it")
    engine.drain(node, " ".join(why.split()))
    print(f"{node}: takes no new work ({why})")
