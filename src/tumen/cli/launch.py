"""`tumen launch | logs | cancel | drain`: a tier's training on the engine a team has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import typer

from tumen.cli import chain
from tumen.cli import run as running
from tumen.cli.job import FOLDER, job_of
from tumen.cli.train import read_run_recipe
from tumen.cluster.engines import Cluster, Engine, Status, connect, rendered
from tumen.core.artifact import write_text
from tumen.core.errors import DiskError, EngineError, InputError
from tumen.core.events import Events
from tumen.core.lock import alone
from tumen.recipe import Recipe, load_recipe

RUN = typer.Argument(..., help="Folder of a run, or a recipe (its run is runs/<name>).")
ON = typer.Option(
    None,
    "--on",
    help="local, slurm, kubernetes or package.module:Class; default: the recipe's fleet.engine.",
)
CHANGES = typer.Option(
    [], "--set", help='Change a field: fleet.slurm.partition="h800". May be given often.'
)
TIER = typer.Option(None, "--tier", help="Tier of the family; default: the newest job's.")
JSON = typer.Option(False, "--json", help="Print JSON.")


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
    recipe = running.planned(recipe, plan) if plan else recipe
    stage = chosen(recipe, where, tier, dry_run)
    engine, job = connect(recipe.fleet.engine, recipe.fleet), job_of(recipe, stage, where)
    if dry_run:
        print(rendered(engine, job), end="")
        return
    events = Events(where / "events.jsonl")
    with alone(where):
        refuse_second(engine, job.folder, where)
        write_text(where / "recipe.json", recipe.model_dump_json(indent=1))
        if not isinstance(engine, Cluster):
            train_here(recipe, stage, where)
            return
        engine.submit(job)
        try:
            events.emit(
                "launched",
                tier=stage.name,
                engine=recipe.fleet.engine,
                nodes=job.nodes,
                processes=job.processes,
            )
        except DiskError:  # it filled up meanwhile: a job could write no checkpoint either
            with suppress(DiskError):
                engine.cancel(str(job.folder))
            raise
    asked_for = f"{recipe.fleet.engine} as {named_by(job.folder)}, {job.nodes} nodes x {job.processes} ranks"
    print(f"{stage.name}: submitted to {asked_for}; `tumen status {where}` says how it is")


def train_here(recipe: Recipe, stage: chain.Stage, where: Path) -> None:
    """Train a tier on the local engine and wait for it; more than one rank are watched. The run's lock is the caller's."""
    with running.Board() as board:
        manifest = running.train_tier(recipe, stage, where, Events(where / "events.jsonl"), board)
    print(f"{stage.name}: trained, {manifest.digest}")


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
    if not isinstance(engine, Cluster):
        raise EngineError(
            f"{node}: {type(engine).__name__.lower()} is this machine alone, there is nothing to drain"
        )
    if not why.strip():
        raise InputError("--why is empty; say what is wrong, those who repair the node read it")
    engine.drain(node, " ".join(why.split()))
    print(f"{node}: takes no new work ({why})")


def asked(
    run: Path, on: str | None = None, changes: list[str] | None = None
) -> tuple[Recipe, Path]:
    """The recipe and the folder of a run, which is named by its folder or by its recipe.

    Raises:
        RecipeError: neither.
    """
    changes = [*(changes or []), *([f"fleet.engine={json.dumps(on)}"] if on else [])]
    if run.suffix == ".toml":
        recipe = load_recipe(run, changes)
        return recipe, Path("runs") / recipe.name
    return read_run_recipe(run, changes), run


def engine_of(run: Path | None, on: str | None) -> Engine:
    """The engine that is named, or that of a run's recipe.

    Raises:
        InputError: neither is given.
    """
    if run:
        fleet = asked(run, on)[0].fleet
        return connect(fleet.engine, fleet)
    if not on:
        raise InputError(
            "which engine? give --on slurm, or a run or recipe that says it in [fleet]"
        )
    return connect(on)


def chosen(recipe: Recipe, where: Path, tier: str | None, dry_run: bool) -> chain.Stage:
    """The stage to launch: the tier that is named, or the first that is not trained.

    Raises:
        InputError: no such tier, all are trained, or what it learns from is not made yet.
    """
    links = {link.stage.name: link for link in chain.links(recipe, where)}
    if tier and tier not in recipe.family:
        raise InputError(
            f"--tier {tier!r} is no tier of {recipe.name}; it has {', '.join(recipe.family)}"
        )
    left = [
        name
        for name in ([tier] if tier else recipe.tiers_in_order())
        if dry_run or links[name].state != "done"
    ]
    if not left:
        raise InputError(f"{where}: {tier or 'every tier'} is trained already")
    stage = links[left[0]].stage
    missing = [parent for parent in stage.parents if links[parent].state != "done"]
    if missing and not dry_run:
        first = (
            "tumen launch"
            if missing[0] in recipe.family
            else f"tumen run RECIPE --run {where} --until"
        )
        raise InputError(
            f"{stage.name} learns from {missing[0]}, which is {links[missing[0]].state}; `{first} {missing[0]}` makes it"
        )
    return stage


def refuse_second(engine: Engine, folder: Path, where: Path) -> None:
    """Refuse to start what runs already.

    Raises:
        EngineError: a job of this tier is waiting or running, or the engine does not say.
    """
    now = engine.status(str(folder)) if folder.exists() else Status("lost")
    if not now.ended:
        raise EngineError(
            f"{folder.name} is {now.state} already as {named_by(folder)}; `tumen cancel {where}` stops it"
        )


def jobs(recipe: Recipe, where: Path) -> Iterator[str]:
    """Tiers that were started, oldest first."""
    begun = {
        tier: where / FOLDER / tier for tier in recipe.family if (where / FOLDER / tier).is_dir()
    }
    yield from sorted(begun, key=lambda tier: begun[tier].stat().st_mtime)


def one_of(recipe: Recipe, where: Path, tier: str | None) -> str:
    """The tier that is named, or that of the newest job.

    Raises:
        InputError: it was never started.
    """
    begun = list(jobs(recipe, where))
    if not begun or (tier and tier not in begun):
        raise InputError(
            f"{where}: {tier or 'a tier'} was never launched; launched so far: {', '.join(begun) or 'none'}"
        )
    return tier or begun[-1]


def named_by(folder: Path) -> str:
    """What the engine calls a job, "" when it calls it nothing."""
    name = (folder / "id").read_text("utf-8").strip() if (folder / "id").exists() else ""
    return f"job {name}" if name else ""
