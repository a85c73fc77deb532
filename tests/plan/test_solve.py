"""A plan's figures, each worked out again from the layout it belongs to: time, money, energy, error bars, reasons."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from tests.plan.networks import dense, mixture, workload

from tumen.core.errors import PlanError
from tumen.plan import Layout, Plan, Workload, anchored, reliability, solve
from tumen.plan.alternatives import neighbours, why_slower
from tumen.plan.facts import Accelerator, FleetGroup, cards, fleet_of, one_kind, software
from tumen.plan.layout import scenario_of
from tumen.plan.model import memory, step
from tumen.plan.model.physics import fitted
from tumen.plan.model.scenario import stack
from tumen.plan.search import search
from tumen.plan.solver import (
    Anchor,
    evidence,
    failures_of,
    hours_per_trillion,
    model_flops,
    planned,
    price_of,
    stages_of,
)
from tumen.recipe import Planning

LAYOUT = Layout(tp=2, pp=2, dp=4, micro_batch=1, sequence_parallel=True)


def chosen(
    planning: Planning | None = None,
    accelerator: Accelerator | None = None,
    fleet: int = 20,
    **fields,
):
    """What one layout of 16 cards takes on a fleet of 20."""
    asked = workload(dense(12), batch_size=48, **fields)
    return planned(asked, LAYOUT, accelerator or cards()["h100"], fleet, planning or Planning())


@pytest.fixture
def plan(gpt3_workload: Workload) -> Plan:
    return solve(
        gpt3_workload, one_kind(fleet_of("h800:1024")), Planning(currency="CNY", price=14.0)
    )


# ---------------------------------------------------------------------- one layout


def test_step_and_parts_are_the_models() -> None:
    found = chosen()
    scenario = stack([scenario_of(workload(dense(12), batch_size=48), LAYOUT, cards()["h100"])])
    parts = {
        name: float(np.sum(v)) for name, v in step.step_time(scenario, fitted()).rows().items()
    }
    assert found.step_seconds.value == pytest.approx(parts.pop("step"))
    assert found.parts_seconds == pytest.approx(parts)
    assert found.cards == 16
    assert found.idle_cards == 4
    assert found.layout["tp"] == 2


def test_a_calibrated_card_scales_its_steps() -> None:
    """`speed` is measured over predicted; parts stay as the model says."""
    slow = replace(cards()["h100"], speed=1.25, grade="calibrated")
    plain, found = chosen(), chosen(accelerator=slow)
    assert found.step_seconds.value == pytest.approx(1.25 * plain.step_seconds.value)
    assert found.parts_seconds == plain.parts_seconds
    assert found.step_seconds.grade == "calibrated"


def test_days_follow_from_step_tokens_and_goodput() -> None:
    planning, found = Planning(), chosen()
    reliable = reliability(16, 8, workload(dense(12)).shape.parameters(), planning)
    computing = found.step_seconds.value * 1e9 / (48 * 2048) / 86400
    assert found.goodput.value == pytest.approx(reliable.goodput)
    assert found.days.value == pytest.approx(computing / reliable.goodput)
    assert found.tokens_per_day.value == pytest.approx(48 * 2048 / found.step_seconds.value * 86400)


def test_the_whole_fleet_is_paid_for() -> None:
    """Idle cards cost as much as busy ones; energy counts the building's cooling (PUE 1.3)."""
    card = cards()["h100"]
    found = chosen(Planning(price=3.0, energy_price=0.2))
    assert found.card_hours.value == pytest.approx(found.days.value * 24 * 20)
    kwh = found.card_hours.value * card.watts / 1000 * 1.3
    assert found.energy_kwh.value == pytest.approx(kwh)
    assert found.money.value == pytest.approx(found.card_hours.value * 3.0 + kwh * 0.2)


def test_without_a_price_of_its_own_the_cards_assumption_covers_energy() -> None:
    found = chosen(Planning(energy_price=0.2))
    assert found.money.value == pytest.approx(found.card_hours.value * cards()["h100"].price)
    free = chosen(Planning(price=0.0, energy_price=0.5))
    assert free.money.value == pytest.approx(0.5 * free.energy_kwh.value)


