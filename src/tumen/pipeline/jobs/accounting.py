"""Goodput of a run: where the seconds of its accelerators went, beside what the plan expects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.cluster import GoodputReport, measure_goodput
from tumen.core.errors import InputError
from tumen.pipeline.jobs.launching import check_tier
from tumen.pipeline.stages import stages
from tumen.pipeline.training.tier import TrainingStage
from tumen.plan import goodput, reliability, workload_of
from tumen.plan.facts import fleet_of, one_kind
from tumen.recipe import Recipe


@dataclass(frozen=True)
class Account:
    """The goodput of one tier's training."""

    tier: str
    measured: GoodputReport
    planned: float  # share of the time, by the failure rates and restart times of `[plan]`

    @property
    def by_formula(self) -> float | None:
        """The plan's formula with the measured saves, faults and restarts; None without any."""
        rates = self.measured.rates
        return goodput(**rates) if rates else None

    def facts(self) -> dict[str, Any]:
        """Return the account as JSON can hold it."""
        measured = self.measured
        seconds = {
            part: round(training_compute, 3)
            for part, training_compute in measured.accelerator_seconds.items()
        }
        return {
            "card_seconds": seconds,
            "faults": dict(measured.faults),
            "steps": measured.steps,
            "steps_again": measured.steps_again,
            "goodput": measured.goodput,
            "planned": self.planned,
            "by_formula": self.by_formula,
        }


def account_for(recipe: Recipe, run: Path, tier: str | None) -> list[Account]:
    """Return the accounts of a run's tiers that have trained.

    Args:
        recipe: of the run.
        run: its folder.
        tier: only this one; default: all.

    Raises:
        InputError: there is no such tier, or nothing has trained a step.
    """
    check_tier(recipe, tier)
    wanted = (tier,) if tier else tuple(recipe.family)
    accounts = list(_accounts(recipe, run, wanted))
    if not accounts:
        raise InputError(
            f"{run}: {tier or 'no tier'} has no steps yet; `tumen launch {run}` trains"
        )
    return accounts


def _accounts(recipe: Recipe, run: Path, wanted: tuple[str, ...]) -> Iterator[Account]:
    for stage in stages(recipe):
        if stage.name not in wanted or not isinstance(stage, TrainingStage):
            continue
        job = stage.job(run)
        ranks = job.nodes * job.ranks_per_node
        measured = measure_goodput(run, stage.name, ranks)
        if measured.steps:
            yield Account(stage.name, measured, planned_goodput(recipe, stage.name, ranks))


def planned_goodput(recipe: Recipe, tier: str, ranks: int) -> float:
    """Return the goodput that the plan expects of a tier."""
    card = one_kind(fleet_of(recipe.fleet.accelerators)).accelerator
    parameters = workload_of(recipe, tier).shape.parameters()
    ranks_per_node = recipe.fleet.accelerators_per_node or card.node
    return reliability(ranks, ranks_per_node, parameters, recipe.plan).goodput
