"""What is asked: a network, the work of the run, and the cards; checked with the nearest legal value in each
refusal.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tumen.core import units
from tumen.core.errors import PlanError
from tumen.core.shape import Shape
from tumen.plan.facts.card import GENERATIONS, Card, Group
from tumen.plan.facts.software import Software, software
from tumen.plan.model.case import Case, network
from tumen.recipe import Planning, Recipe


@dataclass(frozen=True)
class Layout:
    """How a step is split over the cards. `shard` is the number of ranks that share one copy of what `zero` shards."""

    tp: int = 1
    pp: int = 1
    vpp: int = 1
    dp: int = 1
    ep: int = 1
    cp: int = 1
    micro_batch: int = 1
    zero: int = 1
    recompute: str = "none"
    schedule: str = "1f1b"
    sequence_parallel: bool = False

    @property
    def cards(self) -> int:
        """Cards the layout uses."""
        return self.tp * self.pp * self.dp * self.cp


@dataclass(frozen=True)
class Job:
    """One run to plan: `batch` sequences of `seq` tokens a step, `tokens` in all, matmuls in `precision`."""

    shape: Shape
    seq: int
    batch: int
    tokens: float
    precision: str = "bf16"
    soft: Software = field(default_factory=software)
    name: str = "run"


def job_of(recipe: Recipe, tier: str | None = None) -> Job:
    """The job of a recipe's tier; `[plan]` says the work, or else the tier's own training section does.

    Raises:
        PlanError: no such tier, or the network has no vocabulary.
    """
    plan: Planning = recipe.plan
    name = tier or plan.tier or next(iter(recipe.family))
    if name not in recipe.family:
        raise PlanError(f"{recipe.name} has no tier {name!r}; it has {', '.join(recipe.family)}")
    chosen = recipe.family[name]
    shape = chosen.shape
    if not shape.vocab_size:
        shape = shape.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size})
    train = chosen.train
    seq = plan.seq_len or train.seq_len
    batch = train.batch_size if plan.batch_tokens is None else sequences(plan.batch_tokens, seq)
    tokens = (
        float(train.steps * train.batch_size * train.seq_len)
        if plan.tokens is None
        else units.count(plan.tokens)
    )
    if tokens < batch * seq:
        raise PlanError(
            f"plan.tokens {plan.tokens} is less than one step; the least is {batch * seq}"
        )
    precision = plan.precision or ("fp32" if train.precision == "fp32" else "bf16")
    soft = software(plan.framework, plan.release)
    return Job(shape, seq, batch, tokens, precision, soft, f"{recipe.name}/{name}")


def sequences(batch_tokens: str | int, seq: int) -> int:
    """Sequences of a step: exact for a number, four significant bits for a text such as `4M`, so that meshes divide
    it.
    """
    count = round(units.count(batch_tokens) / seq)
    if count < 1:
        raise PlanError(
            f"plan.batch_tokens {batch_tokens} is less than one sequence; the least is {seq}"
        )
    if isinstance(batch_tokens, int) or count < 16:
        return count
    unit = 1 << (count.bit_length() - 4)
    return max(round(count / unit), 1) * unit


def case_of(job: Job, layout: Layout, card: Card) -> Case:
    """The single case of a layout on cards of one kind.

    Raises:
        PlanError: the layout is illegal for the network or the batch.
    """
    legal(job, layout, card)
    return base_case(job, card, layout.cards).but(**layout_fields(layout))


def base_case(job: Job, card: Card, cards: int) -> Case:
    """A case of the trivial layout, for a search to fill."""
    return Case(
        **network(job.shape),
        **job.soft.fields(),
        **card_fields(card, job.precision),
        seq=job.seq,
        batch=job.batch,
        micro=1,
        cards=cards,
        tp=1,
        pp=1,
        vpp=1,
        dp=cards,
        ep=1,
        cp=1,
        zero=1,
        shard=cards,
        sp=0,
        recompute=0,
        redo_matmul=0.0,
        redo_rest=0.0,
        dropped=0.0,
        schedule=0,
    )


def card_fields(card: Card, precision: str) -> dict[str, float]:
    """The fields of a case that come from the card."""
    return {
        "matmul_flops": card.flops(precision),
        "half_flops": card.bf16_flops,
        "matmul_share": card.best_matmul,
        "fp8": {"fp8": 1.0, "fp4": 2.0, "fp8-row": 3.0}.get(precision, 0.0),
        "generation": GENERATIONS.index(card.generation),
        "memory_bytes": card.memory_bytes,
        "memory_rate": card.memory_rate,
        "link_rate": card.link_rate,
        "nic_rate": card.nic_rate,
        "node": card.node,
        "domain": card.domain,
    }


# policy -> (kind, share of matmuls done again, share of other operators, share of activations not kept)
RECOMPUTE = {
    "none": (0, 0.0, 0.0, 0.0),
    "selective": (1, 0.0, 0.0, 0.0),  # the attention core, arXiv 2205.05198
    "norm,act": (0, 0.0, 0.5, 0.33),
    # norms, MLA up projections and expert outputs are made again (arXiv 2412.19437, section 3.2.3)
    "rmsnorm+mla-up": (0, 0.15, 0.5, 0.57),
    "selective-op": (0, 0.4, 0.8, 0.55),  # torchtitan keeps every second matmul
    "selective(block)": (0, 0.33, 0.33, 0.33),  # every third block
    "two of three(block)": (0, 0.67, 0.67, 0.67),
    "layernorm,moe": (0, 0.6, 0.8, 0.7),
    "full": (2, 1.0, 1.0, 1.0),
}


def recompute_of(name: str) -> dict[str, float]:
    """Fields of a recompute policy.

    Raises:
        PlanError: nobody taught us this policy.
    """
    if name not in RECOMPUTE:
        raise PlanError(f"recompute {name!r} is unknown; known: {', '.join(RECOMPUTE)}")
    kind, matmuls, rest, dropped = RECOMPUTE[name]
    return {"recompute": kind, "redo_matmul": matmuls, "redo_rest": rest, "dropped": dropped}


def layout_fields(layout: Layout) -> dict[str, float]:
    """The fields of a case that come from the layout."""
    from tumen.plan.model.case import SCHEDULES

    return {
        "cards": layout.cards,
        "tp": layout.tp,
        "pp": layout.pp,
        "vpp": layout.vpp,
        "dp": layout.dp,
        "ep": layout.ep,
        "cp": layout.cp,
        "micro": layout.micro_batch,
        "zero": layout.zero,
        "shard": layout.dp * layout.cp if layout.zero else 1,
        "sp": layout.sequence_parallel,
        "schedule": SCHEDULES.index(layout.schedule),
        **recompute_of(layout.recompute),
    }


def nearest(options: list[int], wanted: int) -> int:
    """The legal value closest to a wanted one; the smaller of two."""
    return min(options, key=lambda option: (abs(option - wanted), option))


def divisors(number: int) -> list[int]:
    """All divisors of a number, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def legal(job: Job, layout: Layout, card: Card) -> None:
    """Refuse a layout no framework can run, naming the nearest legal value.

    Raises:
        PlanError: with the field, the reason and the nearest legal value.
    """
    attention, experts = job.shape.attention, job.shape.experts
    for name in ("tp", "pp", "vpp", "dp", "ep", "cp", "micro_batch"):
        if getattr(layout, name) < 1:
            raise PlanError(f"{name} {getattr(layout, name)} is below 1; the least is 1")
    if attention.num_attention_heads % layout.tp:
        best = nearest(divisors(attention.num_attention_heads), layout.tp)
        raise PlanError(
            f"tp {layout.tp} does not divide {attention.num_attention_heads} heads; the nearest that does is {best}"
        )
    if layout.pp > job.shape.num_hidden_layers:
        raise PlanError(
            f"pp {layout.pp} is more than {job.shape.num_hidden_layers} layers; the most is {job.shape.num_hidden_layers}"
        )
    if layout.vpp > 1 and layout.pp * layout.vpp > job.shape.num_hidden_layers:
        most = max(job.shape.num_hidden_layers // layout.pp, 1)
        raise PlanError(
            f"vpp {layout.vpp} x pp {layout.pp} is more than {job.shape.num_hidden_layers} layers; vpp can be {most}"
        )
    if layout.ep > 1 and not experts:
        raise PlanError(f"ep {layout.ep}: the network has no experts; ep is 1")
    if experts and (
        experts.n_routed_experts % layout.ep or (layout.dp * layout.cp * layout.tp) % layout.ep
    ):
        options = [
            d
            for d in divisors(experts.n_routed_experts)
            if (layout.dp * layout.cp * layout.tp) % d == 0
        ]
        best = nearest(options, layout.ep)
        raise PlanError(
            f"ep {layout.ep} does not divide {experts.n_routed_experts} experts and the ranks of a stage; nearest is {best}"
        )
    if job.seq % layout.cp:
        raise PlanError(
            f"cp {layout.cp} does not divide {job.seq} tokens; the nearest is {nearest(divisors(job.seq), layout.cp)}"
        )
    if layout.dp * layout.micro_batch > job.batch:
        least = layout.dp * layout.micro_batch
        raise PlanError(
            f"batch {job.batch} is smaller than the mesh: micro-batch {layout.micro_batch} x dp {layout.dp}; use {least}"
        )


def renamed(job: Job, soft: Software) -> Job:
    """The same job under another software."""
    return replace(job, soft=soft)


def first_group(groups: list[Group]) -> Group:
    """The group of a fleet a single plan uses.

    Raises:
        PlanError: the fleet mixes cards; one synchronous job needs one kind.
    """
    if len({group.card.name for group in groups}) > 1:
        names = ", ".join(f"{group.card.name}:{group.count}" for group in groups)
        raise PlanError(
            f"--fleet {names} mixes cards; plan one kind at a time, or compare them with --compare {names}"
        )
    return replace(groups[0], count=sum(group.count for group in groups))
