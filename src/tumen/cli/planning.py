"""`tumen plan RECIPE | check | calibrate | actual | fleet | cards`: know what a run takes before paying for it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from tumen.core.errors import InputError, PlanError, disk
from tumen.recipe import load_recipe


class RecipeFirst(TyperGroup):
    """A group whose first word may also be a recipe: `plan RECIPE` is `plan recipe RECIPE`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The named command, or `recipe` when the first word names none."""
        if args and args[0] not in self.commands:
            args = ["recipe", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Options before the recipe belong to it: `plan --fleet h800:8 RECIPE`."""
        if args and args[0].startswith("-") and args[0] not in ("--help", "-h"):
            args = ["recipe", *args]
        return list(super().parse_args(ctx, args))


app = typer.Typer(
    cls=RecipeFirst,
    help="What a run takes: layout, memory, time, failures, money. `tumen plan RECIPE --fleet h800:10000`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
RECIPE = typer.Argument(..., help="A recipe, a TOML file.")
CHANGES = typer.Option([], "--set", help="Change a field: plan.price=1.7. May be given often.")
FLEET = typer.Option(
    None, "--fleet", help="card:count, such as h800:10000; default: the recipe's fleet."
)
PROFILE = typer.Option(
    None, "--profile", help="A calibration profile of the card, from `tumen plan calibrate`."
)
JSON = typer.Option(False, "--json", help="Print JSON.")


@app.command("recipe")
def plan_recipe(
    path: Path = RECIPE,
    changes: list[str] = CHANGES,
    fleet: str = FLEET,
    tier: str = typer.Option(
        None, "--tier", help="Tier of the family; default: plan.tier, or the first."
    ),
    compare: str = typer.Option(
        None, "--compare", help="Fleets side by side: h800:6500,h800:10000."
    ),
    grow: list[str] = typer.Option(
        [], "--grow", help="A fleet that grows: DAY=card:count, such as 3=h800:10000."
    ),
    rent: str = typer.Option(
        None, "--rent", help="Rented cards beside the own ones: card:count@price."
    ),
    anchor: str = typer.Option(
        None,
        "--anchor",
        help="One published run of another recipe: RECIPE=card-hours a trillion tokens.",
    ),
    why: bool = typer.Option(
        False, "--why", help="Parts of a step, bytes by stage, why the others lose."
    ),
    page: Path = typer.Option(None, "--html", help="Write one self-contained page."),
    out: Path = typer.Option(
        None, "--out", help="Write plan.json here, for `tumen train` and `tumen launch`."
    ),
    top: int = typer.Option(5, "--top", min=1, help="How many layouts are shown."),
    profile: Path = PROFILE,
    as_json: bool = JSON,
) -> None:
    """Plan a recipe on a fleet (the word `recipe` may be left out)."""
    from tumen.plan import compare as compare_
    from tumen.plan import grow as grow_
    from tumen.plan import solve, workload_of
    from tumen.plan.facts import fleet_of, one_kind
    from tumen.plan.output import comparison_table, explain
    from tumen.plan.output import page as page_

    recipe = load_recipe(path, changes)
    job = workload_of(recipe, tier)
    cards = fleet or recipe.fleet.accelerators
    if anchor:
        job = anchored(job, cards, anchor)
    if compare:
        found = compare_(job, compare, recipe.plan)
        print(found.model_dump_json(indent=2) if as_json else "\n".join(comparison_table(found)))
        return
    if grow:
        growth = grow_(job, cards, [growth_of(text) for text in grow], recipe.plan)
        print(
            growth.model_dump_json(indent=2)
            if as_json
            else growth_text(growth, recipe.plan.currency)
        )
        return
    if rent:
        both = rented(job, cards, rent, recipe.plan)
        print(both.model_dump_json(indent=2) if as_json else "\n".join(comparison_table(both)))
        return
    plan = solve(job, one_kind(fleet_of(cards, profile)), recipe.plan, top)
    if out:
        write(out, plan.model_dump_json(indent=2) + "\n")
    if page:
        write(page, page_(plan, recipe.plan))
    print(plan.model_dump_json(indent=2) if as_json else explain(plan, why))


def anchored(job: Any, cards: str, anchor: str) -> Any:
    """The job with the software factor one published run gives."""
    from tumen.core import units
    from tumen.plan import anchored as anchored_
    from tumen.plan import workload_of
    from tumen.plan.facts import fleet_of, one_kind

    path, equals, hours = anchor.rpartition("=")
    if not equals:
        raise PlanError(
            f"--anchor {anchor!r}: write RECIPE=card-hours, such as recipes/v1-67b.toml=300.6k"
        )
    other = load_recipe(Path(path))
    group = one_kind(fleet_of(cards))
    job, found = anchored_(job, workload_of(other), group, units.count(hours), other.plan)
    print(
        f"anchor: {found.name} takes {found.published:,.0f} card-hours a trillion tokens, "
        f"{found.predicted:,.0f} predicted: factor {found.factor:.3f}"
    )
    return job


def write(path: Path, text: str) -> None:
    """Write a file, saying what to do when the disk refuses."""
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def growth_of(text: str) -> tuple[float, str]:
    """`3=h800:10000` as (3.0, "h800:10000")."""
    day, equals, fleet = text.partition("=")
    try:
        return float(day), fleet if equals else ""
    except ValueError:
        raise PlanError(f"--grow {text!r}: write DAY=card:count, such as 3=h800:10000") from None


def growth_text(growth: Any, currency: str) -> str:
    """A growing run as text."""
    rows = [
        f"  {fleet:16s} {days:6.1f} days, {tokens / 1e12:8.2f} T tokens"
        for fleet, days, tokens in zip(
            growth.fleets, growth.phase_days, growth.phase_tokens, strict=False
        )
    ]
    total = (
        f"{growth.days:.1f} days instead of {growth.days_without:.1f}, {growth.card_hours:,.0f} "
        f"card-hours, {growth.money:,.0f} {currency}"
    )
    return "\n".join([*rows, total])


def rented(job: Any, own: str, rent: str, planning: Any) -> Any:
    """Own cards beside own and rented ones."""
    from tumen.plan import own_and_rented
    from tumen.plan.facts import fleet_of, one_kind

    cards, _, price = rent.partition("@")
    try:
        rented_price = float(price)
    except ValueError:
        raise PlanError(f"--rent {rent!r}: write card:count@price, such as h800:3500@2.5") from None
    group = one_kind(fleet_of(own))
    own_price = group.accelerator.price if planning.price is None else planning.price
    return own_and_rented(job, group, one_kind(fleet_of(cards)), own_price, rented_price, planning)


@app.command()
def check(
    path: Path = typer.Argument(..., help="CSV of published runs."), as_json: bool = JSON
) -> None:
    """Predicted against published for every row: errors by source, memory, out-of-memory rows, refusals, ranking."""
    from tumen.plan.accuracy import check as check_
    from tumen.plan.output import accuracy_table

    report = check_(path)
    print(json.dumps(asdict(report)) if as_json else "\n".join(accuracy_table(report)))


@app.command()
def calibrate(
    events: list[Path] = typer.Option(
        [], "--events", help="Folder of a run to learn from; may be given often."
    ),
    card: str = typer.Option("cpu", "--card", help="The card this machine has."),
    compiled: bool = typer.Option(
        False, "--compile", help="Benchmark with torch.compile, as runs do; takes minutes longer."
    ),
    out: Path = typer.Option(Path("profile.json"), "--out", help="Where the profile goes."),
) -> None:
    """Minutes of micro-benchmarks, or the events of runs, become a profile for this card."""
    from tumen.plan.accuracy import benchmark, default_configurations, observed, store_profile
    from tumen.plan.accuracy import calibrate as calibrate_
    from tumen.plan.facts import card_of

    card_of(card)
    seen = [one for run in events for one in observed(run)]
    seen = seen or benchmark(default_configurations(compiled))
    profile = calibrate_(seen, card)
    store_profile(profile, out)
    print(
        f"{out}: {len(seen)} measurements, they are met within {profile.fit_error:.0%} (time) and "
        f"{profile.fit_memory_error:.0%} (memory)"
    )


@app.command()
def actual(
    run: Path = typer.Argument(..., help="Folder of a run."),
    profile: Path = typer.Option(Path("profile.json"), "--profile", help="A calibration profile."),
    as_json: bool = JSON,
) -> None:
    """Predicted against actual for every tier of a run; the line is kept in the run's events."""
    from tumen.core.events import Events
    from tumen.plan.accuracy import actual as actual_
    from tumen.plan.accuracy import load_profile

    found = actual_(run, load_profile(profile))
    log = Events(run / "events.jsonl")
    for one in found:
        log.emit("plan_actual", **one.model_dump())
    print(
        json.dumps([one.model_dump() for one in found])
        if as_json
        else "\n".join(one.line() for one in found)
    )


@app.command()
def fleet(
    devices: str = typer.Option(..., "--devices", help="Devices that ask, such as 120M."),
    requests: str = typer.Option(
        "1/day", "--requests", help="Requests of a device: 1/day, 5/hour, 10/week."
    ),
    recipe: Path = typer.Option(
        None, "--recipe", help="The cloud model; default: recipes/milm-6b.toml beside you."
    ),
    tier: str = typer.Option(None, "--tier", help="Tier of its family."),
    card: str = typer.Option("h800", "--card", help="Card of the cloud."),
    on_device: float = typer.Option(
        0.7, "--on-device", help="Share of requests the device answers."
    ),
    prompt_tokens: float = typer.Option(600, "--prompt-tokens", help="Tokens of a prompt, mean."),
    answer_tokens: float = typer.Option(60, "--answer-tokens", help="Tokens of an answer, mean."),
    peak: float = typer.Option(3.0, "--peak", help="Peak over mean."),
    bits: float = typer.Option(16, "--bits", help="Bits of a weight."),
    cache_bits: float = typer.Option(16, "--cache-bits", help="Bits of a cache element."),
    price: float = typer.Option(None, "--price", help="Of one card and hour."),
    currency: str = typer.Option("USD", "--currency", help="Name of the currency of the price."),
    as_json: bool = JSON,
) -> None:
    """Serving: requests and tokens a second, share on device, cards in the cloud, cost of a million tokens."""
    from tumen.core import units
    from tumen.plan import Demand, ServedModel, rate_of, size_serving, workload_of
    from tumen.plan.facts import card_of
    from tumen.plan.output import serving_table

    path = recipe or Path("recipes/milm-6b.toml")
    if not path.exists():
        raise InputError(f"{path}: no such recipe; name the cloud model with --recipe")
    shape = workload_of(load_recipe(path), tier).shape
    demand = Demand(
        devices=units.count(devices),
        requests_per_day=rate_of(requests),
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        on_device=on_device,
        peak_over_mean=peak,
    )
    kind = card_of(card)
    model = ServedModel(shape, kind, bits, cache_bits)
    found = size_serving(model, demand, kind.price if price is None else price, currency)
    print(found.model_dump_json(indent=2) if as_json else "\n".join(serving_table(found)))


@app.command()
def cards(as_json: bool = JSON) -> None:
    """Every card with its figures and their sources."""
    from tumen.plan.facts import cards as cards_

    if as_json:
        print(json.dumps({name: asdict(card) for name, card in cards_().items()}))
        return
    for name, card in cards_().items():
        peak = f"{card.bf16_flops / 1e12:.0f} TF bf16, {card.memory_bytes / 1e9:.0f} GB at {card.memory_rate / 1e12:.2f} TB/s"
        links = f"link {card.link_rate / 1e9:.0f} GB/s in {card.domain}, network {card.nic_rate / 1e9:g} GB/s a card"
        print(
            f"{name:12s} {peak}; {links}; {card.watts:.0f} W, {card.price:g} USD/h; {card.source}"
            + (f"; CONFLICT: {card.conflict}" if card.conflict else "")
        )


if __name__ == "__main__":
    import sys

    from tumen.core.errors import TumenError

    try:
        app()
    except TumenError as error:
        print(f"tumen: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
