"""Solve a workload on a fleet: the best layouts, each with its time, memory, failures and cost."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from tumen.core.errors import PlanError
from tumen.core.shape import Frozen
from tumen.plan.alternatives import losers
from tumen.plan.facts import Accelerator, FleetGroup
from tumen.plan.facts.card_table import Grade
from tumen.plan.failure import Reliability, reliability
from tumen.plan.layout import Layout, scenario_of
from tumen.plan.model import bound, memory, step
from tumen.plan.model.physics import fitted
from tumen.plan.model.scenario import Number, Scenario, stack
from tumen.plan.planned_run import Failures, Figure, Plan, PlannedLayout, StageBytes
from tumen.plan.search import Found, search, tally
from tumen.plan.space import Space, pinned, space_of
from tumen.plan.workload import Workload
from tumen.recipe import Planning

COOLING = 1.3  # energy of the building over energy of the accelerators (PUE)
# Half-width of the error bar of a step time: nine in ten published rows are inside it
# (benchmarks/plan_accuracy.py: 5-fold where the release is known, source left out where it is not).
ERROR = {
    ("known", "dense"): 0.13,
    ("known", "moe"): 0.25,
    ("unknown", "dense"): 0.25,
    ("unknown", "moe"): 0.40,
}
CALIBRATED_ERROR = 0.15
CONFLICT_WIDENING = 1.5  # of the error bar, where public figures of the accelerator disagree
MEMORY_ERROR = 0.10
NEVER_HOURS = 1e9  # between failures of a run that does not fail; JSON has no infinity


def solve(
    workload: Workload, group: FleetGroup, planning: Planning | None = None, top: int = 5
) -> Plan:
    """Return the best layouts of a workload on accelerators of one kind, with reasons.

    Args:
        workload: what is to be trained.
        group: the fleet.
        planning: prices, failure rates, pinned parts of the layout; default: `Planning()`.
        top: layouts to return.

    Raises:
        PlanError: no layout is legal or fits; names the nearest that does.
    """
    planning = planning or Planning()
    count = group.count
    # Accelerators share an oversubscribed network.
    nic_rate = group.accelerator.nic_rate / planning.oversubscription
    accelerator = replace(group.accelerator, nic_rate=nic_rate)
    if count < 1:
        raise PlanError(
            f"{count} accelerators cannot train; the smallest fleet is {accelerator.name}:1"
        )
    space = searched_space(workload, accelerator, count, planning)
    found = search(workload, accelerator, count, top, space)
    choices = [planned(workload, layout, accelerator, count, planning) for layout in found.layouts]
    best = found.layouts[0]
    best_seconds = choices[0].step_seconds.value
    reliable = reliability_of(workload, best, accelerator, planning)
    return Plan(
        **question_fields(workload, accelerator, count, planning),
        choices=tuple(choices),
        losers=tuple(losers(workload, best, accelerator, best_seconds)),
        failures=failures_of(reliable, best_seconds),
        considered=dict(tally(found)),
        warnings=tuple(warnings(workload, accelerator, count, found)),
    )


def searched_space(
    workload: Workload, accelerator: Accelerator, fleet_size: int, planning: Planning
) -> Space:
    """Return the values that the search tries: what is legal, with the recipe's pinned parts.

    Raises:
        PlanError: a pinned part that the network cannot have.
    """
    space = space_of(workload, accelerator, fleet_size)
    space = replace(space, schedules=planning.schedules)
    return pinned(space, dict(planning.pin.items()), workload)


def question_fields(
    workload: Workload, accelerator: Accelerator, fleet_size: int, planning: Planning
) -> dict[str, Any]:
    """Return the fields of a plan that repeat what was asked."""
    return {
        "name": workload.name,
        "card": accelerator.name,
        "fleet_cards": fleet_size,
        "node_cards": accelerator.node,
        "precision": workload.precision,
        "sequence_tokens": workload.seq_len,
        "batch_sequences": workload.batch_size,
        "tokens": workload.tokens,
        "parameters": workload.shape.parameters(),
        "active_parameters": workload.shape.active_parameters(),
        "software": workload.software.name,
        "software_factor": workload.software.factor,
        "currency": planning.currency,
        "price": price_of(accelerator, planning),
    }


def reliability_of(
    workload: Workload, layout: Layout, accelerator: Accelerator, planning: Planning
) -> Reliability:
    """Return what failures do to a workload on a layout."""
    parameters = workload.shape.parameters()
    return reliability(layout.world_size, accelerator.node, parameters, planning)


# ---------------------------------------------------------------------- one layout


def planned(
    workload: Workload,
    layout: Layout,
    accelerator: Accelerator,
    fleet_size: int,
    planning: Planning,
) -> PlannedLayout:
    """Return time, memory, failures and cost of one layout.

    Args:
        workload: what is to be trained.
        layout: the layout.
        accelerator: the kind of accelerator.
        fleet_size: accelerators of the fleet, idle ones included.
        planning: prices and failure rates.

    Raises:
        PlanError: the layout is illegal.
    """
    scenario = stack([scenario_of(workload, layout, accelerator)])
    times = step.step_time(scenario, fitted()).rows()
    parts = {name: scalar(value) for name, value in times.items()}
    seconds = parts.pop("step") * accelerator.speed
    limiting, limit = bound_of(scenario)
    reliable = reliability_of(workload, layout, accelerator, planning)
    peak_flops = seconds * layout.world_size * accelerator.flops(workload.precision)
    return PlannedLayout(
        layout=vars(layout),
        cards=layout.world_size,
        idle_cards=fleet_size - layout.world_size,
        parts_seconds=parts,
        bound_seconds=limit,
        bound_by=limiting,
        mfu=model_flops(scenario) / peak_flops,
        stages=stages_of(scenario, layout),
        **step_figures(workload, layout, accelerator, seconds, limit),
        memory_bytes=memory_figure(workload, accelerator, scenario),
        goodput=goodput_figure(reliable),
        **run_figures(workload, accelerator, fleet_size, planning, reliable, seconds),
    )


def bound_of(scenario: Scenario) -> tuple[str, float]:
    """Return the largest physical bound of a step: its name and its seconds."""
    limits = {name: scalar(value) for name, value in bound.terms(scenario).items()}
    limiting = max(limits, key=lambda name: limits[name])
    return limiting, limits[limiting]


def step_figures(
    workload: Workload, layout: Layout, accelerator: Accelerator, seconds: float, limit: float
) -> dict[str, Figure]:
    """Return the step time and the speeds that follow from it alone.

    Args:
        workload: what is to be trained.
        layout: the layout.
        accelerator: the kind of accelerator.
        seconds: of one step.
        limit: physical bound of the step; no error bar reaches below it.
    """
    grade, wide = evidence(workload, accelerator)
    slow = 1 + wide
    fast = 1 - wide
    low = max(seconds * fast, limit)
    tokens = workload.step_tokens / seconds * 86400
    hours = seconds * layout.world_size / 3600 / workload.step_tokens * 1e12
    unit = "accelerator-hours/T tokens"
    return {
        "step_seconds": Figure(value=seconds, low=low, high=seconds * slow, unit="s", grade=grade),
        "tokens_per_day": Figure.scaled(tokens, 1 / slow, 1 / fast, "tokens/d", grade),
        "hours_per_trillion": Figure.scaled(hours, fast, slow, unit, grade),
    }


def memory_figure(workload: Workload, accelerator: Accelerator, scenario: Scenario) -> Figure:
    """Return the peak of the allocator on the fullest stage."""
    grade, _ = evidence(workload, accelerator)
    peak = scalar(memory.peak(scenario).total)
    return Figure.scaled(peak, 1 - MEMORY_ERROR, 1 + MEMORY_ERROR, "B", grade)


def goodput_figure(reliable: Reliability) -> Figure:
    """Return the goodput with its range."""
    return Figure(
        value=reliable.goodput, low=reliable.goodput_low, high=reliable.goodput_high, unit="share"
    )


def run_figures(
    workload: Workload,
    accelerator: Accelerator,
    fleet_size: int,
    planning: Planning,
    reliable: Reliability,
    step_seconds: float,
) -> dict[str, Figure]:
    """Return days, accelerator-hours, energy and money of the whole run, failures included.

    Their range covers the error of the step and that of the goodput. The whole fleet is paid for,
    idle accelerators too. A price of the card table includes energy; the user's own does not.

    Args:
        workload: what is to be trained.
        accelerator: the kind of accelerator.
        fleet_size: accelerators that are paid for.
        planning: prices of accelerators and of energy.
        reliable: what failures do to the run.
        step_seconds: of one step.
    """
    grade, wide = evidence(workload, accelerator)
    computing_days = step_seconds * workload.tokens / workload.step_tokens / 86400.0
    days = computing_days / reliable.goodput
    low = computing_days * (1 - wide) / reliable.goodput_high / days
    high = computing_days * (1 + wide) / reliable.goodput_low / days

    def figure(value: float, unit: str) -> Figure:
        return Figure.scaled(value, low, high, unit, grade)

    hours = days * 24 * fleet_size
    energy = hours * accelerator.watts / 1000 * COOLING
    money = hours * price_of(accelerator, planning)
    if planning.price is not None:
        money += energy * planning.energy_price
    return {
        "days": figure(days, "d"),
        "card_hours": figure(hours, "accelerator-hours"),
        "energy_kwh": figure(energy, "kWh"),
        "money": figure(money, planning.currency),
    }


def scalar(value: Number) -> float:
    """Return the one number of a table with one row."""
    return float(np.asarray(value).reshape(-1)[0])


def evidence(workload: Workload, accelerator: Accelerator) -> tuple[Grade, float]:
    """Return what a step time rests on, and the half-width of its error bar as a share."""
    if accelerator.grade == "calibrated":
        return "calibrated", CALIBRATED_ERROR
    known = "known" if workload.software.factor_known else "unknown"
    kind = "moe" if workload.shape.experts else "dense"
    wide = ERROR[known, kind]
    if accelerator.conflict:
        wide *= CONFLICT_WIDENING
    return "datasheet", wide


def price_of(accelerator: Accelerator, planning: Planning) -> float:
    """Return the price of one accelerator and hour: the user's, or that of the card table."""
    if planning.price is None:
        return accelerator.price
    return planning.price


