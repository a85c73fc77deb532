"""How a step is split over accelerators, checked against what the network and the batch allow."""

from __future__ import annotations

from dataclasses import dataclass

from tumen.core.errors import PlanError
from tumen.core.shape import Shape
from tumen.plan.facts import Accelerator
from tumen.plan.facts.card_table import GENERATIONS
from tumen.plan.model.scenario import SCHEDULES, Scenario, network
from tumen.plan.workload import Workload

MATMUL_FORMATS = {"fp8": 1.0, "fp4": 2.0, "fp8-row": 3.0}  # others are 16-bit: 0


@dataclass(frozen=True)
class Layout:
    """The degree of each kind of parallelism, and what else decides time and memory of a step."""

    tp: int = 1  # tensor parallel ranks
    pp: int = 1  # pipeline stages
    vpp: int = 1  # model chunks of a stage
    dp: int = 1  # data parallel ranks
    ep: int = 1  # expert parallel ranks, inside tp x cp x dp
    cp: int = 1  # context parallel ranks
    micro_batch: int = 1  # sequences
    zero: int = 1  # ZeRO stage
    recompute: str = "none"  # a name of RECOMPUTE
    schedule: str = "1f1b"
    sequence_parallel: bool = False

    @property
    def world_size(self) -> int:
        """Accelerators that the layout uses."""
        return self.tp * self.pp * self.dp * self.cp


@dataclass(frozen=True)
class Recomputation:
    """What a recompute policy does in the backward pass."""

    kind: int  # 0 nothing, 1 the attention core (arXiv 2205.05198), 2 whole layers
    matmuls: float  # share of the forward matmuls computed again
    rest: float  # share of the other forward operators computed again
    dropped: float  # share of the activations that need not be kept


RECOMPUTE = {
    "none": Recomputation(0, 0.0, 0.0, 0.0),
    "selective": Recomputation(1, 0.0, 0.0, 0.0),
    "norm,act": Recomputation(0, 0.0, 0.5, 0.33),
    # norms, MLA up projections and expert outputs (arXiv 2412.19437, section 3.2.3)
    "rmsnorm+mla-up": Recomputation(0, 0.15, 0.5, 0.57),
    "selective-op": Recomputation(0, 0.4, 0.8, 0.55),  # torchtitan keeps every second matmul
    "selective(block)": Recomputation(0, 0.33, 0.33, 0.33),  # every third block
    "two of three(block)": Recomputation(0, 0.67, 0.67, 0.67),
    "layernorm,moe": Recomputation(0, 0.6, 0.8, 0.7),
    "full": Recomputation(2, 1.0, 1.0, 1.0),
}


# ---------------------------------------------------------------------- scenarios


def scenario_of(workload: Workload, layout: Layout, accelerator: Accelerator) -> Scenario:
    """Return the scenario of a workload with a layout on accelerators of one kind.

    Raises:
        PlanError: the layout is illegal for the network or the batch.
    """
    check_layout(workload, layout)
    base = base_scenario(workload, accelerator, layout.world_size)
    return base.changed(**layout_fields(layout))


def base_scenario(workload: Workload, accelerator: Accelerator, world_size: int) -> Scenario:
    """Return the scenario of data parallelism alone, for a search to fill with layouts."""
    return Scenario(
        **network(workload.shape),
        **workload.software.fields(),
        **accelerator_fields(accelerator, workload.precision),
        **layout_fields(Layout(dp=world_size)),
        seq_len=workload.seq_len,
        batch_size=workload.batch_size,
    )


def accelerator_fields(accelerator: Accelerator, precision: str) -> dict[str, float]:
    """Return the fields of a scenario that come from the accelerator."""
    return {
        "matmul_flops": accelerator.flops(precision),
        "bf16_flops": accelerator.bf16_flops,
        "matmul_efficiency": accelerator.best_matmul,
        "matmul_format": MATMUL_FORMATS.get(precision, 0.0),
        "generation": GENERATIONS.index(accelerator.generation),
        "memory_bytes": accelerator.memory_bytes,
        "memory_rate": accelerator.memory_rate,
        "link_rate": accelerator.link_rate,
        "nic_rate": accelerator.nic_rate,
        "node": accelerator.node,
        "domain": accelerator.domain,
    }


