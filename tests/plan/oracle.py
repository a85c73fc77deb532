"""Which layouts are legal, written from the rules of the frameworks and by trying every combination of integers.

This file knows nothing of how the search generates layouts: it counts upwards and asks each rule. Two kinds of rules:

`broken` holds what a framework refuses to start with. Sources:
    Megatron-LM   megatron/training/arguments.py (world size, heads, pipeline and chunks, sequence parallelism),
                  core/num_microbatches_calculator.py (batch), core/pipeline_parallel/schedules.py (interleaving wants
                  whole rounds), core/parallel_state.py (the ranks of a stage are folded into expert groups)
    DualPipe      dualpipe/dualpipe.py lines 332-333 at 3da1bbe: an even number of ranks, an even number of
                  micro-batches, at least two a rank
    DeepSpeed     runtime/pipe/engine.py: "ZeRO-2 and ZeRO-3 are incompatible with pipeline parallelism";
                  runtime/engine.py: "MoE not supported with Stage 3"
    zero bubble   arXiv 2401.10241: ZB-H1 keeps one chunk a stage

`unwanted` holds what docs/plan.md promises beyond that: layouts that are legal but that the planner leaves out. The most replicas are asked for in `legal_layouts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from tumen.core.shape import Mla, Shape
from tumen.plan import Layout

SCHEDULES = ("1f1b", "interleaved", "zero-bubble", "dualpipe")
RECOMPUTE = ("none", "norm,act", "rmsnorm+mla-up", "layernorm,moe", "full")
MOST_CHUNKS = 8
MOST_MICRO_BATCH = 8


@dataclass(frozen=True)
class Question:
    """A network, the work of a step and a cluster: everything that decides whether a layout is legal."""

    shape: Shape
    seq_len: int
    batch_size: int
    gpus: int
    domain: int = 8  # GPUs that share a fast link


def broken(question: Question, layout: Layout) -> list[str]:
    """The rules of a framework that a layout breaks."""
    shape, found = question.shape, []
    stage_ranks = layout.tp * layout.cp * layout.dp
    micro_batches, rest = divmod(question.batch_size, layout.dp * layout.micro_batch)
    tokens = question.seq_len // layout.cp
    if stage_ranks * layout.pp > question.gpus:
        found.append("more ranks than GPUs")
    if shape.attention.num_attention_heads % layout.tp:
        found.append("tensor parallelism cuts a head")
    if question.seq_len % layout.cp:
        found.append("context parallelism cuts a token")
    if layout.tp > 1 and tokens % layout.tp:
        found.append("sequence parallelism cuts a token")
    if rest or not micro_batches:
        found.append("the batch is not made of whole micro-batches")
    if layout.pp * layout.vpp > shape.num_hidden_layers:
        found.append("a chunk without a layer")
    if min(layers_of_stages(shape.num_hidden_layers, layout.pp)) < 1:
        found.append("a stage without a layer")
    found += broken_schedule(layout, micro_batches)
    if shape.experts is None and layout.ep > 1:
        found.append("expert parallelism without experts")
    if shape.experts and shape.experts.n_routed_experts % layout.ep:
        found.append("experts do not divide")
    if stage_ranks % layout.ep:
        found.append("expert groups do not tile the ranks of a stage")
    if layout.zero == 3 and layout.pp > 1:
        found.append("ZeRO-3 in a pipeline")
    if layout.zero == 3 and shape.experts:
        found.append("ZeRO-3 with experts")
    if layout.recompute == "layernorm,moe" and shape.experts is None:
        found.append("recomputes experts that are not there")
    if layout.recompute == "rmsnorm+mla-up" and not isinstance(shape.attention, Mla):
        found.append("recomputes latent projections that are not there")
    return found


def broken_schedule(layout: Layout, micro_batches: int) -> list[str]:
    """The rules of the pipeline schedule that a layout breaks."""
    found = []
    if layout.pp == 1 and (layout.schedule != "1f1b" or layout.vpp > 1):
        found.append("a schedule without a pipeline")
    if layout.pp == 1:
        return found
    if (layout.schedule == "interleaved") != (layout.vpp > 1):
        found.append("only the interleaved schedule has chunks, and at least two")
    if layout.schedule == "interleaved" and micro_batches % layout.pp:
        found.append("interleaving wants whole rounds of the pipeline")
    if layout.schedule == "dualpipe" and layout.pp % 2:
        found.append("DualPipe wants an even number of stages")
    if layout.schedule == "dualpipe" and micro_batches % 2:
        found.append("DualPipe wants an even number of micro-batches")
    if layout.schedule == "dualpipe" and micro_batches < 2 * layout.pp:
        found.append("DualPipe wants two micro-batches a stage")
    return found


def layers_of_stages(layers: int, pp: int) -> list[int]:
    """Layers of each stage when all but the last hold the same number and the last one the rest."""
    full = -(-layers // pp)
    return [full] * (pp - 1) + [layers - full * (pp - 1)]


def unwanted(question: Question, layout: Layout) -> list[str]:
    """Promises of docs/plan.md that a legal layout breaks."""
    found = []
    used = layout.tp * layout.cp * layout.dp * layout.pp
    if 4 * used < 3 * question.gpus:
        found.append("more than a quarter of the GPUs are idle")
    if layout.tp not in (1, 2, 4, 8, 16, 32, 64):
        found.append("tensor parallelism is a power of two")
    if layout.tp > question.domain:
        found.append("tensor parallelism stays on the fast links")
    if layout.cp > 1 and question.seq_len // layout.cp < 8192:
        found.append("a rank keeps 8,192 tokens of a sequence")
    if layout.cp not in (1, 2, 4, 8, 16, 32):
        found.append("context parallelism is a power of two")
    if layout.vpp == 7:
        found.append("seven chunks are not tried")
    if layout.micro_batch not in (1, 2, 4, 8):
        found.append("a micro-batch is a power of two")
    stages = layers_of_stages(question.shape.num_hidden_layers, layout.pp)
    if stages[-1] < stages[0] // 2:
        found.append("the last stage holds at least half of the others' layers")
    return found


def every_mesh(gpus: int) -> Iterator[tuple[int, int, int, int]]:
    """All (tp, pp, cp, dp) of at most `gpus` ranks."""
    for tp, pp, cp, dp in product(range(1, gpus + 1), repeat=4):
        if tp * pp * cp * dp <= gpus:
            yield tp, pp, cp, dp


def every_layout(question: Question) -> Iterator[Layout]:
    """Every combination of integers and names that could be a layout; most are illegal.

    Combinations that one glance rules out are skipped at once: this saves minutes and decides nothing,
    as `broken` asks the same again.
    """
    shape, batch = question.shape, question.batch_size
    decisions = list(product(SCHEDULES, RECOMPUTE, (1, 3)))
    for tp, pp, cp, dp in every_mesh(question.gpus):
        if (
            shape.attention.num_attention_heads % tp
            or question.seq_len % cp
            or pp > shape.num_hidden_layers
            or batch % dp
        ):
            continue
        micros = [b for b in range(1, MOST_MICRO_BATCH + 1) if batch % (dp * b) == 0]
        chunks = range(1, MOST_CHUNKS + 1) if pp > 1 else (1,)
        groups = [ep for ep in range(1, tp * cp * dp + 1) if shape.experts or ep == 1]
        for micro, vpp, ep, chosen in product(micros, chunks, groups, decisions):
            schedule, recompute, zero = chosen
            yield Layout(tp, pp, vpp, dp, ep, cp, micro, zero, recompute, schedule, tp > 1)


def legal_layouts(question: Question) -> list[Layout]:
    """Every layout that no framework refuses and that the planner promises to consider."""
    found = [
        layout
        for layout in every_layout(question)
        if not broken(question, layout) and not unwanted(question, layout)
    ]
    # the planner promises the most replicas: of layouts that split the model alike, the widest
    most: dict[tuple[int, ...], int] = {}
    for layout in found:
        key = model_split(layout)
        most[key] = max(most.get(key, 0), layout.dp)
    return [layout for layout in found if layout.dp == most[model_split(layout)]]


def model_split(layout: Layout) -> tuple[int, ...]:
    """How a layout splits one replica of the model and its work."""
    return layout.tp, layout.pp, layout.cp, layout.micro_batch
