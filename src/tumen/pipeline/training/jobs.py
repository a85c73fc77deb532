"""What a stage of a run asks of an engine: nodes, ranks and cards from the recipe's mesh and `[fleet]`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tumen.cluster.engines import Engine, JobSpec, JobStatus
from tumen.core import units
from tumen.core.errors import EngineError, InputError, PlanError
from tumen.pipeline import stages as chain
from tumen.recipe import Fleet, Recipe

FOLDER = "jobs"  # of a run: a folder for each tier's job


def job_of(recipe: Recipe, stage: chain.Stage, where: Path) -> JobSpec:
    """The job that trains a tier.

    Raises:
        PlanError: the mesh does not fit the fleet.
    """
    fleet, ranks = recipe.fleet, stage.settings.train.mesh.ranks if stage.settings else 1
    nodes, processes, cards, whole = spread(fleet, ranks)
    python = fleet.python or ("python3" if fleet.engine == "kubernetes" else sys.executable)
    return JobSpec(
        f"{recipe.name}-{stage.name.replace('/', '-')}",
        (python, "-m", "tumen", "train", str(where.resolve()), stage.tier),
        (where / FOLDER / stage.tier).resolve(),
        fleet.environment,
        nodes,
        processes,
        cards,
        whole,
        units.seconds(fleet.limit) if fleet.limit else None,
        units.seconds(fleet.grace),
        fleet.avoid,
        python=python,
    )


def spread(fleet: Fleet, ranks: int) -> tuple[int, int, int, bool]:
    """Nodes, ranks of each, cards of each (0 on CPUs), and whether nodes are taken whole.

    Raises:
        PlanError: more ranks than cards, or nodes that would be part empty.
    """
    from tumen.plan.facts import fleet_of, one_kind

    group = one_kind(fleet_of(fleet.accelerators))
    accelerated = group.accelerator.name != "cpu"
    if not fleet.accelerators_per_node and (fleet.engine == "local" or not accelerated):
        return 1, ranks, ranks if accelerated else 0, False
    if accelerated and ranks > group.count:
        raise PlanError(
            f"the mesh has {ranks} ranks, fleet.accelerators is {fleet.accelerators}: plan for it with `tumen plan RECIPE`"
        )
    each = fleet.accelerators_per_node or group.accelerator.node
    if ranks > each and ranks % each:
        raise PlanError(
            f"the mesh has {ranks} ranks, no multiple of the {each} cards of a node (fleet.accelerators_per_node)"
        )
    on_one = min(ranks, each)
    return max(1, ranks // each), on_one, on_one if accelerated else 0, ranks >= each


def cause(logs: str, status: JobStatus) -> str:
    """Why a job ended, in one line: agents and srun have the last word in a log, not the cause."""
    words = [re.sub(r"^\[rank \d+\] ?", "", line) for line in logs.splitlines() if line.strip()]
    told = [
        line.removeprefix("tumen: ")
        for line in words
        if re.match(r"tumen: (?!job \d+, start )", line)
    ]
    told.sort(key=lambda line: "another rank ended" in line)  # whoever says that is not the cause
    return (told[:1] or [status.reason] if told or status.reason else words[-1:] or [""])[0]


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
    now = engine.status(str(folder)) if folder.exists() else JobStatus("lost")
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
