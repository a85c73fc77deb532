"""Other fleets: side by side, growing during the run, own and rented accelerators together."""

from __future__ import annotations

from collections.abc import Sequence

from tumen.core import units
from tumen.core.errors import PlanError
from tumen.core.shape import Frozen
from tumen.plan.facts import FleetGroup, fleet_of, one_kind
from tumen.plan.planned_run import Plan, layout_text
from tumen.plan.solver import solve
from tumen.plan.workload import Workload
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
    """Fleets side by side; the others are compared with the first."""

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


def side_of(fleet: str, plan: Plan) -> Side:
    """Return one plan as a row of a comparison."""
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


# ---------------------------------------------------------------------- side by side


def compare(workload: Workload, fleets: str, planning: Planning) -> Comparison:
    """Return the plans of one workload on several fleets.

    Args:
        workload: what is to be trained.
        fleets: such as `h800:6500,h800:10000`.
        planning: as for `solve`.

    Raises:
        PlanError: fewer than two fleets, or one that cannot run the workload.
    """
    groups = fleet_of(fleets)
    if len(groups) < 2:
        raise PlanError(
            f"--compare {fleets!r} names one fleet; write two or more, such as {fleets},{fleets}"
        )
    sides = []
    for group in groups:
        name = f"{group.accelerator.name}:{group.count}"
        sides.append(side_of(name, solve(workload, group, planning)))
    says = [gain(sides[0], other, planning.currency) for other in sides[1:]]
    return Comparison(
        name=workload.name, currency=planning.currency, sides=tuple(sides), says=tuple(says)
    )


def gain(first: Side, other: Side, currency: str) -> str:
    """Return what another fleet gains over the first, in one sentence."""
    faster = first.days / other.days
    more = accelerators_of(other) / accelerators_of(first)
    money = other.money - first.money
    is_faster = other.days_high < first.days_low
    is_slower = other.days_low > first.days_high
    where = "outside" if is_faster or is_slower else "inside"
    return (
        f"{other.fleet} instead of {first.fleet}: {first.days:.1f} -> {other.days:.1f} days "
        f"({faster:.2f}x with {more:.2f}x the accelerators), {money:+,.0f} {currency}, "
        f"goodput {first.goodput:.1%} -> {other.goodput:.1%}, a failure every "
        f"{first.between_failures_hours:.1f} -> {other.between_failures_hours:.1f} h; "
        f"the difference is {where} both error bars, though errors of one model mostly cancel "
        "in a ratio"
    )


def accelerators_of(side: Side) -> int:
    """Return the count of a fleet such as `h800:6500`."""
    return int(side.fleet.rpartition(":")[2])


# ---------------------------------------------------------------------- growing


def grow(
    workload: Workload, fleet: str, steps: Sequence[tuple[float, str]], planning: Planning
) -> Growth:
    """Return a run that starts on one fleet and moves to a larger one after so many days.

    Each move costs one save and one restart.

    Args:
        workload: what is to be trained.
        fleet: where it starts, such as `h800:6500`.
        steps: (day, fleet) of each move, such as `[(3.0, "h800:10000")]`.
        planning: as for `solve`.

    Raises:
        PlanError: a fleet cannot run the workload, or the days do not rise.
    """
    fleets = [fleet]
    starts = [0.0]
    for day, name in steps:
        fleets.append(name)
        starts.append(day)
    check_rising(starts)
    plans = [solve(workload, one_kind(fleet_of(name)), planning) for name in fleets]
    phases = phases_of(workload, plans, starts, planning)
    hours = 0.0
    money = 0.0
    # the work may be done before the last move: then there are fewer phases than plans
    for (days, _), plan in zip(phases, plans, strict=False):
        spent = days * 24 * plan.fleet_cards
        hours += spent
        money += spent * plan.price
    return Growth(
        fleets=tuple(fleets),
        phase_days=tuple(days for days, _ in phases),
        phase_tokens=tuple(tokens for _, tokens in phases),
        days=sum(days for days, _ in phases),
        days_without=plans[0].best.days.value,
        card_hours=hours,
        money=money,
    )


