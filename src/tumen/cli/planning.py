"""Plan: know what a training run takes before paying for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from typer.core import TyperGroup

from tumen.cli.options import CHANGES, JSON, RECIPE, RUN_FOLDER
from tumen.core import units
from tumen.core.errors import InputError, PlanError, disk
from tumen.core.events import Events
from tumen.plan import (
    Comparison,
    Demand,
    Growth,
    Plan,
    ServedModel,
    Workload,
    accuracy,
    anchored,
    compare,
    grow,
    own_and_rented,
    rate_of,
    size_serving,
    solve,
    workload_of,
)
from tumen.plan.facts import Accelerator, card_of, fleet_of, one_kind
from tumen.plan.facts import cards as all_cards
from tumen.plan.output import accuracy_table, comparison_table, explain, page, serving_table
from tumen.recipe import Planning, load_recipe

GIGA = 1e9
TERA = 1e12
CLOUD_RECIPE = Path("recipes/milm-6b.toml")  # whose cloud tier `plan fleet` takes
FLEET = typer.Option(
    None, "--fleet", help="card:count, such as h800:10000; default: the recipe's fleet."
)
PROFILE = typer.Option(
    None, "--profile", help="A calibration profile of the card, from `tumen plan calibrate`."
)
OWN_PROFILE = typer.Option(Path("profile.json"), "--profile", help="A calibration profile.")


class RecipeFirst(TyperGroup):
    """A group whose first word may also be a recipe: `plan RECIPE` is `plan recipe RECIPE`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the named command, or `recipe` if the first word names none."""
        if args and args[0] not in self.commands:
            args = ["recipe", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give options before the recipe to it: `plan --fleet h800:8 RECIPE`."""
        if args and args[0].startswith("-") and args[0] not in ("--help", "-h"):
            args = ["recipe", *args]
        return list(super().parse_args(ctx, args))


