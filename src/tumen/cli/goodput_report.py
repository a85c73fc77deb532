"""`tumen ledger RUN`: where each card-second of a run went, beside what the plan promised."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import typer

from tumen.cluster import GOODPUT_PARTS, GoodputReport, measure_goodput
from tumen.core import units
from tumen.core.errors import InputError
from tumen.pipeline import stages as chain
from tumen.pipeline.folder import read_run_recipe
from tumen.pipeline.training.jobs import job_of
from tumen.recipe import Recipe


def ledger(
    run: Path = typer.Argument(..., help="Folder of a run."),
    tier: str = typer.Option(
        None, "--tier", help="Tier of the family; default: every tier that was trained."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Say where the card-seconds of a run went: productive, checkpoint, detection, restart, recomputed, idle; and its goodput."""
    recipe = read_run_recipe(run)
    if tier and tier not in recipe.family:
        raise InputError(
            f"--tier {tier!r} is no tier of {recipe.name}; it has {', '.join(recipe.family)}"
        )
    books: dict[str, tuple[GoodputReport, float]] = {}
    for stage in chain.stages(recipe):
        if stage.name in ([tier] if tier else recipe.family):
            job = job_of(recipe, stage, run)
            ranks = job.nodes * job.ranks_per_node
            book = measure_goodput(run, stage.name, ranks)
            if book.steps:
                books[stage.name] = book, promised(recipe, stage.name, ranks)
    if not books:
        raise InputError(
            f"{run}: {tier or 'no tier'} has no steps yet; `tumen launch {run}` trains"
        )
    if as_json:
        print(
            json.dumps({name: told(book, plan) for name, (book, plan) in books.items()}, indent=1)
        )
        return
    for name, (book, plan) in books.items():
        print("\n".join(lines(name, book, plan)))


def promised(recipe: Recipe, tier: str, ranks: int) -> float:
    """Goodput the plan expects of a tier on its cards, by the failure rates and restarts of the recipe's `[plan]`."""
    from tumen.plan import reliability, workload_of
    from tumen.plan.facts import fleet_of, one_kind

    kind = one_kind(fleet_of(recipe.fleet.accelerators)).accelerator
    shape = workload_of(recipe, tier).shape
    return reliability(
        ranks, recipe.fleet.accelerators_per_node or kind.node, shape.parameters(), recipe.plan
    ).goodput


def by_formula(book: GoodputReport) -> float | None:
    """What the plan's formula makes of the saves, faults and restarts there were; None where nothing was saved or failed."""
    from tumen.plan import goodput

    rates = book.rates
    return goodput(**rates) if rates else None


def told(book: GoodputReport, plan: float) -> dict[str, object]:
    """A ledger as JSON."""
    return {
        "card_seconds": {part: round(spent, 3) for part, spent in book.accelerator_seconds.items()},
        "faults": dict(book.faults),
        "steps": book.steps,
        "steps_again": book.steps_again,
        "goodput": book.goodput,
        "planned": plan,
        "by_formula": by_formula(book),
    }


def lines(name: str, book: GoodputReport, plan: float) -> Iterator[str]:
    """A ledger for people."""
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(book.faults.items())) or "none"
    lasted = units.show_seconds(math.fsum(book.seconds.values()))
    yield f"{name}: {book.steps:,} steps in {lasted}, {book.steps_again:,} of them twice; faults: {faults}"
    total = math.fsum(book.accelerator_seconds.values()) or 1.0
    for part in GOODPUT_PARTS:
        spent = book.accelerator_seconds[part]
        yield f"  {part:<11}{spent / total:>8.2%}{spent / 3600:>14,.3f} card-hours"
    formula = by_formula(book)
    also = (
        f"; its formula gives {formula:.1%} for the faults and saves there were"
        if formula is not None
        else ""
    )
    yield f"  goodput    {book.goodput:>8.2%}, the plan expects {plan:.1%}{also}"