def model_flops(scenario: Scenario) -> float:
    """Return the FLOPs of a step without recompute: 6 a matmul weight and token, and attention."""
    matmuls, scores = bound.forward_flops(scenario)
    return scalar(3.0 * scenario.batch_size * scenario.seq_len * (matmuls + scores))


def stages_of(scenario: Scenario, layout: Layout) -> tuple[StageBytes, ...]:
    """Return the bytes of every pipeline stage."""
    found = []
    for stage in range(layout.pp):
        one = memory.stage_bytes(scenario, np.array([float(stage)])).at(0)
        kinds = {name: value for name, value in vars(one).items() if name != "buffers"}
        found.append(StageBytes(stage=stage, total=one.total, **kinds))
    return tuple(found)


def failures_of(reliable: Reliability, step_seconds: float) -> Failures:
    """Return the reliability of a run in the units of a plan."""
    between_hours = reliable.between_failures_seconds / 3600
    if not math.isfinite(between_hours):
        between_hours = NEVER_HOURS
    every = reliable.save_every_seconds
    every_steps = max(round(every / step_seconds), 1)
    return Failures(
        between_failures_hours=between_hours,
        save_seconds=reliable.save_seconds,
        save_every_seconds=every,
        save_every_steps=every_steps,
        spare_nodes=reliable.spare_nodes,
        failures_per_day=reliable.failures_per_day,
        waiting_goodput=reliable.waiting_goodput,
        elastic_goodput=reliable.elastic_goodput,
    )


