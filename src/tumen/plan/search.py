"""The best layouts of a job on a fleet: every legal one is considered, few are timed.

The lattice (tp, pp, vpp, cp, ep, dp, micro-batch, recompute, ZeRO, schedule) is laid out as one table; what does not
fit in memory goes first, then what even a perfect machine would run slower than plans already timed (`bound`). The
bound is below the model everywhere, so the result equals exhaustive enumeration (tests/plan/test_search.py).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tumen.core.errors import PlanError
from tumen.core.shape import Mla
from tumen.plan.facts.card import Card
from tumen.plan.job import RECOMPUTE, Job, Layout, base_case, divisors, nearest
from tumen.plan.model import bound, memory, time
from tumen.plan.model.case import SCHEDULES, Array, Case, Index
from tumen.plan.model.physics import Physics, fitted

POLICIES = ("none", "norm,act", "rmsnorm+mla-up", "layernorm,moe", "full")
MOST_IDLE = 0.25  # share of the cards a layout may leave idle to make the numbers even
HEADROOM = 0.08  # memory left free for fragments
BLOCK = 1024


@dataclass(frozen=True)
class Space:
    """The layouts a search considers."""

    tensor: tuple[int, ...]
    pipeline: tuple[int, ...]
    chunks: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8)
    context: tuple[int, ...] = (1,)
    expert: tuple[int, ...] = (1,)
    micro: tuple[int, ...] = (1, 2, 4, 8)
    policies: tuple[str, ...] = POLICIES
    zero: tuple[int, ...] = (1, 3)
    schedules: tuple[str, ...] = ("1f1b", "interleaved", "zero-bubble", "dualpipe")


@dataclass(frozen=True)
class Found:
    """What a search saw: the best layouts with their seconds, and why the others lost."""

    layouts: tuple[Layout, ...]
    seconds: tuple[float, ...]
    considered: int
    too_large: int
    timed: int
    smallest_bytes: float


def space_of(job: Job, card: Card, cards: int) -> Space:
    """Everything that is legal and sensible for a job on `cards` cards."""
    shape = job.shape
    widest = min(max(card.domain, card.node), 64)
    tensor = tuple(
        t for t in divisors(shape.attention.num_attention_heads) if t <= widest and t & (t - 1) == 0
    )
    pipeline = tuple(
        p
        for p in range(1, min(shape.num_hidden_layers, cards, 128) + 1)
        if even_enough(shape.num_hidden_layers, p)
    )
    context = tuple(
        c for c in (1, 2, 4, 8, 16, 32) if c <= max(job.seq // 8192, 1) and job.seq % c == 0
    )
    expert: tuple[int, ...] = (1,)
    if shape.experts:
        expert = tuple(e for e in divisors(shape.experts.n_routed_experts) if e <= 128)
    return Space(tensor, pipeline, context=context, expert=expert)


PINS = {
    "tp": "tensor",
    "pp": "pipeline",
    "vpp": "chunks",
    "ep": "expert",
    "cp": "context",
    "micro_batch": "micro",
    "zero": "zero",
}


def pinned(space: Space, pin: Mapping[str, int], job: Job) -> Space:
    """The space with parts of the layout decided.

    Raises:
        PlanError: a part the network cannot have, with the nearest legal value.
    """
    heads, layers = job.shape.attention.num_attention_heads, job.shape.num_hidden_layers
    routed = job.shape.experts.n_routed_experts if job.shape.experts else 1
    for name, most in (("tp", heads), ("ep", routed)):
        value = pin.get(name, 1)
        if most % value:
            best = nearest(divisors(most), value)
            what = "heads" if name == "tp" else "experts"
            raise PlanError(
                f"{name} {value} does not divide {most} {what}; the nearest that does is {best}"
            )
    if pin.get("zero", 1) > 3:
        raise PlanError(f"zero {pin['zero']} is no stage; the nearest legal value is 3")
    if pin.get("micro_batch", 1) > job.batch:
        raise PlanError(
            f"micro_batch {pin['micro_batch']} is more than the batch; the most is {job.batch}"
        )
    if pin.get("pp", 1) > layers:
        raise PlanError(f"pp {pin['pp']} is more than {layers} layers; the most is {layers}")
    return replace(space, **{PINS[name]: (value,) for name, value in pin.items()})  # type: ignore[arg-type]


def even_enough(layers: int, pp: int) -> bool:
    """Stages of nearly equal size: the last one holds at least half of the others' layers."""
    most = -(-layers // pp)
    last = layers - (pp - 1) * most
    return last >= max(most // 2, 1) or layers % pp == 0


def lattice(job: Job, card: Card, cards: int, space: Space) -> Iterator[tuple[float, ...]]:
    """Rows (tp, pp, vpp, cp, ep, dp, micro, policy, zero, schedule) of every legal layout."""
    shape = job.shape
    for tp, pp, cp in itertools.product(space.tensor, space.pipeline, space.context):
        most = cards // (tp * pp * cp)
        if most < 1:
            continue
        for micro in space.micro:
            dp = widest_group(job.batch, most, micro)
            if dp * tp * pp * cp < (1 - MOST_IDLE) * cards:
                continue
            ranks = dp * cp * tp
            for ep in space.expert:
                if ranks % ep or (shape.experts and shape.experts.n_routed_experts % ep):
                    continue
                for vpp, schedule in itertools.product(space.chunks, space.schedules):
                    if not scheduled(
                        shape.num_hidden_layers, pp, vpp, schedule, job.batch // (dp * micro)
                    ):
                        continue
                    for policy, zero in itertools.product(space.policies, space.zero):
                        if zero == 3 and (pp > 1 or shape.experts):
                            continue
                        if not offered(policy, job):
                            continue
                        kind = SCHEDULES.index(schedule)
                        yield tp, pp, vpp, cp, ep, dp, micro, POLICIES.index(policy), zero, kind


def offered(policy: str, job: Job) -> bool:
    """Whether a recompute policy means anything for a network."""
    if policy == "layernorm,moe":
        return job.shape.experts is not None
    return policy != "rmsnorm+mla-up" or isinstance(job.shape.attention, Mla)


def widest_group(batch: int, most: int, micro: int) -> int:
    """The largest data-parallel group up to `most` that divides the batch into whole micro-batches; 0 if none does."""
    if batch % micro:
        return 0
    whole = batch // micro
    for dp in range(min(most, whole), 0, -1):
        if whole % dp == 0:
            return dp
    return 0


def scheduled(layers: int, pp: int, vpp: int, schedule: str, micro_batches: int) -> bool:
    """Whether a schedule exists for this pipeline: chunks belong to the interleaved one, DualPipe wants even halves."""
    if pp == 1:
        return vpp == 1 and schedule == "1f1b"
    if schedule == "interleaved":
        return vpp > 1 and layers >= pp * vpp and micro_batches % pp == 0
    if schedule == "dualpipe":
        return vpp == 1 and pp % 2 == 0 and micro_batches >= 2 * pp
    return vpp == 1


def table_of(job: Job, card: Card, cards: int, rows: Array) -> Case:
    """Rows of the lattice, shape (n, 10), as one case table."""
    tp, pp, vpp, cp, ep, dp, micro, policy, zero, schedule = rows.T
    effects = np.array([RECOMPUTE[name] for name in POLICIES], dtype=float)[policy.astype(int)].T
    return base_case(job, card, cards).but(
        cards=tp * pp * cp * dp,
        tp=tp,
        pp=pp,
        vpp=vpp,
        cp=cp,
        ep=ep,
        dp=dp,
        micro=micro,
        zero=zero,
        shard=dp * cp,
        sp=np.where(tp > 1, 1.0, 0.0),
        schedule=schedule,
        recompute=effects[0],
        redo_matmul=effects[1],
        redo_rest=effects[2],
        dropped=effects[3],
    )


def layout_of(row: Array) -> Layout:
    """One row of the lattice."""
    tp, pp, vpp, cp, ep, dp, micro, policy, zero, schedule = (int(value) for value in row)
    return Layout(
        tp, pp, vpp, dp, ep, cp, micro, zero, POLICIES[policy], SCHEDULES[schedule], tp > 1
    )


def search(
    job: Job,
    card: Card,
    cards: int,
    top: int = 5,
    space: Space | None = None,
    physics: Physics | None = None,
    prune: bool = True,
) -> Found:
    """The `top` fastest layouts that fit.

    Raises:
        PlanError: no cards, no legal layout, or none that fits; says what is nearest.
    """
    if cards < 1:
        raise PlanError(f"{cards} cards cannot train; the smallest fleet is {card.name}:1")
    physics = physics or fitted()
    space = space or space_of(job, card, cards)
    rows = np.array(list(lattice(job, card, cards, space)), dtype=float)
    if not len(rows):
        raise PlanError(why_none(job, cards, space))
    cases = table_of(job, card, cards, rows)
    peaks = memory.peak(cases)
    fit = peaks.total + peaks.buffers + memory.CONTEXT_BYTES <= card.memory_bytes * (1 - HEADROOM)
    index = np.flatnonzero(fit)
    if not len(index):
        least = float(np.min(peaks.total)) / 1e9
        raise PlanError(
            f"{job.name} does not fit {cards} x {card.name}: the smallest layout needs {least:.0f} GB a card of "
            f"{card.memory_bytes / 1e9:.0f} GB; {more_cards(job, card, cards)}"
        )
    meshes = np.unique(rows[:, [0, 1, 3, 4]], axis=0, return_inverse=True)[1].reshape(-1)
    seconds, timed = time_best(cases, index, meshes, physics, top, prune)
    best = distinct(rows, meshes, seconds, top)
    return Found(
        layouts=tuple(layout_of(rows[i]) for i in best),
        seconds=tuple(float(seconds[i]) for i in best),
        considered=len(rows),
        too_large=int(len(rows) - len(index)),
        timed=timed,
        smallest_bytes=float(np.min(peaks.total)),
    )


def time_best(
    cases: Case, index: Index, meshes: Index, physics: Physics, top: int, prune: bool
) -> tuple[Array, int]:
    """Seconds of every layout that could be the best of a leading mesh, infinity for the rest; and how many were
    timed.
    """
    seconds = np.full(np.size(cases.tp), np.inf)
    floor = bound.seconds(cases.take(index))
    order = index[np.argsort(floor, kind="stable")]
    floor = np.sort(floor, kind="stable")
    timed = 0
    for start in range(0, len(order), BLOCK):
        if prune and floor[start] > worst_kept(seconds, meshes, top):
            break
        block = order[start : start + BLOCK]
        seconds[block] = time.step(cases.take(block), physics).step
        timed += len(block)
    return seconds, timed


def worst_kept(seconds: Array, meshes: Index, top: int) -> float:
    """Seconds of the `top`-th mesh so far; infinity before there are as many."""
    best = np.full(int(meshes.max()) + 1, np.inf)
    np.minimum.at(best, meshes, seconds)
    return float(np.partition(best, top - 1)[top - 1]) if len(best) >= top else np.inf


def distinct(rows: Array, meshes: Index, seconds: Array, top: int) -> list[int]:
    """The fastest row of each mesh (tp, pp, cp, ep), in order; ties go to less recompute, then to the smaller tp."""
    finite = np.flatnonzero(np.isfinite(seconds))
    order = finite[np.lexsort((rows[finite, 0], rows[finite, 7], np.round(seconds[finite], 9)))]
    _, first = np.unique(meshes[order], return_index=True)
    return [int(i) for i in order[np.sort(first)][:top]]


def why_none(job: Job, cards: int, space: Space) -> str:
    """Why no layout is legal, with the nearest legal value."""
    least = min(space.tensor) * min(space.pipeline) * min(space.context)
    if least > cards:
        return (
            f"{cards} cards are fewer than tp x pp x cp of the layout; the least is {least} cards"
        )
    whole = max(round(job.batch / 64), 1) * 64
    return f"batch {job.batch} is not divided by any mesh of {cards} cards; the nearest batch with many divisors is {whole} sequences"


def more_cards(job: Job, card: Card, cards: int) -> str:
    """How many cards would hold the weights, gradients and states alone."""
    need = job.shape.parameters() * 18.0 / (card.memory_bytes * 0.7)
    nodes = max(int(np.ceil(need / card.node)), -(-cards // card.node) + 1)
    return f"try {card.name}:{nodes * card.node}"


def tally(found: Found) -> Counter[str]:
    """How many layouts fell to what."""
    pruned = found.considered - found.too_large - found.timed
    return Counter(
        {
            "does not fit": found.too_large,
            "slower even on a perfect machine": pruned,
            "timed": found.timed,
        }
    )
