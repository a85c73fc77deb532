"""A case: everything the cost model needs to know about one question, as numbers that broadcast.

Each field is a float or an array; a case with arrays is a whole table of questions (rows of a file, or the layouts of a
search), and every function of `time`, `memory` and `bound` takes it in one pass. Sizes are in elements, rates in
units per second, links one way and per card. Field names say what they count; symbols of the Megatron papers stand in
brackets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumen.core.shape import Mla, Shape

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Number = Any  # a float or an Array: the model is written once for both

NONE, SELECTIVE, FULL = 0.0, 1.0, 2.0
SCHEDULES = ("1f1b", "interleaved", "zero-bubble", "dualpipe")


@dataclass(frozen=True)
class Case:
    """One question, or a table of them. See the module docstring for units."""

    # the network
    width: Number  # [h]
    layers: Number  # [L]
    heads: Number  # [a]
    query_dim: Number  # of one head
    value_dim: Number  # of one head
    kv_elements: Number  # keys and values of one token and layer after projection, one rank of TP 1
    down_columns: Number  # MLA: columns of the joint down projection, not split by TP
    up_rows: Number  # input width of the query (or joint qkv) projection
    up_columns: Number  # its output width, split by TP
    kv_up_rows: Number  # MLA: rank of the latent; 0 without
    kv_up_columns: Number  # MLA: output width of the latent's up projection
    feed_forward: Number  # width of a dense feed-forward
    matrices: Number  # 3 gated, 2 plain
    moe_layers: Number
    experts: Number  # routed experts of a layer
    top_k: Number
    expert_width: Number
    shared_width: Number  # all shared experts of a layer together
    group_limit: Number  # most nodes (devices) a token is sent to; 0 without limit
    vocab: Number
    tied: Number
    positions: Number  # learned positions, 0 when rotary
    mtp: Number  # multi-token-prediction layers
    window: Number  # sliding window in tokens, 0 for full attention
    # the work of one step
    seq: Number  # tokens of one sequence [s]
    batch: Number  # sequences of one step
    micro: Number  # sequences of one micro-batch on one rank [b]
    # the layout
    cards: Number
    tp: Number
    pp: Number
    vpp: Number
    dp: Number
    ep: Number
    cp: Number
    zero: Number  # 0 none, 1 optimizer, 2 and gradients, 3 and parameters (FSDP)
    shard: Number  # ranks that share one copy of what `zero` shards
    sp: Number  # sequence parallelism with TP
    recompute: Number  # 0 none, 1 selective, 2 full
    redo_matmul: Number  # share of the forward matmuls done again in the backward pass
    redo_rest: Number  # share of the other forward operators done again
    dropped: Number  # share of the activations that need not be kept for it
    schedule: Number  # index into SCHEDULES
    # the card and its links
    matmul_flops: Number  # peak of the matmul precision, dense
    half_flops: Number  # peak of bf16, dense
    matmul_share: Number  # best share of the peak a large matmul was measured to reach
    fp8: Number  # matmuls: 0 for 16-bit, 1 for 8-bit, 2 for 4-bit, 3 for 8-bit with a scale a row
    generation: Number  # 0 Ampere, 1 Hopper, 2 Blackwell, 3 other
    memory_bytes: Number
    memory_rate: Number  # bytes a second
    link_rate: Number  # scale-up, bytes a second, one way
    nic_rate: Number  # network, bytes a second a card, one way
    node: Number  # cards of a node
    domain: Number  # cards inside one scale-up domain
    # the software
    kernel: Number  # attention: 0 unfused, 1 flash 1, 2 flash 2, 3 flash 3 / cuDNN, 4 unfused and unaligned softmax
    fused: Number  # elementwise operators fused: 0 eager, 1 hand-fused, 2 compiled
    tp_overlap: Number
    dp_overlap: Number
    pp_overlap: Number
    ep_overlap: Number
    scatter: Number  # pipeline sends split over the TP ranks
    rails: Number  # network cards of a node one group can use
    reduce_bytes: Number  # of one gradient element on the wire
    gradient_bytes: Number  # of one gradient element in memory
    slim: Number  # 8-bit matmuls keep their inputs in one byte
    live_weights: Number  # weights ZeRO-3 may hold gathered at once
    loss_bytes: Number  # kept for one logit at the peak
    buffer_bytes: Number  # flat buckets the framework holds for its traffic
    loose_gradients: Number  # a new gradient lives beside the main copy before it is added
    launch: Number  # host time of a layer, in units of the fitted one
    dropout: Number  # 1 when dropout masks are kept
    factor: Number  # software factor of (framework, release)

    @property
    def tokens(self) -> Number:
        """Tokens of one micro-batch on one rank (after context parallelism)."""
        return self.micro * self.seq / self.cp

    @property
    def micro_batches(self) -> Number:
        """Micro-batches one pipeline runs in a step [m]."""
        return np.ceil(self.batch / (self.dp * self.micro) - 1e-9)

    @property
    def stage_layers(self) -> Number:
        """Layers of the fullest stage."""
        return np.ceil(self.layers / self.pp - 1e-9)

    @property
    def last_layers(self) -> Number:
        """Layers of the last stage, which also holds the head."""
        return np.maximum(self.layers - (self.pp - 1) * self.stage_layers, 0)

    def take(self, index: Any) -> Case:
        """The rows of a table that `index` names."""
        return Case(**{f.name: pick(getattr(self, f.name), index) for f in fields(self)})

    def but(self, **changes: Number) -> Case:
        """The same case with other values."""
        return replace(self, **changes)


def pick(value: Number, index: Any) -> Number:
    """Rows of an array; a number stands for every row."""
    return value[index] if np.ndim(value) else value


def stack(cases: Sequence[Case]) -> Case:
    """One table from many single cases."""
    return Case(
        **{f.name: np.array([float(getattr(case, f.name)) for case in cases]) for f in fields(Case)}
    )


def network(shape: Shape) -> dict[str, float]:
    """The fields of a case that come from the shape."""
    attention, width = shape.attention, shape.hidden_size
    if isinstance(attention, Mla):
        down = attention.kv_lora_rank + attention.qk_rope_head_dim + (attention.q_lora_rank or 0)
        rows = (
            down,
            attention.q_lora_rank or width,
            attention.num_attention_heads * attention.query_dim,
            attention.kv_lora_rank,
        )
        kv_up = attention.num_attention_heads * (attention.qk_nope_head_dim + attention.v_head_dim)
        value, kv = (
            attention.v_head_dim,
            attention.num_attention_heads * (attention.query_dim + attention.v_head_dim),
        )
    else:
        groups = attention.num_attention_heads + 2 * attention.num_key_value_heads
        rows = (0, width, groups * attention.head_dim, 0)
        kv_up, value, kv = (
            0,
            attention.head_dim,
            2 * attention.num_key_value_heads * attention.head_dim,
        )
    experts = shape.experts
    return {
        "width": width,
        "layers": shape.num_hidden_layers,
        "heads": attention.num_attention_heads,
        "query_dim": attention.query_dim,
        "value_dim": value,
        "kv_elements": kv,
        "down_columns": rows[0],
        "up_rows": rows[1],
        "up_columns": rows[2],
        "kv_up_rows": rows[3],
        "kv_up_columns": kv_up,
        "feed_forward": shape.intermediate_size,
        "matrices": 3 if shape.gated else 2,
        "moe_layers": shape.moe_layers,
        "experts": experts.n_routed_experts if experts else 0,
        "top_k": experts.num_experts_per_tok if experts else 0,
        "expert_width": experts.moe_intermediate_size if experts else 0,
        "shared_width": experts.n_shared_experts * experts.moe_intermediate_size if experts else 0,
        "group_limit": experts.topk_group if experts else 0,
        "vocab": shape.vocab_size,
        "tied": shape.tie_word_embeddings,
        "positions": shape.n_positions,
        "mtp": shape.num_nextn_predict_layers,
        "window": shape.window,
    }