def test_hours_of_a_trillion_tokens_count_computing_cards_alone() -> None:
    """Published figures leave out failures and idle cards."""
    found = chosen()
    expected = found.step_seconds.value * 16 / 3600 / (48 * 2048) * 1e12
    assert found.hours_per_trillion.value == pytest.approx(expected)


def test_mfu_is_model_flops_over_peak() -> None:
    """Six FLOPs a matmul weight and token, causal attention, no recompute."""
    shape, card = dense(12), cards()["h100"]
    weights = (
        shape.parameters() - shape.vocab_size * shape.hidden_size
    )  # the embedding is looked up
    norms = shape.num_hidden_layers * 2 * shape.hidden_size + shape.hidden_size
    scores = 12 * 8 * (64 + 64) * 2048 / 2
    flops = 6.0 * 48 * 2048 * (weights - norms + scores)
    scenario = stack([scenario_of(workload(shape, batch_size=48), LAYOUT, card)])
    assert model_flops(scenario) == pytest.approx(flops)
    again = stack(
        [scenario_of(workload(shape, batch_size=48), replace(LAYOUT, recompute="full"), card)]
    )
    assert model_flops(again) == pytest.approx(flops)
    found = chosen()
    assert found.mfu == pytest.approx(flops / (found.step_seconds.value * 16 * card.bf16_flops))


def test_mfu_of_eight_bits_is_against_the_eight_bit_peak() -> None:
    found = chosen(precision="fp8")
    scenario = stack([scenario_of(workload(dense(12), batch_size=48), LAYOUT, cards()["h100"])])
    expected = model_flops(scenario) / (found.step_seconds.value * 16 * cards()["h100"].fp8_flops)
    assert found.mfu == pytest.approx(expected)


def test_the_bound_is_named() -> None:
    found = chosen()
    assert found.bound_by in {"arithmetic", "memory", "tensor traffic", "gradients"}
    assert 0 < found.bound_seconds < found.step_seconds.value


def test_bytes_of_each_stage() -> None:
    found = chosen()
    scenario = stack([scenario_of(workload(dense(12), batch_size=48), LAYOUT, cards()["h100"])])
    assert len(found.stages) == 2
    for k, stage in enumerate(found.stages):
        assert stage.stage == k
        kinds = (stage.weights, stage.gradients, stage.optimizer)
        rest = (stage.activations, stage.working, stage.logits)
        assert stage.total == pytest.approx(sum(kinds) + sum(rest))
    assert found.memory_bytes.value == max(stage.total for stage in found.stages)
    assert found.memory_bytes.value == pytest.approx(float(memory.peak(scenario).total[0]))
    assert stages_of(scenario, LAYOUT) == found.stages


# ---------------------------------------------------------------------- error bars


@pytest.mark.parametrize(
    ("known", "experts", "conflict", "wide"),
    [
        (True, False, "", 0.13),
        (True, True, "", 0.25),
        (False, False, "", 0.25),
        (False, True, "", 0.40),
        (False, False, "figures disagree", 0.375),
    ],
)
def test_evidence_decides_the_bar(known: bool, experts: bool, conflict: str, wide: float) -> None:
    """Nine in ten published rows fall inside; a card whose figures disagree has half as much again."""
    soft = replace(software(), factor_known=known)
    asked = workload(mixture(9) if experts else dense(12), software=soft)
    card = replace(cards()["h100"], conflict=conflict)
    assert evidence(asked, card) == ("datasheet", pytest.approx(wide))


def test_a_calibration_narrows_the_bar() -> None:
    card = replace(cards()["h100"], grade="calibrated", conflict="figures disagree")
    assert evidence(workload(mixture(9)), card) == ("calibrated", 0.15)


