"""What a stage of a run asks of an engine: nodes, ranks and cards from the recipe's mesh and `[fleet]`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tumen.cli import chain
from tumen.cluster.engines import Job, Status
from tumen.core import units
from tumen.core.errors import PlanError
from tumen.recipe import Fleet, Recipe

FOLDER = "jobs"  # of a run: a folder for each tier's job


def job_of(recipe: Recipe, stage: chain.Stage, where: Path) -> Job:
    """The job that trains a tier.

    Raises:
        PlanError: the mesh does not fit the fleet.
    """
    fleet, ranks = recipe.fleet, stage.settings.train.mesh.ranks if stage.settings else 1
    nodes, processes, cards, whole = spread(fleet, ranks)
    python = fleet.python or ("python3" if fleet.engine == "kubernetes" else sys.executable)
    return Job(
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
    from tumen.plan import first_group
    from tumen.plan.facts import fleet_of

    group = first_group(fleet_of(fleet.cards))
    accelerated = group.card.name != "cpu"
    if not fleet.node_cards and (fleet.engine == "local" or not accelerated):
        return 1, ranks, ranks if accelerated else 0, False
    if accelerated and ranks > group.count:
        raise PlanError(
            f"the mesh has {ranks} ranks, fleet.cards is {fleet.cards}: plan for it with `tumen plan RECIPE`"
        )
    each = fleet.node_cards or group.card.node
    if ranks > each and ranks % each:
        raise PlanError(
            f"the mesh has {ranks} ranks, no multiple of the {each} cards of a node (fleet.node_cards)"
        )
    on_one = min(ranks, each)
    return max(1, ranks // each), on_one, on_one if accelerated else 0, ranks >= each


def cause(logs: str, status: Status) -> str:
    """Why a job ended, in one line: agents and srun have the last word in a log, not the cause."""
    words = [re.sub(r"^\[rank \d+\] ?", "", line) for line in logs.splitlines() if line.strip()]
    told = [
        line.removeprefix("tumen: ")
        for line in words
        if re.match(r"tumen: (?!job \d+, start )", line)
    ]
    told.sort(key=lambda line: "another rank ended" in line)  # whoever says that is not the cause
    return (told[:1] or [status.reason] if told or status.reason else words[-1:] or [""])[0]
