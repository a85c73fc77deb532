"""Words and pictures of a plan, comparison, growth, serving."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from tumen.core.errors import PlanError
from tumen.plan import (
    Demand,
    Job,
    Plan,
    compare,
    explain,
    first_group,
    grow,
    job_of,
    own_and_rented,
    page,
    rate_of,
    size,
    solve,
)
from tumen.plan.facts import cards, fleet_of
from tumen.plan.pictures import one_forward_one_backward
from tumen.recipe.recipe import Planning, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def plan(gpt3_job: Job) -> Plan:
    return solve(gpt3_job, first_group(fleet_of("h800:1024")), Planning(currency="CNY", price=14.0))


def test_plan_json_round_trip(plan: Plan) -> None:
    assert Plan.model_validate(json.loads(plan.model_dump_json())) == plan
    assert {"tp", "pp", "dp", "ep", "cp", "micro_batch"} <= set(plan.best.layout)


def test_every_figure_has_an_error_bar_and_a_grade(plan: Plan) -> None:
    best = plan.best
    names = (
        "step_seconds",
        "memory_bytes",
        "tokens_per_day",
        "goodput",
        "days",
        "card_hours",
        "energy_kwh",
        "money",
    )
    for name in names:
        figure = getattr(best, name)
        assert figure.low <= figure.value <= figure.high, name
        assert figure.grade in ("measured", "calibrated", "datasheet")
    assert best.money.unit == "CNY"
    assert best.step_seconds.low >= best.bound_seconds


def test_words(plan: Plan) -> None:
    text, why = explain(plan), explain(plan, why=True)
    assert "goodput" in text
    assert "CNY" in text
    assert "one decision away" not in text
    assert "one decision away" in why


def test_page_is_self_contained(plan: Plan) -> None:
    text = page(plan, Planning())
    assert not re.search(r"https?://|src=|@import|<script", text)
    assert text.count("<svg") == 4
    assert text.count("aria-label") == 4


@pytest.mark.parametrize(("stages", "micro"), [(1, 4), (4, 4), (4, 9), (8, 3)])
def test_timeline_is_1f1b(stages: int, micro: int) -> None:
    """The exact schedule takes (m + p - 1)(F + B), the closed form of the step model; every op runs once, after its
    inputs.
    """
    slots = one_forward_one_backward(stages, micro, 1.0, 2.0)
    assert all(len(row) == 2 * micro for row in slots)
    assert max(stop for row in slots for _, _, stop in row) == pytest.approx(
        (micro + stages - 1) * 3.0
    )
    for row in slots:
        assert all(a[2] <= b[1] for a, b in pairwise(row))


def test_compare_says_what_is_bought() -> None:
    recipe = load_recipe(RECIPES / "fleet-10k.toml")
    found = compare(job_of(recipe), "h800:6500,h800:10000", recipe.plan)
    assert found.sides[1].days < found.sides[0].days
    assert found.sides[1].goodput < found.sides[0].goodput
    assert "1.54x the cards" in found.says[0]
    with pytest.raises(PlanError, match="names one fleet"):
        compare(job_of(recipe), "h800:6500", recipe.plan)


def test_growing_lies_between(gpt3_job: Job) -> None:
    plan = Planning()
    small = solve(gpt3_job, first_group(fleet_of("h800:512")), plan).best.days.value
    large = solve(gpt3_job, first_group(fleet_of("h800:1024")), plan).best.days.value
    growth = grow(gpt3_job, "h800:512", [(small / 2, "h800:1024")], plan)
    assert large < growth.days < small
    assert sum(growth.phase_tokens) == pytest.approx(gpt3_job.tokens)
    late = grow(gpt3_job, "h800:512", [(small * 2, "h800:1024")], plan)
    assert late.days == pytest.approx(small, rel=1e-6)
    with pytest.raises(PlanError, match="must rise"):
        grow(gpt3_job, "h800:512", [(3.0, "h800:1024"), (2.0, "h800:2048")], plan)


def test_rented_cards_have_their_own_price(gpt3_job: Job) -> None:
    own, more = first_group(fleet_of("h800:512")), first_group(fleet_of("h800:512"))
    found = own_and_rented(gpt3_job, own, more, 1.0, 3.0, Planning())
    hours = found.sides[1].card_hours
    assert found.sides[1].money == pytest.approx(2.0 * hours, rel=0.1)
    with pytest.raises(PlanError, match="differ"):
        own_and_rented(gpt3_job, own, first_group(fleet_of("a100:8")), 1.0, 3.0, Planning())


def test_serving_of_120_million_devices() -> None:
    shape = job_of(load_recipe(RECIPES / "milm-6b.toml")).shape
    demand = Demand(devices=120e6, requests_per_day=rate_of("1/day"), on_device=0.7)
    found = size(shape, demand, cards()["h800"], 16, 16, 2.0, "USD")
    assert found.mean_requests == pytest.approx(1389, abs=1)
    assert found.cloud_peak_requests == pytest.approx(found.peak_requests * 0.3)
    assert found.cards >= 1
    everything = size(
        shape, demand.model_copy(update={"on_device": 1.0}), cards()["h800"], 16, 16, 2.0, "USD"
    )
    assert everything.cards == 0
    smaller = size(shape, demand, cards()["h800"], 4, 4, 2.0, "USD")
    assert smaller.cards <= found.cards


@pytest.mark.parametrize(
    ("text", "a_day"), [("1/day", 1.0), ("2/hour", 48.0), ("7/week", 1.0), ("3", 3.0)]
)
def test_rates(text: str, a_day: float) -> None:
    assert rate_of(text) == pytest.approx(a_day)


def test_nonsense_demands() -> None:
    shape = job_of(load_recipe(RECIPES / "milm-6b.toml")).shape
    with pytest.raises(PlanError, match="no period"):
        rate_of("1/blink")
    with pytest.raises(PlanError, match="nearest legal value is 1"):
        size(
            shape,
            Demand(devices=1, requests_per_day=1, on_device=1.5),
            cards()["h800"],
            16,
            16,
            2.0,
            "USD",
        )
    with pytest.raises(PlanError, match="above 0"):
        size(shape, Demand(devices=0, requests_per_day=1), cards()["h800"], 16, 16, 2.0, "USD")
