"""Plan: know what a training run takes before paying for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from tumen.cli.options import CHANGES, JSON, RECIPE, RUN_FOLDER
from tumen.core import units
from tumen.core.errors import InputError, PlanError, disk
from tumen.core.events import Events
from tumen.plan import (
    Demand,
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
from tumen.plan.facts import card_of, fleet_of, one_kind
from tumen.plan.facts import cards as all_cards
from tumen.plan.output import accuracy_table, comparison_table, explain, page, serving_table
from tumen.recipe import Planning, load_recipe

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
def plan_recipe(
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
    cards = fleet or recipe.fleet.accelerators
    job = workload_of(recipe, tier)
    if anchor:
        job = _anchored(job, cards, anchor)
    if compared:
        _print_beside(compare(job, compared, recipe.plan), as_json)
    elif growing:
        growth = grow(job, cards, [growth_of(text) for text in growing], recipe.plan)
        text = growth_text(growth, recipe.plan.currency)
        print(growth.model_dump_json(indent=2) if as_json else text)
    elif rent:
        _print_beside(rented(job, cards, rent, recipe.plan), as_json)
    else:
        plan = solve(job, one_kind(fleet_of(cards, profile)), recipe.plan, top)
        if out:
            write(out, plan.model_dump_json(indent=2) + "\n")
        if html:
            write(html, page(plan, recipe.plan))
        print(plan.model_dump_json(indent=2) if as_json else explain(plan, why))


def _print_beside(comparison: Any, as_json: bool) -> None:
    """Print plans side by side."""
    if as_json:
        print(comparison.model_dump_json(indent=2))
    else:
        print("\n".join(comparison_table(comparison)))


def _anchored(job: Workload, cards: str, anchor: str) -> Workload:
    """Return the job with the software factor that one published run gives."""
    path, equals, hours = anchor.rpartition("=")
    if not equals:
        raise PlanError(
            f"--anchor {anchor!r}: write RECIPE=card-hours, such as recipes/v1-67b.toml=300.6k"
        )
    other = load_recipe(Path(path))
    group = one_kind(fleet_of(cards))
    job, found = anchored(job, workload_of(other), group, units.count(hours), other.plan)
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
    day, equals, fleet = text.partition("=")
    try:
        return float(day), fleet if equals else ""
    except ValueError:
        raise PlanError(f"--grow {text!r}: write DAY=card:count, such as 3=h800:10000") from None


def growth_text(growth: Any, currency: str) -> str:
    """Return a growing run as text."""
    rows = []
    phases = zip(growth.fleets, growth.phase_days, growth.phase_tokens, strict=False)
    for fleet, days, tokens in phases:
        rows.append(f"  {fleet:16s} {days:6.1f} days, {tokens / 1e12:8.2f} T tokens")
    rows.append(
        f"{growth.days:.1f} days instead of {growth.days_without:.1f}, "
        f"{growth.card_hours:,.0f} card-hours, {growth.money:,.0f} {currency}"
    )
    return "\n".join(rows)


def rented(job: Workload, own: str, rent: str, planning: Planning) -> Any:
    """Return the plan with the own cards beside that with own and rented ones.

    Raises:
        PlanError: `rent` has another form than card:count@price.
    """
    cards, _, price = rent.partition("@")
    try:
        rented_price = float(price)
    except ValueError:
        raise PlanError(f"--rent {rent!r}: write card:count@price, such as h800:3500@2.5") from None
    group = one_kind(fleet_of(own))
    own_price = group.accelerator.price if planning.price is None else planning.price
    other = one_kind(fleet_of(cards))
    return own_and_rented(job, group, other, own_price, rented_price, planning)


@app.command()
def check(
    path: Path = typer.Argument(..., help="CSV of published runs."), as_json: bool = JSON
) -> None:
    """Compare predictions with published runs: time, memory, out-of-memory rows, ranking."""
    report = accuracy.check(path)
    print(json.dumps(asdict(report)) if as_json else "\n".join(accuracy_table(report)))


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
    seen = [one for run in events for one in accuracy.observed(run)]
    if not seen:
        seen = accuracy.benchmark(accuracy.default_configurations(compiled))
    profile = accuracy.calibrate(seen, card)
    accuracy.store_profile(profile, out)
    print(
        f"{out}: {len(seen)} measurements, met within {profile.fit_error:.0%} (time) and "
        f"{profile.fit_memory_error:.0%} (memory)"
    )


@app.command()
def actual(run: Path = RUN_FOLDER, profile: Path = OWN_PROFILE, as_json: bool = JSON) -> None:
    """Compare the predictions for a run's tiers with its measurements; keep them in its events."""
    found = accuracy.actual(run, accuracy.load_profile(profile))
    log = Events(run / "events.jsonl")
    for one in found:
        log.emit("plan_actual", **one.model_dump())
    if as_json:
        print(json.dumps([one.model_dump() for one in found]))
    else:
        print("\n".join(one.line() for one in found))


@app.command()
def fleet(
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
    card_price = kind.price if price is None else price
    model = ServedModel(shape, kind, bits, cache_bits)
    found = size_serving(model, demand, card_price, currency)
    print(found.model_dump_json(indent=2) if as_json else "\n".join(serving_table(found)))


@app.command()
def cards(as_json: bool = JSON) -> None:
    """List every card with its figures and their sources."""
    known = all_cards()
    if as_json:
        print(json.dumps({name: asdict(card) for name, card in known.items()}))
    else:
        print("\n".join(_card_lines(known)))


def _card_lines(known: Mapping[str, Any]) -> Iterator[str]:
    for name, card in known.items():
        memory = f"{card.memory_bytes / 1e9:.0f} GB at {card.memory_rate / 1e12:.2f} TB/s"
        peak = f"{card.bf16_flops / 1e12:.0f} TF bf16"
        link = f"link {card.link_rate / 1e9:.0f} GB/s in {card.domain}"
        network = f"network {card.nic_rate / 1e9:g} GB/s a card"
        conflict = f"; CONFLICT: {card.conflict}" if card.conflict else ""
        yield (
            f"{name:12s} {peak}, {memory}; {link}, {network}; {card.watts:.0f} W, "
            f"{card.price:g} USD/h; {card.source}{conflict}"
        )