def check_rising(starts: Sequence[float]) -> None:
    """Reject days of moves that do not rise.

    Raises:
        PlanError: with the days.
    """
    if sorted(starts) != starts or len(set(starts)) != len(starts):
        given = ", ".join(f"{day:g}" for day in starts[1:])
        raise PlanError(f"growth days {given} must rise from above 0")


def phases_of(
    workload: Workload, plans: Sequence[Plan], starts: Sequence[float], planning: Planning
) -> list[tuple[float, float]]:
    """Return (days, tokens) of each phase until the workload is done.

    Args:
        workload: what is to be trained.
        plans: on each fleet, in the order of the moves.
        starts: day on which each fleet is there; the first is 0.
        planning: gives the seconds of a restart.
    """
    left = workload.tokens
    phases = []
    for k, plan in enumerate(plans):
        # The first phase does not move from anywhere.
        pause = moving_days(plan, planning) if k else 0.0
        last = k + 1 == len(plans)
        room = float("inf") if last else starts[k + 1] - starts[k]
        days, tokens = phase(plan, left, pause, room)
        phases.append((days, tokens))
        left -= tokens
        # Rounding may leave a fraction of a token.
        if left <= workload.tokens * 1e-12:
            break
    return phases


def moving_days(plan: Plan, planning: Planning) -> float:
    """Return the days that a move to another fleet takes: one save and one restart."""
    return (planning.restart_seconds + plan.failures.save_seconds) / 86400


def phase(plan: Plan, left: float, pause: float, room: float) -> tuple[float, float]:
    """Return (days, tokens) of one phase of a growing run.

    Args:
        plan: on the phase's fleet.
        left: tokens to train.
        pause: days before training starts.
        room: days until the next move.
    """
    rate = plan.best.tokens_per_day.value * plan.best.goodput.value
    days = min(left / rate + pause, room)
    tokens = min(max(days - pause, 0.0) * rate, left)
    return (days if tokens else 0.0), tokens


# ---------------------------------------------------------------------- own and rented


def own_and_rented(
    workload: Workload,
    own: FleetGroup,
    rented: FleetGroup,
    own_price: float,
    rented_price: float,
    planning: Planning,
) -> Comparison:
    """Return own accelerators alone beside own and rented ones in one training run.

    Args:
        workload: what is to be trained.
        own: accelerators that are there.
        rented: accelerators to add.
        own_price: of one own accelerator and hour.
        rented_price: of one rented accelerator and hour.
        planning: as for `solve`; its price is replaced.

    Raises:
        PlanError: the accelerators differ in kind; one synchronous run needs one kind.
    """
    name = own.accelerator.name
    if name != rented.accelerator.name:
        raise PlanError(
            f"own {name} and rented {rented.accelerator.name} differ; "
            f"one training run needs one kind, rent {name}"
        )
    both = FleetGroup(own.accelerator, own.count + rented.count)
    mixed_price = (own.count * own_price + rented.count * rented_price) / both.count

    def side(title: str, group: FleetGroup, price: float) -> Side:
        plan = solve(workload, group, planning.model_copy(update={"price": price}))
        return side_of(f"{title} {name}:{group.count}", plan)

    alone = side("own", own, own_price)
    together = side("own + rented", both, mixed_price)
    says = renting(alone, together, rented.count, planning.currency)
    return Comparison(
        name=workload.name, currency=planning.currency, sides=(alone, together), says=(says,)
    )


def renting(alone: Side, together: Side, rented: int, currency: str) -> str:
    """Return what renting gains and costs, in one sentence.

    Args:
        alone: the run on the own accelerators.
        together: the run on own and rented ones.
        rented: number of rented accelerators.
        currency: of the money.
    """
    extra = together.money - alone.money
    saved = alone.days - together.days
    each = "no day is saved"
    if saved > 0:
        each = f"{extra / saved:,.0f} {currency} for each day saved"
    return (
        f"renting {rented} accelerators saves {units.show_seconds(max(saved, 0) * 86400)} and "
        f"changes the bill by {extra:+,.0f}: {each}"
    )