def test_ranges_follow_the_step_and_the_failures() -> None:
    planning, found = Planning(), chosen()
    step = found.step_seconds
    assert step.high / step.value == pytest.approx(1.25)
    assert step.low / step.value == pytest.approx(0.75)
    assert found.tokens_per_day.low == pytest.approx(found.tokens_per_day.value / 1.25)
    assert found.tokens_per_day.high == pytest.approx(found.tokens_per_day.value / 0.75)
    reliable = reliability(16, 8, workload(dense(12)).shape.parameters(), planning)
    slow = 1.25 * reliable.goodput / reliable.goodput_low
    fast = 0.75 * reliable.goodput / reliable.goodput_high
    for figure in (found.days, found.card_hours, found.energy_kwh, found.money):
        assert figure.high / figure.value == pytest.approx(slow)
        assert figure.low / figure.value == pytest.approx(fast)
    assert found.memory_bytes.high / found.memory_bytes.value == pytest.approx(1.1)
    assert found.memory_bytes.low / found.memory_bytes.value == pytest.approx(0.9)
    assert found.hours_per_trillion.high / found.hours_per_trillion.value == pytest.approx(1.25)
    assert (found.goodput.low, found.goodput.high) == (reliable.goodput_low, reliable.goodput_high)


def test_no_bar_reaches_below_physics() -> None:
    """Software at the physical bound: the low end of the step is the bound itself."""
    soft = replace(software(), factor=1e-3)
    found = chosen(software=soft)
    assert found.step_seconds.value == pytest.approx(found.bound_seconds)
    assert found.step_seconds.low == found.bound_seconds


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


def test_prices(plan: Plan) -> None:
    card = cards()["h100"]
    assert price_of(card, Planning()) == card.price
    assert price_of(card, Planning(price=0.0)) == 0.0
    assert plan.price == 14.0


# ---------------------------------------------------------------------- a plan


def test_plan_json_round_trip(plan: Plan) -> None:
    assert Plan.model_validate(json.loads(plan.model_dump_json())) == plan
    assert {"tp", "pp", "dp", "ep", "cp", "micro_batch"} <= set(plan.best.layout)


def test_a_plan_holds_the_search_in_order(plan: Plan, gpt3_workload: Workload) -> None:
    found = search(gpt3_workload, cards()["h800"], 1024)
    assert [c.layout for c in plan.choices] == [vars(layout) for layout in found.layouts]
    assert [c.step_seconds.value for c in plan.choices] == pytest.approx(list(found.seconds))
    assert plan.best is plan.choices[0]
    assert sum(plan.considered.values()) == found.considered
    assert len(solve(gpt3_workload, FleetGroup(cards()["h800"], 1024), top=2).choices) == 2


def test_a_plan_says_what_was_asked(plan: Plan, gpt3_workload: Workload) -> None:
    assert (plan.name, plan.card, plan.fleet_cards, plan.node_cards) == ("gpt3", "h800", 1024, 8)
    assert (plan.sequence_tokens, plan.batch_sequences, plan.tokens) == (2048, 1536, 3e11)
    assert plan.parameters == gpt3_workload.shape.parameters() == plan.active_parameters
    assert plan.software == "default"
    assert (plan.software_factor, plan.precision, plan.currency) == (1.0, "bf16", "CNY")


def test_schedules_and_network_are_the_users(gpt3_workload: Workload) -> None:
    group = FleetGroup(cards()["h100"], 1024)
    free = solve(gpt3_workload, group, Planning())
    plain = solve(gpt3_workload, group, Planning(schedules=("1f1b",)))
    thin = solve(gpt3_workload, group, Planning(oversubscription=4.0))
    assert all(choice.layout["schedule"] == "1f1b" for choice in plain.choices)
    assert plain.best.step_seconds.value >= free.best.step_seconds.value
    assert thin.best.step_seconds.value > free.best.step_seconds.value


