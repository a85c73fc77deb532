"""The plan: what a run takes, as figures that say how far to trust them; and how one is solved."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from tumen.core.errors import PlanError
from tumen.core.shape import Frozen
from tumen.plan.facts.card import Card, Group
from tumen.plan.failure import Reliability, reliability
from tumen.plan.job import Job, Layout, case_of
from tumen.plan.model import bound, memory, time
from tumen.plan.model.case import Case, stack
from tumen.plan.model.physics import fitted
from tumen.plan.search import Found, pinned, search, space_of, tally
from tumen.recipe import Planning

Grade = Literal["measured", "calibrated", "datasheet"]
COOLING = 1.3  # energy of the building over energy of the cards (PUE)
# Half-width of the error bar of a step time: nine in ten published rows fall inside it (benchmarks/plan_accuracy.py:
# 5-fold where the release is known, source left out where it is not).
ERROR = {
    ("known", "dense"): 0.13,
    ("known", "moe"): 0.25,
    ("unknown", "dense"): 0.25,
    ("unknown", "moe"): 0.40,
}
CALIBRATED_ERROR = 0.15
MEMORY_ERROR = 0.10


class Figure(Frozen):
    """One number with its unit, its error bar and what it rests on."""

    value: float
    low: float
    high: float
    unit: str
    grade: Grade = "datasheet"


class StageBytes(Frozen):
    """Bytes of one card on one pipeline stage, by kind."""

    stage: int
    weights: float
    gradients: float
    optimizer: float
    activations: float
    working: float
    logits: float
    total: float


class Choice(Frozen):
    """One layout with everything it takes."""

    layout: dict[str, int | str | bool]
    cards: int
    idle_cards: int
    step_seconds: Figure
    parts_seconds: dict[str, float]
    bound_seconds: float
    bound_by: str
    mfu: float
    memory_bytes: Figure
    stages: tuple[StageBytes, ...]
    tokens_per_day: Figure
    goodput: Figure
    days: Figure
    card_hours: Figure
    energy_kwh: Figure
    money: Figure
    hours_per_trillion: Figure


class Loser(Frozen):
    """A layout one decision away from the winner, and why it loses."""

    change: str
    reason: str
    step_seconds: float | None = None


class Failures(Frozen):
    """What failures do to the run."""

    between_failures_hours: float
    save_seconds: float
    save_every_seconds: float
    save_every_steps: int
    spare_nodes: int
    failures_per_day: float
    waiting_goodput: float
    elastic_goodput: float


class Plan(Frozen):
    """The answer of `solve`; `plan.json` holds it. `choices[0]` is what `tumen train` and `tumen launch` use."""

    schema_version: Literal[1] = 1
    name: str
    card: str
    fleet_cards: int
    node_cards: int
    precision: str
    sequence_tokens: int
    batch_sequences: int
    tokens: float
    parameters: int
    active_parameters: int
    software: str
    software_factor: float
    currency: str
    price: float
    choices: tuple[Choice, ...] = Field(min_length=1)
    losers: tuple[Loser, ...] = ()
    failures: Failures
    considered: dict[str, int]
    warnings: tuple[str, ...] = ()

    @property
    def best(self) -> Choice:
        """The layout to run."""
        return self.choices[0]


def solve(job: Job, group: Group, planning: Planning | None = None, top: int = 5) -> Plan:
    """The best layouts of a job on one group of cards, with reasons.

    Raises:
        PlanError: no layout is legal or fits; says the nearest that is.
    """
    planning = planning or Planning()
    card = replace(group.card, nic_rate=group.card.nic_rate / planning.oversubscription)
    if group.count < 1:
        raise PlanError(f"{group.count} cards cannot train; the smallest fleet is {card.name}:1")
    space = replace(space_of(job, card, group.count), schedules=planning.schedules)
    space = pinned(space, dict(planning.pin.items()), job)
    found = search(job, card, group.count, top, space)
    choices = tuple(choice(job, layout, card, group.count, planning) for layout in found.layouts)
    best = found.layouts[0]
    reliable = reliability(best.cards, card.node, job.shape.parameters(), planning)
    return Plan(
        name=job.name,
        card=card.name,
        fleet_cards=group.count,
        node_cards=card.node,
        precision=job.precision,
        sequence_tokens=job.seq,
        batch_sequences=job.batch,
        tokens=job.tokens,
        parameters=job.shape.parameters(),
        active_parameters=job.shape.active_parameters(),
        software=job.soft.name,
        software_factor=job.soft.factor,
        currency=planning.currency,
        price=price_of(card, planning),
        choices=choices,
        losers=tuple(losers(job, best, card, choices[0].step_seconds.value)),
        failures=failures_of(reliable, choices[0].step_seconds.value),
        considered=dict(tally(found)),
        warnings=tuple(warnings(job, card, group.count, found)),
    )


class Anchor(Frozen):
    """What one measured run of another network says about the same software and cards."""

    name: str
    published: float
    predicted: float

    @property
    def factor(self) -> float:
        """Measured over predicted."""
        return self.published / self.predicted


def hours_per_trillion(plan: Plan) -> float:
    """Card-hours for a trillion tokens while the run computes (failures and pauses not counted, as published figures
    are).
    """
    tokens = plan.batch_sequences * plan.sequence_tokens
    return plan.best.step_seconds.value * plan.best.cards / 3600 / tokens * 1e12


def anchored(
    job: Job, other: Job, group: Group, published: float, planning: Planning | None = None
) -> tuple[Job, Anchor]:
    """A job whose software factor comes from one published run of another network: `published` card-hours a trillion
    tokens.

    Raises:
        PlanError: the other network cannot be planned on the group.
    """
    plain = replace(other, soft=replace(other.soft, factor=1.0))
    anchor = Anchor(
        name=other.name,
        published=published,
        predicted=hours_per_trillion(solve(plain, group, planning, top=1)),
    )
    soft = replace(job.soft, factor=anchor.factor, factor_known=True)
    return replace(job, soft=soft), anchor


def choice(job: Job, layout: Layout, card: Card, fleet: int, planning: Planning) -> Choice:
    """Time, memory, failures and money of one layout.

    Raises:
        PlanError: the layout is illegal.
    """
    case = stack([case_of(job, layout, card)])
    parts = {
        name: float(np.asarray(value).reshape(-1)[0])
        for name, value in time.step(case, fitted()).rows().items()
    }
    step = parts.pop("step") * card.speed
    grade, wide = evidence(job, card)
    limits = {
        name: float(np.asarray(value).reshape(-1)[0]) for name, value in bound.terms(case).items()
    }
    limit = max(limits.values())
    reliable = reliability(layout.cards, card.node, job.shape.parameters(), planning)
    days = step * job.tokens / (job.batch * job.seq) / 86400.0

    def figure(value: float, unit: str, low: float, high: float) -> Figure:
        return Figure(value=value, low=value * low, high=value * high, unit=unit, grade=grade)

    slow, fast = 1 + wide, 1 - wide
    lasting = days / reliable.goodput
    low, high = (
        days * fast / reliable.goodput_high / lasting,
        days * slow / reliable.goodput_low / lasting,
    )
    hours = lasting * 24 * fleet
    energy = hours * card.watts / 1000 * COOLING
    money = hours * price_of(card, planning) + energy * planning.energy_price * (
        planning.price is not None
    )
    peak = float(memory.peak(case).total[0])
    return Choice(
        layout=vars(layout),
        cards=layout.cards,
        idle_cards=fleet - layout.cards,
        step_seconds=Figure(
            value=step, low=max(step * fast, limit), high=step * slow, unit="s", grade=grade
        ),
        parts_seconds=parts,
        bound_seconds=limit,
        bound_by=max(limits, key=lambda name: limits[name]),
        mfu=model_flops(case) / (step * layout.cards * card.flops(job.precision)),
        memory_bytes=figure(peak, "B", 1 - MEMORY_ERROR, 1 + MEMORY_ERROR),
        hours_per_trillion=figure(
            step * layout.cards / 3600 / (job.batch * job.seq) * 1e12,
            "card-hours/T tokens",
            fast,
            slow,
        ),
        stages=stages_of(case, layout),
        tokens_per_day=figure(job.batch * job.seq / step * 86400, "tokens/d", 1 / slow, 1 / fast),
        goodput=Figure(
            value=reliable.goodput,
            low=reliable.goodput_low,
            high=reliable.goodput_high,
            unit="share",
            grade="datasheet",
        ),
        days=figure(lasting, "d", low, high),
        card_hours=figure(hours, "card-hours", low, high),
        energy_kwh=figure(energy, "kWh", low, high),
        money=figure(money, planning.currency, low, high),
    )


def evidence(job: Job, card: Card) -> tuple[Grade, float]:
    """What a step time rests on, and the half-width of its error bar."""
    if card.grade == "calibrated":
        return "calibrated", CALIBRATED_ERROR
    known = "known" if job.soft.factor_known else "unknown"
    wide = ERROR[known, "moe" if job.shape.experts else "dense"]
    return "datasheet", wide * (1.5 if card.conflict else 1.0)


def price_of(card: Card, planning: Planning) -> float:
    """Price of one card and hour: the user's, or the card's assumption."""
    return card.price if planning.price is None else planning.price


def model_flops(case: Case) -> float:
    """Flops of a step without recompute: six for each matmul weight and token, and causal attention."""
    matmuls, scores = bound.forward_flops(case)
    return float(np.asarray(3.0 * case.batch * case.seq * (matmuls + scores)).reshape(-1)[0])


def stages_of(case: Case, layout: Layout) -> tuple[StageBytes, ...]:
    """Bytes of every pipeline stage."""
    found = []
    for stage in range(layout.pp):
        one = memory.stage_bytes(case, np.array([float(stage)])).at(0)
        kinds = {name: value for name, value in vars(one).items() if name != "buffers"}
        found.append(StageBytes(stage=stage, total=one.total, **kinds))
    return tuple(found)


def failures_of(reliable: Reliability, step_seconds: float) -> Failures:
    """The reliability of a run in the units of a plan."""
    every = reliable.save_every_seconds
    return Failures(
        between_failures_hours=reliable.between_failures_seconds / 3600
        if math.isfinite(reliable.between_failures_seconds)
        else 1e9,
        save_seconds=reliable.save_seconds,
        save_every_seconds=every,
        save_every_steps=max(round(every / step_seconds), 1),
        spare_nodes=reliable.spare_nodes,
        failures_per_day=reliable.failures_per_day,
        waiting_goodput=reliable.waiting_goodput,
        elastic_goodput=reliable.elastic_goodput,
    )


def losers(job: Job, best: Layout, card: Card, best_seconds: float) -> list[Loser]:
    """Layouts one decision away from the best, with the reason why they lose."""
    found = []
    for change, other in neighbours(best):
        try:
            case = stack([case_of(job, other, card)])
        except PlanError as error:
            found.append(Loser(change=change, reason=str(error)))
            continue
        step = float(time.step(case, fitted()).step[0]) * card.speed
        peak = float(memory.peak(case).total[0])
        if not bool(memory.fits(case)[0]):
            reason = f"does not fit: {peak / 1e9:.0f} GB and the context on a card of {card.memory_bytes / 1e9:.0f} GB"
        else:
            reason = why_slower(stack([case_of(job, best, card)]), case, step / best_seconds - 1)
        found.append(Loser(change=change, reason=reason, step_seconds=step))
    return found


def neighbours(best: Layout) -> list[tuple[str, Layout]]:
    """Layouts that differ in one decision, the data-parallel group taking up the slack."""

    def other(change: str, **fields: int | str) -> tuple[str, Layout]:
        values = {**vars(best), **fields}
        model = int(values["tp"]) * int(values["pp"]) * int(values["cp"])
        values["dp"] = max(best.cards // model, 1)
        values["sequence_parallel"] = int(values["tp"]) > 1
        if int(values["pp"]) == 1 or values["schedule"] != "interleaved":
            values["vpp"] = 1
        values["schedule"] = "1f1b" if int(values["pp"]) == 1 else values["schedule"]
        return change, Layout(**values)

    found = [other(f"tp {best.tp * 2}", tp=best.tp * 2)]
    found += [other(f"tp {best.tp // 2}", tp=best.tp // 2)] if best.tp > 1 else []
    found += [other(f"pp {best.pp * 2}", pp=best.pp * 2, vpp=1, schedule="1f1b")]
    found += [other(f"pp {best.pp // 2}", pp=best.pp // 2)] if best.pp > 1 else []
    found += [other("plain 1F1B", vpp=1, schedule="1f1b")] if best.schedule != "1f1b" else []
    found += [other("no recompute", recompute="none")] if best.recompute != "none" else []
    found += [other("full recompute", recompute="full")] if best.recompute != "full" else []
    found += (
        [other(f"ep {best.ep * 2}", ep=best.ep * 2), other(f"ep {best.ep // 2}", ep=best.ep // 2)]
        if best.ep > 1
        else []
    )
    found += [other(f"micro-batch {best.micro_batch * 2}", micro_batch=best.micro_batch * 2)]
    return found


def why_slower(best: Case, other: Case, slower: float) -> str:
    """Which part costs the difference."""
    a, b = (time.step(case, fitted()).rows() for case in (best, other))
    skip = ("step", "stage_forward", "stage_backward")
    growth = {name: float(np.sum(b[name]) - np.sum(a[name])) for name in a if name not in skip}
    name = max(growth, key=lambda key: growth[key])
    sign = "slower" if slower >= 0 else "faster"
    return f"{abs(slower) * 100:.1f}% {sign}: {name.replace('_', ' ')} {growth[name]:+.3g} s a step"


def warnings(job: Job, card: Card, cards: int, found: Found) -> list[str]:
    """What a reader should know before believing the plan."""
    said = []
    if card.conflict:
        said.append(f"{card.name}: {card.conflict}; run `tumen plan calibrate`")
    if not job.soft.factor_known and card.grade != "calibrated":
        said.append(
            f"software {job.soft.name!r}: no published run of this release; factor 1 and a wider error bar"
        )
    idle = cards - found.layouts[0].cards
    if idle:
        said.append(
            f"{idle} of {cards} cards stay idle: no even layout uses them all; they can be spares"
        )
    return said
