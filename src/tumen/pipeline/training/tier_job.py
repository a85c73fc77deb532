"""The job that trains a tier: nodes, ranks and accelerators from mesh and `[fleet]`."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tumen.cluster.engines import JobSpec, JobStatus
from tumen.core import units
from tumen.core.errors import PEER_LOST, PlanError
from tumen.plan.facts import fleet_of, one_kind
from tumen.recipe import Fleet

FOLDER = "jobs"  # of a run: one folder for each tier's job
RANK_PREFIX = re.compile(r"^\[rank \d+\] ?")
# An error of ours; "tumen: job 3, start 1" is an agent's report of a start.
ERROR_LINE = re.compile(r"tumen: (?!job \d+, start )")


@dataclass(frozen=True)
class Spread:
    """How the ranks of a training lie on nodes."""

    nodes: int
    ranks_per_node: int
    accelerators_per_node: int  # 0: the ranks compute on the CPU
    exclusive: bool  # whether nodes are taken whole


def job_folder(run: Path, tier: str) -> Path:
    """Return the folder of a tier's job, which is also its id for the engine."""
    return run / FOLDER / tier


def training_job(run: Path, recipe_name: str, tier: str, fleet: Fleet, ranks: int) -> JobSpec:
    """Return the job that trains a tier.

    Raises:
        PlanError: the ranks do not fit the fleet.
    """
    where = spread(fleet, ranks)
    python = fleet.python
    if python is None:  # a container has an interpreter of its own
        python = "python3" if fleet.engine == "kubernetes" else sys.executable
    return JobSpec(
        name=f"{recipe_name}-{tier.replace('/', '-')}",
        command=(python, "-m", "tumen", "train", str(run.resolve()), tier),
        folder=job_folder(run, tier).resolve(),
        environment=fleet.environment,
        nodes=where.nodes,
        ranks_per_node=where.ranks_per_node,
        accelerators_per_node=where.accelerators_per_node,
        exclusive=where.exclusive,
        limit_seconds=units.seconds(fleet.limit) if fleet.limit else None,
        grace_seconds=units.seconds(fleet.grace),
        avoid=fleet.avoid,
        python=python,
    )


def spread(fleet: Fleet, ranks: int) -> Spread:
    """Return how many nodes the ranks take, and what they use of each.

    Raises:
        PlanError: there are more ranks than accelerators, or a node would be partly empty.
    """
    group = one_kind(fleet_of(fleet.accelerators))
    on_cpu = group.accelerator.name == "cpu"
    if not fleet.accelerators_per_node and (fleet.engine == "local" or on_cpu):
        return Spread(1, ranks, 0 if on_cpu else ranks, exclusive=False)
    if not on_cpu and ranks > group.count:
        raise PlanError(
            f"the mesh has {ranks} ranks, fleet.accelerators is {fleet.accelerators}: "
            "plan for it with `tumen plan RECIPE`"
        )
    each = fleet.accelerators_per_node or group.accelerator.node
    if ranks > each and ranks % each:
        raise PlanError(
            f"the mesh has {ranks} ranks, which is not a multiple of the {each} accelerators "
            "of a node (fleet.accelerators_per_node)"
        )
    nodes = max(1, ranks // each)
    ranks_per_node = min(ranks, each)
    accelerators = 0 if on_cpu else ranks_per_node
    return Spread(nodes, ranks_per_node, accelerators, exclusive=ranks >= each)


def cause(log: str, status: JobStatus) -> str:
    """Return why a job failed, in one line.

    A log ends with what agents and srun report about the end, so the first error of ours counts,
    and one that only reports the end of another rank counts last.
    """
    lines = [RANK_PREFIX.sub("", line) for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("tumen: ") for line in lines if ERROR_LINE.match(line)]
    errors.sort(key=_reports_another_rank)
    if errors:
        return errors[0]
    if status.reason:
        return status.reason
    return lines[-1] if lines else ""


def _reports_another_rank(line: str) -> bool:
    return PEER_LOST in line