def test_oversubscription_divides_the_network(gpt3_workload: Workload) -> None:
    thin = solve(gpt3_workload, FleetGroup(cards()["h100"], 256), Planning(oversubscription=4.0))
    card = cards()["h100"]
    slow = solve(gpt3_workload, FleetGroup(replace(card, nic_rate=card.nic_rate / 4), 256))
    assert thin.choices == slow.choices


def test_failures_are_those_of_the_best_layout(plan: Plan) -> None:
    reliable = reliability(plan.best.cards, 8, plan.parameters, Planning())
    found, step = plan.failures, plan.best.step_seconds.value
    assert found.between_failures_hours == pytest.approx(reliable.between_failures_seconds / 3600)
    assert found.save_every_seconds == reliable.save_every_seconds
    assert found.save_every_steps == round(reliable.save_every_seconds / step)
    assert found.spare_nodes == reliable.spare_nodes
    assert found.elastic_goodput == reliable.elastic_goodput


def test_failures_in_the_units_of_a_plan() -> None:
    """At least one step between saves; a run that never fails has a large number, as JSON knows no infinity."""
    never = reliability(8, 8, 1e9, Planning(failures=0, software_failures=0))
    found = failures_of(never, step_seconds=1e6)
    assert found.save_every_steps == 1
    assert found.between_failures_hours == 1e9
    assert math.isinf(never.between_failures_seconds)


# ---------------------------------------------------------------------- anchors


def test_an_anchor_is_measured_over_predicted() -> None:
    assert Anchor(name="other", published=120.0, predicted=100.0).factor == pytest.approx(1.2)


def test_an_anchored_job_repeats_its_anchor(gpt3_workload: Workload) -> None:
    """Planned with its own anchor, a network takes what was published, by software that now counts as known."""
    group = FleetGroup(cards()["h100"], 512)
    base = hours_per_trillion(solve(gpt3_workload, group, top=1))
    found, anchor = anchored(gpt3_workload, gpt3_workload, group, 1.3 * base)
    assert anchor.factor == pytest.approx(1.3)
    assert found.software.factor_known
    again = solve(found, group, top=1)
    assert hours_per_trillion(again) == pytest.approx(1.3 * base)
    assert again.best.step_seconds.high / again.best.step_seconds.value == pytest.approx(1.13)


def test_an_anchor_replaces_the_factor_of_its_release(gpt3_workload: Workload) -> None:
    group = FleetGroup(cards()["h100"], 512)
    other = replace(
        gpt3_workload, software=replace(gpt3_workload.software, factor=1.7, factor_known=True)
    )
    plain, _ = anchored(gpt3_workload, gpt3_workload, group, 1e6)
    found, _ = anchored(gpt3_workload, other, group, 1e6)
    assert found.software.factor == pytest.approx(plain.software.factor)


# ---------------------------------------------------------------------- losers


def test_losers_have_reasons(gpt3_workload: Workload) -> None:
    plan = solve(gpt3_workload, FleetGroup(cards()["h100"], 1024))
    assert plan.losers
    assert all(loser.reason for loser in plan.losers)
    assert any("does not fit" in loser.reason or "slower" in loser.reason for loser in plan.losers)


def test_neighbours_differ_in_one_decision() -> None:
    best = Layout(
        tp=4, pp=4, vpp=3, dp=8, ep=2, cp=1, micro_batch=2, recompute="norm,act",
        schedule="interleaved", sequence_parallel=True,
    )  # fmt: skip
    found = dict(neighbours(best))
    assert list(found) == [
        "tp 8", "tp 2", "pp 8", "pp 2", "plain 1F1B", "no recompute", "full recompute",
        "ep 4", "ep 1", "micro-batch 4",
    ]  # fmt: skip
    assert found["tp 8"] == replace(best, tp=8, dp=4)
    assert found["tp 2"] == replace(best, tp=2, dp=16)
    assert found["pp 8"] == replace(best, pp=8, dp=4, vpp=1, schedule="1f1b")
    assert found["pp 2"] == replace(best, pp=2, dp=16)
    assert found["plain 1F1B"] == replace(best, vpp=1, schedule="1f1b")
    assert found["no recompute"] == replace(best, recompute="none")
    assert found["full recompute"] == replace(best, recompute="full")
    assert found["ep 1"] == replace(best, ep=1)
    assert found["micro-batch 4"] == replace(best, micro_batch=4)


