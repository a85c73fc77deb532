"""A scenario: all that the cost model needs to know, as numbers that broadcast.

A scenario is one network with one layout on one kind of accelerator under one software release.
Each field is a float or an array. With arrays, a scenario is a whole table (the rows of a file, or
the layouts of a search), and every function of `step`, `memory` and `bound` computes the table in
one pass.

Sizes are in elements and rates in units a second; links count one way and per accelerator. Symbols
of the Megatron papers (arXiv 2104.04473, 2205.05198) stand in brackets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumen.core.shape import Experts, Gqa, Mla, Shape

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Number = Any  # a float or an Array: the model is written once for both

# Kinds of activation recompute: nothing, the attention core, the whole layer.
NONE = 0.0
SELECTIVE = 1.0
FULL = 2.0
SCHEDULES = ("1f1b", "interleaved", "zero-bubble", "dualpipe")


@dataclass(frozen=True)
class Scenario:
    """One scenario, or a table of them. The module docstring states the units."""

    # the network
    hidden_size: Number  # [h]
    num_hidden_layers: Number  # [L]
    num_attention_heads: Number  # [a]
    query_dim: Number  # of one head
    value_dim: Number  # of one head
    kv_elements: Number  # keys and values of one token and layer after projection, without TP
    down_columns: Number  # MLA: columns of the joint down projection, not split by TP
    up_rows: Number  # input width of the query (or joint qkv) projection
    up_columns: Number  # its output width, split by TP
    kv_up_rows: Number  # MLA: rank of the latent; 0 without
    kv_up_columns: Number  # MLA: output width of the latent's up projection
    intermediate_size: Number  # width of a dense feed-forward
    matrices: Number  # of a feed-forward: 3 gated, 2 plain
    moe_layers: Number
    n_routed_experts: Number  # of one layer
    num_experts_per_tok: Number
    moe_intermediate_size: Number
    shared_intermediate_size: Number  # all shared experts of a layer together
    topk_group: Number  # most nodes (devices) a token is sent to; 0 without limit
    vocab_size: Number
    tie_word_embeddings: Number
    n_positions: Number  # learned positions, 0 when rotary
    num_nextn_predict_layers: Number  # multi-token-prediction layers
    window: Number  # sliding window in tokens, 0 for full attention
    # the work of one step
    seq_len: Number  # tokens of one sequence [s]
    batch_size: Number  # sequences of one step
    micro_batch_size: Number  # sequences of one micro-batch on one rank [b]
    # the layout
    world_size: Number  # ranks: one per accelerator
    tp: Number  # tensor parallel ranks [t]
    pp: Number  # pipeline stages [p]
    vpp: Number  # model chunks of a stage [v]
    dp: Number  # data parallel ranks [d]
    ep: Number  # expert parallel ranks
    cp: Number  # context parallel ranks
    zero: Number  # ZeRO stage: 0 none, 1 optimizer, 2 and gradients, 3 and parameters (FSDP)
    shard: Number  # ranks that share one copy of what `zero` shards
    sequence_parallel: Number  # with TP: norms and residuals are split as well
    recompute: Number  # NONE, SELECTIVE or FULL
    redo_matmul: Number  # share of the forward matmuls recomputed in the backward pass
    redo_rest: Number  # share of the other forward operators recomputed
    dropped: Number  # share of the activations that recompute makes unnecessary to keep
    schedule: Number  # index into SCHEDULES
    # the accelerator and its links
    matmul_flops: Number  # peak of the matmul format, dense
    bf16_flops: Number  # peak of bf16, dense
    matmul_efficiency: Number  # best measured share of the peak of a large matmul
    matmul_format: Number  # 0 for 16-bit, 1 for 8-bit, 2 for 4-bit, 3 for 8-bit with a scale a row
    generation: Number  # 0 Ampere, 1 Hopper, 2 Blackwell, 3 other
    memory_bytes: Number
    memory_rate: Number  # bytes a second
    link_rate: Number  # scale-up link, bytes a second
    nic_rate: Number  # network, bytes a second
    node: Number  # accelerators of a node
    domain: Number  # accelerators of one scale-up domain
    # the software
    kernel: Number  # attention: 0 unfused, 1-3 flash (3: or cuDNN), 4 unfused and unaligned softmax
    fusion: Number  # of elementwise operators: 0 eager, 1 hand-fused, 2 compiled
    tp_overlap: Number  # 1 where traffic of this kind overlaps with compute; so are the next three
    dp_overlap: Number
    pp_overlap: Number
    ep_overlap: Number
    scatter_sends: Number  # 1 where pipeline sends are split over the TP ranks
    rails: Number  # network cards of a node that one group can use
    reduce_bytes: Number  # of one gradient element on the wire
    gradient_bytes: Number  # of one gradient element in memory
    keeps_8bit_inputs: Number  # 1 where 8-bit matmuls keep their inputs in one byte
    live_weights: Number  # most weights that ZeRO-3 holds gathered at once
    loss_bytes: Number  # of one logit at the peak
    buffer_bytes: Number  # flat communication buckets of the framework
    unfused_accumulation: Number  # 1: a new gradient is kept beside the main copy until it is added
    launch_factor: Number  # host time of a layer's launches, in multiples of the fitted one
    dropout: Number  # 1 when dropout masks are kept
    factor: Number  # software factor of (framework, release)

    @property
    def tokens(self) -> Number:
        """Tokens of one micro-batch on one rank, after context parallelism."""
        return self.micro_batch_size * self.seq_len / self.cp

    @property
    def micro_batches(self) -> Number:
        """Micro-batches that one pipeline runs in a step [m]."""
        return np.ceil(self.batch_size / (self.dp * self.micro_batch_size) - 1e-9)

    @property
    def stage_layers(self) -> Number:
        """Layers of the fullest stage."""
        return np.ceil(self.num_hidden_layers / self.pp - 1e-9)

    @property
    def last_layers(self) -> Number:
        """Layers of the last stage, which also holds the head."""
        return np.maximum(self.num_hidden_layers - (self.pp - 1) * self.stage_layers, 0)

    @property
    def context(self) -> Number:
        """Most tokens that a query attends to: the window, or the whole sequence."""
        windowed = np.minimum(self.window, self.seq_len)
        return np.where(self.window > 0, windowed, self.seq_len)

    @property
    def causal_share(self) -> Number:
        """Share of tokens x context pairs that causal attention computes."""
        # only the first window of a sequence is a triangle
        windowed = np.minimum(1.0, 1.0 - 0.5 * self.context / self.seq_len)
        return np.where(self.window > 0, windowed, 0.5)

    @property
    def moe_share(self) -> Number:
        """Share of the layers that are mixtures of experts."""
        return self.moe_layers / self.num_hidden_layers

    @property
    def has_experts(self) -> Number:
        """Whether the network has routed experts."""
        return self.n_routed_experts > 0

    @property
    def routed_weights(self) -> Number:
        """Weights of the routed experts of one layer on one rank."""
        one = self.matrices * self.hidden_size * self.moe_intermediate_size
        return one * self.n_routed_experts / self.ep

    @property
    def norm_split(self) -> Number:
        """Ranks that share norms and residuals: the TP ranks under sequence parallelism."""
        return np.where(self.sequence_parallel > 0, self.tp, 1.0)

    @property
    def repeats_all(self) -> Number:
        """Whether the backward pass recomputes whole layers."""
        return self.recompute >= FULL

    def take(self, index: Any) -> Scenario:
        """Return the rows of a table that `index` selects."""
        rows = {f.name: pick(getattr(self, f.name), index) for f in fields(self)}
        return Scenario(**rows)

    def changed(self, **values: Number) -> Scenario:
        """Return the same scenario with other values."""
        return replace(self, **values)


def pick(value: Number, index: Any) -> Number:
    """Return rows of an array; a plain number stands for every row."""
    return value[index] if np.ndim(value) else value


def stack(scenarios: Sequence[Scenario]) -> Scenario:
    """Return one table from many single scenarios."""
    columns = {}
    for field in fields(Scenario):
        values = [float(getattr(scenario, field.name)) for scenario in scenarios]
        columns[field.name] = np.array(values)
    return Scenario(**columns)


def network(shape: Shape) -> dict[str, float]:
    """Return the fields of a scenario that come from the shape of the network."""
    return {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_hidden_layers,
        **attention_fields(shape),
        "intermediate_size": shape.intermediate_size,
        "matrices": 3 if shape.gated else 2,
        "moe_layers": shape.moe_layers,
        **expert_fields(shape.experts),
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "n_positions": shape.n_positions,
        "num_nextn_predict_layers": shape.num_nextn_predict_layers,
        "window": shape.window,
    }


def attention_fields(shape: Shape) -> dict[str, float]:
    """Return the sizes of the attention projections."""
    if isinstance(shape.attention, Mla):
        return latent_attention(shape.attention, shape.hidden_size)
    return grouped_attention(shape.attention, shape.hidden_size)


def latent_attention(attention: Mla, hidden_size: int) -> dict[str, float]:
    """Return the projections of latent attention (arXiv 2405.04434, equations 9-19)."""
    heads = attention.num_attention_heads
    latent = attention.kv_lora_rank + attention.qk_rope_head_dim
    return {
        "num_attention_heads": heads,
        "query_dim": attention.query_dim,
        "value_dim": attention.v_head_dim,
        "kv_elements": heads * (attention.query_dim + attention.v_head_dim),
        "down_columns": latent + (attention.q_lora_rank or 0),
        "up_rows": attention.q_lora_rank or hidden_size,
        "up_columns": heads * attention.query_dim,
        "kv_up_rows": attention.kv_lora_rank,
        "kv_up_columns": heads * (attention.qk_nope_head_dim + attention.v_head_dim),
    }


def grouped_attention(attention: Gqa, hidden_size: int) -> dict[str, float]:
    """Return the joint projection of queries and of grouped keys and values."""
    heads = attention.num_attention_heads
    kv_heads = attention.num_key_value_heads
    return {
        "num_attention_heads": heads,
        "query_dim": attention.query_dim,
        "value_dim": attention.head_dim,
        "kv_elements": 2 * kv_heads * attention.head_dim,
        "down_columns": 0,
        "up_rows": hidden_size,
        "up_columns": (heads + 2 * kv_heads) * attention.head_dim,
        "kv_up_rows": 0,
        "kv_up_columns": 0,
    }


def expert_fields(experts: Experts | None) -> dict[str, float]:
    """Return the sizes of the experts; zeros for a dense network."""
    if experts is None:
        return {
            "n_routed_experts": 0,
            "num_experts_per_tok": 0,
            "moe_intermediate_size": 0,
            "shared_intermediate_size": 0,
            "topk_group": 0,
        }
    return {
        "n_routed_experts": experts.n_routed_experts,
        "num_experts_per_tok": experts.num_experts_per_tok,
        "moe_intermediate_size": experts.moe_intermediate_size,
        "shared_intermediate_size": experts.n_shared_experts * experts.moe_intermediate_size,
        "topk_group": experts.topk_group,
    }
