"""The layouts that a search considers: legal for network, batch and schedule, and sensible.

Beyond legality the planner promises: at most a quarter of the fleet is idle, the most replicas that
divide the batch, tensor parallelism in powers of two inside a scale-up domain, at least 8,192
tokens of a sequence on a context-parallel rank, and nearly even pipeline stages.
tests/plan/oracle.py states the same rules independently, with the sources in the frameworks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tumen.core.errors import PlanError
from tumen.core.shape import Mla, Shape
from tumen.plan.facts import Accelerator
from tumen.plan.layout import RECOMPUTE, Layout, base_scenario, check_heads, divisors, nearest
from tumen.plan.model.scenario import SCHEDULES, Array, Scenario
from tumen.plan.workload import Workload

POLICIES = ("none", "norm,act", "rmsnorm+mla-up", "layernorm,moe", "full")
MOST_IDLE = 0.25  # share of the fleet that a layout may leave idle so that numbers divide
MOST_TENSOR = 64
MOST_STAGES = 128
MOST_EXPERT_RANKS = 128
CONTEXT_RANKS = (1, 2, 4, 8, 16, 32)
LEAST_CONTEXT_TOKENS = 8192  # of a sequence on one context-parallel rank


@dataclass(frozen=True)
class Space:
    """The values that a search tries, by kind of parallelism."""

    tensor: tuple[int, ...]
    pipeline: tuple[int, ...]
    chunks: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8)
    context: tuple[int, ...] = (1,)
    expert: tuple[int, ...] = (1,)
    micro: tuple[int, ...] = (1, 2, 4, 8)
    policies: tuple[str, ...] = POLICIES
    zero: tuple[int, ...] = (1, 3)
    schedules: tuple[str, ...] = SCHEDULES


class LayoutRow(NamedTuple):
    """One row of the table of layouts."""

    tp: int
    pp: int
    vpp: int
    cp: int
    ep: int
    dp: int
    micro: int
    policy: int  # index into POLICIES
    zero: int
    schedule: int  # index into SCHEDULES


# ---------------------------------------------------------------------- values to try


def space_of(workload: Workload, accelerator: Accelerator, fleet_size: int) -> Space:
    """Return the legal and sensible values for a workload on a fleet of one kind."""
    shape = workload.shape
    return Space(
        tensor=tensor_degrees(shape, accelerator),
        pipeline=stage_counts(shape, fleet_size),
        context=context_degrees(workload.seq_len),
        expert=expert_degrees(shape),
    )


def tensor_degrees(shape: Shape, accelerator: Accelerator) -> tuple[int, ...]:
    """Return the tensor-parallel ranks: powers of two that divide the heads, inside a domain."""
    widest = max(accelerator.domain, accelerator.node)
    widest = min(widest, MOST_TENSOR)
    heads = divisors(shape.attention.num_attention_heads)
    return tuple(t for t in heads if t <= widest and is_power_of_two(t))


def stage_counts(shape: Shape, fleet_size: int) -> tuple[int, ...]:
    """Return the pipeline stages that hold nearly the same number of layers."""
    layers = shape.num_hidden_layers
    most = min(layers, fleet_size, MOST_STAGES)
    return tuple(p for p in range(1, most + 1) if even_enough(layers, p))


def context_degrees(seq_len: int) -> tuple[int, ...]:
    """Return the context-parallel ranks that divide a sequence into long enough parts."""
    most = max(seq_len // LEAST_CONTEXT_TOKENS, 1)
    return tuple(c for c in CONTEXT_RANKS if c <= most and seq_len % c == 0)


def expert_degrees(shape: Shape) -> tuple[int, ...]:
    """Return the expert-parallel ranks that divide the routed experts; one without experts."""
    if shape.experts is None:
        return (1,)
    routed = divisors(shape.experts.n_routed_experts)
    return tuple(e for e in routed if e <= MOST_EXPERT_RANKS)


def is_power_of_two(number: int) -> bool:
    """Return whether a positive number is a power of two."""
    return number & (number - 1) == 0


def even_enough(layers: int, pp: int) -> bool:
    """Return whether the last stage holds at least half of the others' layers, and at least one."""
    most = -(-layers // pp)
    last = layers - (pp - 1) * most
    return last >= max(most // 2, 1) or layers % pp == 0


PINS = {
    "tp": "tensor",
    "pp": "pipeline",
    "vpp": "chunks",
    "ep": "expert",
    "cp": "context",
    "micro_batch": "micro",
    "zero": "zero",
}


def pinned(space: Space, pin: Mapping[str, int], workload: Workload) -> Space:
    """Return the space with parts of the layout fixed.

    Args:
        space: values to try otherwise.
        pin: values by the names of `PINS`.
        workload: what is to be trained.

    Raises:
        PlanError: a part that the network cannot have, with the nearest legal value.
    """
    check_heads(workload.shape, pin.get("tp", 1))
    check_experts(workload.shape, pin.get("ep", 1))
    if pin.get("zero", 1) > 3:
        raise PlanError(f"zero {pin['zero']} is not a ZeRO stage; the nearest legal value is 3")
    if pin.get("micro_batch", 1) > workload.batch_size:
        raise PlanError(
            f"micro_batch {pin['micro_batch']} is more than the batch; "
            f"the most is {workload.batch_size}"
        )
    layers = workload.shape.num_hidden_layers
    if pin.get("pp", 1) > layers:
        raise PlanError(f"pp {pin['pp']} is more than {layers} layers; the most is {layers}")
    chosen = {PINS[name]: (value,) for name, value in pin.items()}
    return replace(space, **chosen)  # type: ignore[arg-type]


def check_experts(shape: Shape, ep: int) -> None:
    """Check that expert-parallel ranks divide the experts.

    Raises:
        PlanError: names the nearest number that does.
    """
    experts = shape.experts.n_routed_experts if shape.experts else 1
    if experts % ep:
        best = nearest(divisors(experts), ep)
        raise PlanError(
            f"ep {ep} does not divide {experts} experts; the nearest that does is {best}"
        )


# ---------------------------------------------------------------------- the table of layouts


def layout_table(workload: Workload, fleet_size: int, space: Space) -> Array:
    """Return every legal layout of a space as a row of numbers in the order of `LayoutRow`."""
    return np.array(list(layouts(workload, fleet_size, space)), dtype=float)


def layouts(workload: Workload, fleet_size: int, space: Space) -> Iterator[LayoutRow]:
    """Yield every legal layout of a space on a fleet."""
    for tp, pp, cp in itertools.product(space.tensor, space.pipeline, space.context):
        # sequence parallelism splits the tokens of a context rank over the tensor ranks
        if (workload.seq_len // cp) % tp:
            continue
        most_replicas = fleet_size // (tp * pp * cp)
        for micro in space.micro:
            dp = widest_group(workload.batch_size, most_replicas, micro)
            used = dp * tp * pp * cp
            if dp == 0 or used < (1 - MOST_IDLE) * fleet_size:
                continue
            mesh = LayoutRow(tp, pp, 1, cp, 1, dp, micro, 0, 1, 0)
            yield from layouts_of_mesh(workload, space, mesh)


def layouts_of_mesh(workload: Workload, space: Space, mesh: LayoutRow) -> Iterator[LayoutRow]:
    """Yield the legal experts, schedules, recompute policies and ZeRO stages of a mesh."""
    stage_ranks = mesh.tp * mesh.cp * mesh.dp
    micro_batches = workload.batch_size // (mesh.dp * mesh.micro)
    layers = workload.shape.num_hidden_layers
    for ep in space.expert:
        if not experts_divide(workload, ep, stage_ranks):
            continue
        for vpp, schedule in itertools.product(space.chunks, space.schedules):
            if schedule_is_legal(layers, mesh.pp, vpp, schedule, micro_batches):
                kind = SCHEDULES.index(schedule)
                row = mesh._replace(vpp=vpp, ep=ep, schedule=kind)
                yield from layouts_of_schedule(workload, space, row)


def layouts_of_schedule(workload: Workload, space: Space, row: LayoutRow) -> Iterator[LayoutRow]:
    """Yield the legal recompute policies and ZeRO stages of a mesh with a schedule."""
    for policy, zero in itertools.product(space.policies, space.zero):
        if zero_is_legal(workload, zero, row.pp) and policy_applies(workload, policy):
            yield row._replace(policy=POLICIES.index(policy), zero=zero)


def widest_group(batch_size: int, most: int, micro: int) -> int:
    """Return the most replicas that divide the batch into whole micro-batches; 0 if none does.

    Args:
        batch_size: sequences of a step.
        most: replicas that the fleet has room for.
        micro: sequences of a micro-batch.
    """
    if batch_size % micro:
        return 0
    whole = batch_size // micro
    for dp in range(min(most, whole), 0, -1):
        if whole % dp == 0:
            return dp
    return 0


def experts_divide(workload: Workload, ep: int, stage_ranks: int) -> bool:
    """Return whether expert groups tile the ranks of a stage and the experts.

    Args:
        workload: what is to be trained.
        ep: expert-parallel ranks.
        stage_ranks: ranks of one pipeline stage.
    """
    if stage_ranks % ep:
        return False
    experts = workload.shape.experts
    return experts is None or experts.n_routed_experts % ep == 0


def schedule_is_legal(layers: int, pp: int, vpp: int, schedule: str, micro_batches: int) -> bool:
    """Return whether a pipeline schedule exists for so many stages, chunks and micro-batches.

    Only the interleaved schedule has chunks, and it needs whole rounds of micro-batches
    (Megatron-LM, core/pipeline_parallel/schedules.py). DualPipe needs an even number of stages and
    of micro-batches, and two micro-batches a stage (deepseek-ai/DualPipe, dualpipe/dualpipe.py).

    Args:
        layers: of the network.
        pp: pipeline stages.
        vpp: model chunks of a stage.
        schedule: a name of SCHEDULES.
        micro_batches: of a step, on one replica.
    """
    if pp == 1:
        return vpp == 1 and schedule == "1f1b"
    if schedule == "interleaved":
        return vpp > 1 and layers >= pp * vpp and micro_batches % pp == 0
    if schedule == "dualpipe":
        even = pp % 2 == 0 and micro_batches % 2 == 0
        return vpp == 1 and even and micro_batches >= 2 * pp
    return vpp == 1


def zero_is_legal(workload: Workload, zero: int, pp: int) -> bool:
    """Return whether a ZeRO stage works with the pipeline and the network.

    ZeRO-3 works with neither a pipeline nor experts (DeepSpeed, runtime/pipe/engine.py and
    runtime/engine.py).
    """
    if zero < 3:
        return True
    return pp == 1 and workload.shape.experts is None


def policy_applies(workload: Workload, policy: str) -> bool:
    """Return whether the network has what a recompute policy recomputes."""
    if policy == "layernorm,moe":
        return workload.shape.experts is not None
    if policy == "rmsnorm+mla-up":
        return isinstance(workload.shape.attention, Mla)
    return True


# ---------------------------------------------------------------------- rows to layouts


def scenario_table(
    workload: Workload, accelerator: Accelerator, fleet_size: int, rows: Array
) -> Scenario:
    """Return the scenarios of rows of the layout table as one table."""
    tp, pp, vpp, cp, ep, dp, micro, policy, zero, schedule = rows.T
    chosen = policy.astype(int)
    recompute = {}
    for name in ("kind", "matmuls", "rest", "dropped"):
        of_policies = [float(getattr(RECOMPUTE[one], name)) for one in POLICIES]
        recompute[name] = np.array(of_policies)[chosen]
    return base_scenario(workload, accelerator, fleet_size).changed(
        world_size=tp * pp * cp * dp,
        tp=tp,
        pp=pp,
        vpp=vpp,
        cp=cp,
        ep=ep,
        dp=dp,
        micro_batch_size=micro,
        zero=zero,
        shard=dp * cp,
        sequence_parallel=np.where(tp > 1, 1.0, 0.0),
        schedule=schedule,
        recompute=recompute["kind"],
        redo_matmul=recompute["matmuls"],
        redo_rest=recompute["rest"],
        dropped=recompute["dropped"],
    )


def layout_of(row: Array) -> Layout:
    """Return the layout of one row of the layout table."""
    tp, pp, vpp, cp, ep, dp, micro, policy, zero, schedule = (int(value) for value in row)
    return Layout(
        tp=tp,
        pp=pp,
        vpp=vpp,
        dp=dp,
        ep=ep,
        cp=cp,
        micro_batch=micro,
        zero=zero,
        recompute=POLICIES[policy],
        schedule=SCHEDULES[schedule],
        sequence_parallel=tp > 1,
    )
