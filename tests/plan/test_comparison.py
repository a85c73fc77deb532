"""Other fleets: side by side, growing during the run, own and rented; every sum again by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tumen.core.errors import PlanError
from tumen.plan import Workload, compare, grow, own_and_rented, solve, workload_of
from tumen.plan.comparison import Side, gain, side_of
from tumen.plan.facts import fleet_of, one_kind
from tumen.plan.planned_run import layout_text
from tumen.recipe import Planning, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def fleet_10k():
    return load_recipe(RECIPES / "fleet-10k.toml")


def days_of(job: Workload, fleet: str, planning: Planning | None = None) -> float:
    return solve(job, one_kind(fleet_of(fleet)), planning or Planning()).best.days.value


# ---------------------------------------------------------------------- side by side


def test_compare_says_what_is_bought(fleet_10k) -> None:
    found = compare(workload_of(fleet_10k), "h800:6500,h800:10000", fleet_10k.plan)
    assert found.sides[1].days < found.sides[0].days
    assert found.sides[1].goodput < found.sides[0].goodput
    assert "1.54x the accelerators" in found.says[0]
    with pytest.raises(PlanError, match="names one fleet"):
        compare(workload_of(fleet_10k), "h800:6500", fleet_10k.plan)


def test_a_side_is_a_plan(gpt3_workload: Workload) -> None:
    plan = solve(gpt3_workload, one_kind(fleet_of("h800:512")))
    found = side_of("mine", plan)
    best = plan.best
    assert found.fleet == "mine"
    assert (found.days, found.days_low, found.days_high) == (
        best.days.value,
        best.days.low,
        best.days.high,
    )
    assert (found.goodput, found.goodput_low) == (best.goodput.value, best.goodput.low)
    assert (found.step_seconds, found.mfu) == (best.step_seconds.value, best.mfu)
    assert (found.card_hours, found.money) == (best.card_hours.value, best.money.value)
    assert found.between_failures_hours == plan.failures.between_failures_hours
    assert found.layout == layout_text(best.layout)


def test_comparisons_keep_the_order_of_the_fleets(gpt3_workload: Workload) -> None:
    found = compare(gpt3_workload, "h800:512,h100:512,a100:512", Planning(currency="EUR"))
    assert [one.fleet for one in found.sides] == ["h800:512", "h100:512", "a100:512"]
    assert len(found.says) == 2
    assert found.says[0].startswith("h100:512 instead of h800:512: ")
    assert found.says[1].startswith("a100:512 instead of h800:512: ")
    assert (found.name, found.currency) == ("gpt3", "EUR")


def made(fleet: str, days: float, low: float, high: float, money: float) -> Side:
    return Side(
        fleet=fleet,
        days=days,
        days_low=low,
        days_high=high,
        step_seconds=1.0,
        mfu=0.4,
        goodput=0.95,
        goodput_low=0.9,
        goodput_high=0.99,
        between_failures_hours=10.0,
        card_hours=1.0,
        money=money,
        layout="dp8",
    )


@pytest.mark.parametrize(
    ("low", "high", "where"),
    [
        (40, 79, "outside"),
        (40, 80, "inside"),
        (70, 90, "inside"),
        (90, 110, "inside"),
        (110, 140, "inside"),
        (120, 140, "inside"),
        (121, 140, "outside"),
    ],
)
def test_a_difference_is_inside_or_outside_the_bars(low: float, high: float, where: str) -> None:
    """The first fleet takes 80 to 120 days."""
    first = made("h800:100", 100, 80, 120, 1000)
    other = made("h800:200", 50, low, high, 1500)
    text = gain(first, other, "USD")
    assert f"the difference is {where} both error bars" in text
    assert "100.0 -> 50.0 days (2.00x with 2.00x the accelerators), +500 USD" in text


def test_a_layout_in_one_line() -> None:
    parts = {"dp": 8, "tp": 1, "pp": 4, "vpp": 2, "ep": 1, "cp": 1, "micro_batch": 2, "zero": 1}
    layout = {**parts, "schedule": "interleaved", "recompute": "none"}
    assert layout_text(layout) == "dp8 pp4 vpp2 mb2 zero1 interleaved"
    assert layout_text({**layout, "recompute": "full"}).endswith("interleaved recompute full")


# ---------------------------------------------------------------------- growing


def test_growing_lies_between(gpt3_workload: Workload) -> None:
    plan = Planning()
    small, large = days_of(gpt3_workload, "h800:512"), days_of(gpt3_workload, "h800:1024")
    growth = grow(gpt3_workload, "h800:512", [(small / 2, "h800:1024")], plan)
    assert large < growth.days < small
    assert growth.days_without == small
    assert sum(growth.phase_tokens) == pytest.approx(gpt3_workload.tokens)
    late = grow(gpt3_workload, "h800:512", [(small * 2, "h800:1024")], plan)
    assert late.days == pytest.approx(small, rel=1e-6)
    assert len(late.phase_days) == 1


def test_phases_by_hand(gpt3_workload: Workload) -> None:
    """Ten days on the first fleet, then the rest on the second, less one save and one restart."""
    planning = Planning(price=2.0)
    first = solve(gpt3_workload, one_kind(fleet_of("h800:512")), planning)
    second = solve(gpt3_workload, one_kind(fleet_of("h800:1024")), planning)

    def rate(plan) -> float:
        return plan.best.tokens_per_day.value * plan.best.goodput.value

    growth = grow(gpt3_workload, "h800:512", [(10.0, "h800:1024")], planning)
    pause = (planning.restart_seconds + second.failures.save_seconds) / 86400
    rest = gpt3_workload.tokens - 10 * rate(first)
    assert growth.fleets == ("h800:512", "h800:1024")
    assert growth.phase_days == pytest.approx((10.0, rest / rate(second) + pause))
    assert growth.phase_tokens == pytest.approx((10 * rate(first), rest))
    assert growth.days == pytest.approx(sum(growth.phase_days))
    hours = 24 * (10 * 512 + growth.phase_days[1] * 1024)
    assert growth.card_hours == pytest.approx(hours)
    assert growth.money == pytest.approx(2.0 * hours)


def test_growing_twice(gpt3_workload: Workload) -> None:
    growth = grow(gpt3_workload, "h800:256", [(5.0, "h800:512"), (9.0, "h800:1024")], Planning())
    assert growth.phase_days[:2] == pytest.approx((5.0, 4.0))
    assert sum(growth.phase_tokens) == pytest.approx(gpt3_workload.tokens)
    assert len(growth.phase_days) == 3


@pytest.mark.parametrize("days", [(3.0, 2.0), (3.0, 3.0), (0.0, 1.0), (-1.0, 1.0)])
def test_days_of_growth_must_rise(gpt3_workload: Workload, days: tuple[float, float]) -> None:
    steps = [(days[0], "h800:1024"), (days[1], "h800:2048")]
    with pytest.raises(PlanError, match="must rise"):
        grow(gpt3_workload, "h800:512", steps, Planning())


# ---------------------------------------------------------------------- own and rented


def test_rented_cards_have_their_own_price(gpt3_workload: Workload) -> None:
    own, more = one_kind(fleet_of("h800:512")), one_kind(fleet_of("h800:1536"))
    found = own_and_rented(gpt3_workload, own, more, 1.0, 3.0, Planning(energy_price=0.0))
    assert [one.fleet for one in found.sides] == ["own h800:512", "own + rented h800:2048"]
    assert found.sides[0].money == pytest.approx(1.0 * found.sides[0].card_hours)
    assert found.sides[1].money == pytest.approx(2.5 * found.sides[1].card_hours)
    assert found.sides[1].days == pytest.approx(days_of(gpt3_workload, "h800:2048"))
    with pytest.raises(PlanError, match="differ; one training run needs one kind, rent h800"):
        own_and_rented(gpt3_workload, own, one_kind(fleet_of("a100:8")), 1.0, 3.0, Planning())


def test_a_day_saved_has_a_price(gpt3_workload: Workload) -> None:
    group = one_kind(fleet_of("h800:512"))
    found = own_and_rented(gpt3_workload, group, group, 1.0, 3.0, Planning(energy_price=0.0))
    extra = found.sides[1].money - found.sides[0].money
    saved = found.sides[0].days - found.sides[1].days
    assert f"by {extra:+,.0f}: {extra / saved:,.0f} USD for each day saved" in found.says[0]
    assert found.says[0].startswith("renting 512 accelerators saves ")


def test_cards_that_cannot_be_used_save_no_day(gpt3_workload: Workload) -> None:
    """One card more than a mesh needs stays idle: the same days and a larger fleet to fail."""
    one = replace(one_kind(fleet_of("h800:512")), count=1)
    own = one_kind(fleet_of("h800:512"))
    found = own_and_rented(gpt3_workload, own, one, 1.0, 3.0, Planning())
    assert found.sides[1].days >= found.sides[0].days
    assert found.says[0].endswith("no day is saved")