app = typer.Typer(
    cls=RecipeFirst,
    help="Plan a training run: layout, memory, time, failures and cost.\n\n"
    "`tumen plan RECIPE --fleet h800:10000`",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command("recipe")
def plan_recipe(  # noqa: PLR0913, PLR0917 - typer makes an option of each argument
    path: Path = RECIPE,
    changes: list[str] = CHANGES,
    fleet: str = FLEET,
    tier: str = typer.Option(
        None, "--tier", help="Tier of the family; default: plan.tier, or the first."
    ),
    compared: str = typer.Option(
        None, "--compare", help="Fleets side by side: h800:6500,h800:10000."
    ),
    growing: list[str] = typer.Option(
        [], "--grow", help="A fleet that grows: DAY=card:count, such as 3=h800:10000."
    ),
    rent: str = typer.Option(
        None, "--rent", help="Rented cards beside the own ones: card:count@price."
    ),
    anchor: str = typer.Option(
        None,
        "--anchor",
        help="One published run of another recipe: RECIPE=card-hours per trillion tokens.",
    ),
    why: bool = typer.Option(
        False, "--why", help="Explain: parts of a step, bytes by stage, why the others lose."
    ),
    html: Path = typer.Option(None, "--html", help="Write one self-contained page."),
    out: Path = typer.Option(
        None, "--out", help="Write plan.json here, for `tumen train` and `tumen launch`."
    ),
    top: int = typer.Option(5, "--top", min=1, help="How many layouts are shown."),
    profile: Path = PROFILE,
    as_json: bool = JSON,
) -> None:
    """Plan a recipe on a fleet (the word `recipe` may be left out)."""
    recipe = load_recipe(path, changes)
    planning = recipe.plan
    # On the command line a fleet replaces the recipe's.
    cards = fleet or recipe.fleet.accelerators
    job = workload_of(recipe, tier)
    if anchor:
        job = _anchored(job, cards, anchor)
    if compared:
        comparison = compare(job, compared, planning)
        _print_model(comparison, comparison_table(comparison), as_json)
    elif growing:
        growth = grow(job, cards, [growth_of(text) for text in growing], planning)
        _print_model(growth, growth_lines(growth, planning.currency), as_json)
    elif rent:
        comparison = rented(job, cards, rent, planning)
        _print_model(comparison, comparison_table(comparison), as_json)
    else:
        group = one_kind(fleet_of(cards, profile))
        plan = solve(job, group, planning, top)
        _write_plan(plan, planning, out, html)
        _print_model(plan, [explain(plan, why)], as_json)


def _write_plan(plan: Plan, planning: Planning, out: Path | None, html: Path | None) -> None:
    """Write a plan into the files that were asked for.

    Args:
        plan: the best layouts.
        planning: section `plan` of the recipe.
        out: plan.json, for `tumen train` and `tumen launch`.
        html: a page for people.
    """
    if out:
        write(out, plan.model_dump_json(indent=2) + "\n")
    if html:
        write(html, page(plan, planning))


def _print_model(found: BaseModel, lines: Iterable[str], as_json: bool) -> None:
    """Print a result as JSON, or as lines for people.

    Args:
        found: the result.
        lines: the same for people; only read where they are printed.
        as_json: whether to print JSON.
    """
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        print("\n".join(lines))


def _anchored(job: Workload, cards: str, anchor: str) -> Workload:
    """Return the job with the software factor that one published run gives.

    Args:
        job: to plan.
        cards: of the fleet.
        anchor: RECIPE=card-hours per trillion tokens.

    Raises:
        PlanError: the anchor has another form.
    """
    path, equals, hours = anchor.rpartition("=")
    if not equals:
        raise PlanError(
            f"--anchor {anchor!r}: write RECIPE=card-hours, such as recipes/v1-67b.toml=300.6k"
        )
    other = load_recipe(Path(path))
    group = one_kind(fleet_of(cards))
    published = units.count(hours)
    job, found = anchored(job, workload_of(other), group, published, other.plan)
    print(
        f"anchor: {found.name} takes {found.published:,.0f} card-hours per trillion tokens, "
        f"{found.predicted:,.0f} predicted: factor {found.factor:.3f}"
    )
    return job


def write(path: Path, text: str) -> None:
    """Write a file and the folder above it.

    Raises:
        DiskError: says what to do.
    """
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def growth_of(text: str) -> tuple[float, str]:
    """Return `3=h800:10000` as (3.0, "h800:10000").

    Raises:
        PlanError: the text has another form.
    """
    # A fleet that is missing or wrong is reported by `grow`, which reads it.
    day, _, fleet = text.partition("=")
    try:
        return float(day), fleet
    except ValueError:
        raise PlanError(f"--grow {text!r}: write DAY=card:count, such as 3=h800:10000") from None


def growth_lines(growth: Growth, currency: str) -> Iterator[str]:
    """Yield a line for each phase of a growing run, and one about the whole."""
    phases = zip(growth.fleets, growth.phase_days, growth.phase_tokens, strict=False)
    for fleet, days, tokens in phases:
        trillions = tokens / TERA
        yield f"  {fleet:16s} {days:6.1f} days, {trillions:8.2f} T tokens"
    yield (
        f"{growth.days:.1f} days instead of {growth.days_without:.1f}, "
        f"{growth.card_hours:,.0f} card-hours, {growth.money:,.0f} {currency}"
    )


def rented(job: Workload, own: str, rent: str, planning: Planning) -> Comparison:
    """Return the plan with the own cards beside that with own and rented ones.

    Args:
        job: to plan.
        own: the fleet, such as h800:6500.
        rent: card:count@price.
        planning: section `plan` of the recipe.

    Raises:
        PlanError: `rent` has another form than card:count@price.
    """
    cards, _, price = rent.partition("@")
    try:
        rented_price = float(price)
    except ValueError:
        raise PlanError(f"--rent {rent!r}: write card:count@price, such as h800:3500@2.5") from None
    group = one_kind(fleet_of(own))
    own_price = planning.price
    if own_price is None:
        own_price = group.accelerator.price
    other = one_kind(fleet_of(cards))
    return own_and_rented(job, group, other, own_price, rented_price, planning)


@app.command()
def check(
    path: Path = typer.Argument(..., help="CSV of published runs."), as_json: bool = JSON
) -> None:
    """Compare predictions with published runs: time, memory, out-of-memory rows, ranking."""
    report = accuracy.check(path)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        print("\n".join(accuracy_table(report)))


@app.command()
def calibrate(
    events: list[Path] = typer.Option(
        [], "--events", help="Folder of a run to learn from; repeat for more runs."
    ),
    card: str = typer.Option("cpu", "--card", help="The card of this machine."),
    compiled: bool = typer.Option(
        False, "--compile", help="Benchmark with torch.compile, as runs do; takes minutes longer."
    ),
    out: Path = typer.Option(Path("profile.json"), "--out", help="File of the profile."),
) -> None:
    """Measure this machine, or read the events of runs, and write a profile for its card."""
    card_of(card)  # an unknown card is an error before minutes of benchmarks
    seen = []
    for run in events:
        seen += accuracy.observed(run)
    if not seen:
        configurations = accuracy.default_configurations(compiled)
        seen = accuracy.benchmark(configurations)
    profile = accuracy.calibrate(seen, card)
    accuracy.store_profile(profile, out)
    time_error = f"{profile.fit_error:.0%} (time)"
    memory_error = f"{profile.fit_memory_error:.0%} (memory)"
    print(f"{out}: {len(seen)} measurements, met within {time_error} and {memory_error}")


@app.command()
def actual(run: Path = RUN_FOLDER, profile: Path = OWN_PROFILE, as_json: bool = JSON) -> None:
    """Compare the predictions for a run's tiers with its measurements; keep them in its events."""
    known = accuracy.load_profile(profile)
    found = accuracy.actual(run, known)
    log = Events(run / "events.jsonl")
    for row in found:
        log.emit("plan_actual", **row.model_dump())
    if as_json:
        print(json.dumps([row.model_dump() for row in found]))
    else:
        print("\n".join(row.line() for row in found))


@app.command()
def fleet(  # noqa: PLR0913, PLR0917 - typer makes an option of each argument
    devices: str = typer.Option(..., "--devices", help="Devices that send requests, such as 120M."),
    requests: str = typer.Option(
        "1/day", "--requests", help="Requests of a device: 1/day, 5/hour, 10/week."
    ),
    recipe: Path = typer.Option(
        None, "--recipe", help=f"Recipe of the cloud model; default: {CLOUD_RECIPE}."
    ),
    tier: str = typer.Option(None, "--tier", help="Tier of its family."),
    card: str = typer.Option("h800", "--card", help="Card of the cloud."),
    on_device: float = typer.Option(
        0.7, "--on-device", help="Share of requests that the device answers."
    ),
    prompt_tokens: float = typer.Option(600, "--prompt-tokens", help="Tokens of a prompt, mean."),
    answer_tokens: float = typer.Option(60, "--answer-tokens", help="Tokens of an answer, mean."),
    peak: float = typer.Option(3.0, "--peak", help="Peak load over mean load."),
    bits: float = typer.Option(16, "--bits", help="Bits of a weight."),
    cache_bits: float = typer.Option(16, "--cache-bits", help="Bits of a cache element."),
    price: float = typer.Option(None, "--price", help="Of one card and hour."),
    currency: str = typer.Option("USD", "--currency", help="Of the price."),
    as_json: bool = JSON,
) -> None:
    """Size the cloud of a fleet of devices: load, cards, cost of a million tokens."""
    # The recipe of this repository is not there where the package is installed.
    path = recipe or CLOUD_RECIPE
    if not path.exists():
        raise InputError(f"{path}: no such recipe; name the cloud model with --recipe")
    demand = Demand(
        devices=units.count(devices),
        requests_per_day=rate_of(requests),
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        on_device=on_device,
        peak_over_mean=peak,
    )
    shape = workload_of(load_recipe(path), tier).shape
    kind = card_of(card)
    if price is None:
        price = kind.price
    model = ServedModel(shape, kind, bits, cache_bits)
    found = size_serving(model, demand, price, currency)
    _print_model(found, serving_table(found), as_json)


@app.command()
def cards(as_json: bool = JSON) -> None:
    """List every card with its figures and their sources."""
    known = all_cards()
    if as_json:
        print(json.dumps({name: asdict(card) for name, card in known.items()}))
    else:
        print("\n".join(_card_lines(known)))


def _card_lines(known: Mapping[str, Accelerator]) -> Iterator[str]:
    """Yield a line for each card.

    Args:
        known: name -> card, of the planner's table.
    """
    for name, card in known.items():
        line = f"{name:12s} {_rates(card)}; {card.watts:.0f} W, {card.price:g} USD/h; {card.source}"
        if card.conflict:  # its sources disagree
            line += f"; CONFLICT: {card.conflict}"
        yield line


def _rates(card: Accelerator) -> str:
    """Return arithmetic, memory, links and network of a card."""
    peak = f"{card.bf16_flops / TERA:.0f} TF bf16"
    memory = f"{card.memory_bytes / GIGA:.0f} GB at {card.memory_rate / TERA:.2f} TB/s"
    link = f"link {card.link_rate / GIGA:.0f} GB/s in {card.domain}"
    network = f"network {card.nic_rate / GIGA:g} GB/s a card"
    return f"{peak}, {memory}; {link}, {network}"
