"""What another fleet buys: plans side by side, a fleet that grows during the run, own and rented cards at two
prices.
"""

from __future__ import annotations

from collections.abc import Sequence

from tumen.core import units
from tumen.core.errors import PlanError
from tumen.core.shape import Frozen
from tumen.plan.facts.card import Group, fleet_of
from tumen.plan.job import Job, first_group
from tumen.plan.plan import Plan, solve
from tumen.recipe import Planning


class Side(Frozen):
    """One fleet of a comparison."""

    fleet: str
    days: float
    days_low: float
    days_high: float
    step_seconds: float
    mfu: float
    goodput: float
    goodput_low: float
    goodput_high: float
    between_failures_hours: float
    card_hours: float
    money: float
    layout: str


class Comparison(Frozen):
    """Fleets side by side; the first is what the others are measured against."""

    name: str
    currency: str
    sides: tuple[Side, ...]
    says: tuple[str, ...]


class Growth(Frozen):
    """A run whose fleet grows: tokens and days of each phase."""

    fleets: tuple[str, ...]
    phase_days: tuple[float, ...]
    phase_tokens: tuple[float, ...]
    days: float
    days_without: float
    card_hours: float
    money: float


def side(fleet: str, plan: Plan) -> Side:
    """The row of one plan."""
    best = plan.best
    return Side(
        fleet=fleet,
        days=best.days.value,
        days_low=best.days.low,
        days_high=best.days.high,
        step_seconds=best.step_seconds.value,
        mfu=best.mfu,
        goodput=best.goodput.value,
        goodput_low=best.goodput.low,
        goodput_high=best.goodput.high,
        between_failures_hours=plan.failures.between_failures_hours,
        card_hours=best.card_hours.value,
        money=best.money.value,
        layout=layout_text(best.layout),
    )


def layout_text(layout: dict[str, int | str | bool]) -> str:
    """A layout in one short line."""
    sizes = [
        f"{name}{layout[name]}"
        for name in ("dp", "tp", "pp", "vpp", "ep", "cp")
        if layout[name] != 1
    ]
    rest = [f"mb{layout['micro_batch']}", f"zero{layout['zero']}", str(layout["schedule"])]
    return " ".join(
        [
            *sizes,
            *rest,
            *([f"recompute {layout['recompute']}"] if layout["recompute"] != "none" else []),
        ]
    )


def compare(job: Job, fleets: str, planning: Planning) -> Comparison:
    """Plans of the same job on several fleets, `h800:6500,h800:10000`.

    Raises:
        PlanError: fewer than two fleets, or one that cannot run the job.
    """
    groups = fleet_of(fleets)
    if len(groups) < 2:
        raise PlanError(
            f"--compare {fleets!r} names one fleet; write two or more, such as {fleets},{fleets}"
        )
    names = [f"{group.card.name}:{group.count}" for group in groups]
    sides = tuple(
        side(name, solve(job, group, planning)) for name, group in zip(names, groups, strict=True)
    )
    says = tuple(bought(sides[0], other, planning.currency) for other in sides[1:])
    return Comparison(name=job.name, currency=planning.currency, sides=sides, says=says)


def bought(first: Side, other: Side, currency: str) -> str:
    """What the other fleet buys against the first, in one sentence."""
    faster = first.days / other.days
    ideal = int(other.fleet.rpartition(":")[2]) / int(first.fleet.rpartition(":")[2])
    money = other.money - first.money
    sure = (
        "outside"
        if other.days_high < first.days_low or other.days_low > first.days_high
        else "inside"
    )
    return (
        f"{other.fleet} instead of {first.fleet}: {first.days:.1f} -> {other.days:.1f} days ({faster:.2f}x "
        f"with {ideal:.2f}x the cards), "
        f"{money:+,.0f} {currency}, goodput {first.goodput:.1%} -> {other.goodput:.1%}, a failure every "
        f"{first.between_failures_hours:.1f} -> {other.between_failures_hours:.1f} h; the difference is {sure} "
        "both error bars, "
        "though errors of one model mostly cancel in a ratio"
    )


def grow(job: Job, fleet: str, steps: Sequence[tuple[float, str]], planning: Planning) -> Growth:
    """A run that starts on `fleet` and moves to a larger one after so many days: `[(3.0, "h800:10000")]`.

    Each move costs one save and one restart.

    Raises:
        PlanError: a fleet cannot run the job, or days do not rise.
    """
    names, starts = [fleet, *[name for _, name in steps]], [0.0, *[day for day, _ in steps]]
    if sorted(starts) != starts or len(set(starts)) != len(starts):
        raise PlanError(
            f"growth days {', '.join(f'{d:g}' for d in starts[1:])} must rise from above 0"
        )
    plans = [solve(job, first_group(fleet_of(name)), planning) for name in names]
    left, days, tokens, hours, money = job.tokens, [], [], 0.0, 0.0
    for k, plan in enumerate(plans):
        rate = plan.best.tokens_per_day.value * plan.best.goodput.value
        pause = (planning.restart_seconds + plan.failures.save_seconds) / 86400 if k else 0.0
        room = starts[k + 1] - starts[k] if k + 1 < len(plans) else float("inf")
        spent = min(left / rate + pause, room)
        done = min(max(spent - pause, 0.0) * rate, left)
        left -= done
        days.append(spent if done else 0.0)
        tokens.append(done)
        hours += days[-1] * 24 * plan.fleet_cards
        money += days[-1] * 24 * plan.fleet_cards * plan.price
        if left <= job.tokens * 1e-12:
            break
    alone = plans[0].best.days.value
    return Growth(
        fleets=tuple(names),
        phase_days=tuple(days),
        phase_tokens=tuple(tokens),
        days=sum(days),
        days_without=alone,
        card_hours=hours,
        money=money,
    )


def own_and_rented(
    job: Job, own: Group, rented: Group, own_price: float, rented_price: float, planning: Planning
) -> Comparison:
    """Own cards alone against own and rented ones together in one job, at two prices a card and hour.

    Raises:
        PlanError: the cards differ in kind: one synchronous job needs one.
    """
    if own.card.name != rented.card.name:
        raise PlanError(
            f"own {own.card.name} and rented {rented.card.name} differ; one job needs one kind, rent {own.card.name}"
        )
    both = Group(own.card, own.count + rented.count)
    mixed = (own.count * own_price + rented.count * rented_price) / both.count
    priced = [
        (own, own_price, f"own {own.card.name}:{own.count}"),
        (both, mixed, f"own + rented {own.card.name}:{both.count}"),
    ]
    sides = []
    for group, price, name in priced:
        chosen = planning.model_copy(update={"price": price})
        sides.append(side(name, solve(job, group, chosen)))
    extra = sides[1].money - sides[0].money
    saved = sides[0].days - sides[1].days
    each = (
        f"{extra / saved:,.0f} {planning.currency} for each day saved"
        if saved > 0
        else "no day is saved"
    )
    says = (
        f"renting {rented.count} cards saves {units.show_seconds(max(saved, 0) * 86400)} and changes the bill "
        f"by {extra:+,.0f}: {each}",
    )
    return Comparison(name=job.name, currency=planning.currency, sides=tuple(sides), says=says)