def warnings(
    workload: Workload, accelerator: Accelerator, fleet_size: int, found: Found
) -> list[str]:
    """Return what a reader should know before trusting the plan."""
    lines = []
    if accelerator.conflict:
        lines.append(f"{accelerator.name}: {accelerator.conflict}; run `tumen plan calibrate`")
    if not workload.software.factor_known and accelerator.grade != "calibrated":
        lines.append(
            f"software {workload.software.name!r}: no published run of this release; "
            "factor 1 and a wider error bar"
        )
    idle = fleet_size - found.layouts[0].world_size
    if idle:
        lines.append(
            f"{idle} of {fleet_size} accelerators stay idle: no even layout uses them all; "
            "they can be spares"
        )
    return lines


# ---------------------------------------------------------------------- anchors


class Anchor(Frozen):
    """One measured run of another network, in accelerator-hours a trillion tokens."""

    name: str
    published: float
    predicted: float

    @property
    def factor(self) -> float:
        """Measured over predicted: the factor of its software and accelerators."""
        return self.published / self.predicted


def hours_per_trillion(plan: Plan) -> float:
    """Return the accelerator-hours a trillion tokens while the run computes.

    Failures and pauses are not counted, as published figures leave them out.
    """
    tokens = plan.batch_sequences * plan.sequence_tokens
    return plan.best.step_seconds.value * plan.best.cards / 3600 / tokens * 1e12


def anchored(
    workload: Workload,
    other: Workload,
    group: FleetGroup,
    published: float,
    planning: Planning | None = None,
) -> tuple[Workload, Anchor]:
    """Return a workload whose software factor comes from one published run of another network.

    Args:
        workload: what is to be planned.
        other: the network of the published run.
        group: accelerators of that run.
        published: its accelerator-hours a trillion tokens.
        planning: as for `solve`.

    Raises:
        PlanError: the other network cannot be planned on the group.
    """
    plain = replace(other, software=replace(other.software, factor=1.0))
    predicted = hours_per_trillion(solve(plain, group, planning, top=1))
    anchor = Anchor(name=other.name, published=published, predicted=predicted)
    software = replace(workload.software, factor=anchor.factor, factor_known=True)
    return replace(workload, software=software), anchor