def layout_fields(layout: Layout) -> dict[str, float]:
    """Return the fields of a scenario that come from the layout."""
    return {
        "world_size": layout.world_size,
        "tp": layout.tp,
        "pp": layout.pp,
        "vpp": layout.vpp,
        "dp": layout.dp,
        "ep": layout.ep,
        "cp": layout.cp,
        "micro_batch_size": layout.micro_batch,
        "zero": layout.zero,
        "shard": layout.dp * layout.cp if layout.zero else 1,
        "sequence_parallel": layout.sequence_parallel,
        "schedule": SCHEDULES.index(layout.schedule),
        **recompute_fields(layout.recompute),
    }


def recompute_fields(policy: str) -> dict[str, float]:
    """Return the fields of a scenario that come from a recompute policy.

    Raises:
        PlanError: `RECOMPUTE` does not have the policy.
    """
    if policy not in RECOMPUTE:
        raise PlanError(f"recompute {policy!r} is unknown; known: {', '.join(RECOMPUTE)}")
    found = RECOMPUTE[policy]
    return {
        "recompute": found.kind,
        "redo_matmul": found.matmuls,
        "redo_rest": found.rest,
        "dropped": found.dropped,
    }


# ---------------------------------------------------------------------- legality


def check_layout(workload: Workload, layout: Layout) -> None:
    """Reject a layout that no framework can run, naming the nearest legal value.

    Raises:
        PlanError: with the field, the reason and the nearest legal value.
    """
    for name in ("tp", "pp", "vpp", "dp", "ep", "cp", "micro_batch"):
        value = getattr(layout, name)
        if value < 1:
            raise PlanError(f"{name} {value} is below 1; the least is 1")
    check_heads(workload.shape, layout.tp)
    check_stages(workload.shape, layout)
    check_experts(workload.shape, layout)
    if workload.seq_len % layout.cp:
        best = nearest(divisors(workload.seq_len), layout.cp)
        raise PlanError(
            f"cp {layout.cp} does not divide {workload.seq_len} tokens; the nearest is {best}"
        )
    least = layout.dp * layout.micro_batch
    if least > workload.batch_size:
        raise PlanError(
            f"batch {workload.batch_size} is smaller than the mesh: "
            f"micro-batch {layout.micro_batch} x dp {layout.dp}; use {least}"
        )


def check_heads(shape: Shape, tp: int) -> None:
    """Reject tensor parallelism that splits a head.

    Raises:
        PlanError: `tp` does not divide the heads.
    """
    heads = shape.attention.num_attention_heads
    if heads % tp:
        best = nearest(divisors(heads), tp)
        raise PlanError(f"tp {tp} does not divide {heads} heads; the nearest that does is {best}")


def check_stages(shape: Shape, layout: Layout) -> None:
    """Reject a stage or a chunk without a layer.

    Raises:
        PlanError: more stages, or more chunks, than layers.
    """
    layers = shape.num_hidden_layers
    if layout.pp > layers:
        raise PlanError(f"pp {layout.pp} is more than {layers} layers; the most is {layers}")
    if layout.vpp > 1 and layout.pp * layout.vpp > layers:
        most = max(layers // layout.pp, 1)
        raise PlanError(
            f"vpp {layout.vpp} x pp {layout.pp} is more than {layers} layers; vpp can be {most}"
        )


def check_experts(shape: Shape, layout: Layout) -> None:
    """Reject expert parallelism that does not divide experts and ranks.

    Raises: PlanError: the network is dense, or `ep` does not divide its experts and the ranks of a
    stage.
    """
    if shape.experts is None:
        if layout.ep > 1:
            raise PlanError(f"ep {layout.ep}: the network has no experts; ep is 1")
        return
    routed = shape.experts.n_routed_experts
    stage_ranks = layout.dp * layout.cp * layout.tp
    options = [d for d in divisors(routed) if stage_ranks % d == 0]
    if layout.ep not in options:
        raise PlanError(
            f"ep {layout.ep} does not divide {routed} experts and the ranks of a stage; "
            f"nearest is {nearest(options, layout.ep)}"
        )


def nearest(options: list[int], wanted: int) -> int:
    """Return the legal value closest to a wanted one; the smaller of two."""

    def distance(option: int) -> tuple[int, int]:
        return abs(option - wanted), option

    return min(options, key=distance)


def divisors(number: int) -> list[int]:
    """Return all divisors of a number, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]