def test_neighbours_of_the_simplest_layout() -> None:
    """Nothing to halve, no recompute to leave out, no schedule to simplify, no experts to spread."""
    found = dict(neighbours(Layout(dp=8)))
    assert list(found) == ["tp 2", "pp 2", "full recompute", "micro-batch 2"]
    assert found["tp 2"] == Layout(tp=2, dp=4, sequence_parallel=True)
    assert found["pp 2"] == Layout(pp=2, dp=4)
    two = dict(neighbours(Layout(pp=2, dp=4, schedule="zero-bubble")))
    assert two["pp 1"] == Layout(pp=1, dp=8, schedule="1f1b")
    full = dict(neighbours(Layout(dp=8, recompute="full")))
    assert "full recompute" not in full
    assert full["no recompute"].recompute == "none"


def test_a_neighbour_has_at_least_one_replica() -> None:
    assert dict(neighbours(Layout(tp=4, dp=1)))["tp 8"].dp == 1


def test_losers_name_what_costs_the_difference(gpt3_workload: Workload) -> None:
    card = cards()["h100"]

    def scenario(**fields: object):
        layout = Layout(tp=8, pp=8, dp=16, sequence_parallel=True, **fields)
        return stack([scenario_of(gpt3_workload, layout, card)])

    reason = why_slower(scenario(), scenario(recompute="full"), 0.25)
    assert reason.startswith("25.0% slower: matmul +")
    assert reason.endswith("s a step")
    assert why_slower(scenario(), scenario(schedule="zero-bubble"), -0.1).startswith(
        "10.0% faster: "
    )
    assert "slower" in why_slower(scenario(), scenario(), 0.0)


def test_an_illegal_neighbour_says_so_and_a_crowded_one_too(gpt3_workload: Workload) -> None:
    plan = solve(
        gpt3_workload, FleetGroup(cards()["h100"], 512), Planning(pin={"tp": 8, "micro_batch": 4})
    )
    reasons = {loser.change: loser for loser in plan.losers}
    crowded = [one for one in plan.losers if one.reason.startswith("does not fit: ")]
    assert crowded, reasons
    assert all(one.step_seconds is not None for one in crowded)
    small = solve(
        workload(dense(4, heads=2), batch_size=8),
        FleetGroup(cards()["h100"], 8),
        Planning(pin={"tp": 2}),
    )
    illegal = {one.change: one for one in small.losers}["tp 4"]
    assert illegal.reason.startswith("tp 4 does not divide 2 heads")
    assert illegal.step_seconds is None


# ---------------------------------------------------------------------- warnings


def test_warnings_name_what_to_doubt() -> None:
    asked = workload(dense(4), batch_size=8)
    plan = solve(asked, FleetGroup(cards()["ascend910b"], 9))
    text = "\n".join(plan.warnings)
    assert "ascend910b: peak printed as" in text
    assert "run `tumen plan calibrate`" in text
    assert "software 'default': no published run of this release" in text
    assert "1 of 9 accelerators stay idle" in text


def test_nothing_to_doubt_is_no_warning() -> None:
    soft = replace(software(), factor_known=True)
    plan = solve(workload(dense(4), batch_size=8, software=soft), FleetGroup(cards()["h100"], 8))
    assert plan.warnings == ()


def test_a_calibrated_card_needs_no_published_release() -> None:
    card = replace(cards()["h100"], grade="calibrated")
    assert solve(workload(dense(4), batch_size=8), FleetGroup(card, 8)).warnings == ()


def test_no_cards_is_refused_before_the_search() -> None:
    with pytest.raises(
        PlanError, match="0 accelerators cannot train; the smallest fleet is h100:1"
    ):
        solve(workload(), FleetGroup(cards()["h100"], 0))
