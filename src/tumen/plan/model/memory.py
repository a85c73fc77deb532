"""Bytes of one accelerator by kind and pipeline stage, at the peak of the allocator.

Activations follow Korthikanti et al. (arXiv 2205.05198, section 4), extended by flash attention,
gated feed-forwards, grouped keys, latent attention and experts. The number of micro-batches in
flight follows 1F1B (arXiv 2104.04473, section 2.2).

No term belongs to a row or a model. Three numbers were chosen by looking at published peaks:
`RESERVE`, the factor `RECOMPUTE_COPIES`, and the share of activations that each recompute policy
drops (`layout.RECOMPUTE`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tumen.plan.model.counts import layer_weights, optimizer_groups
from tumen.plan.model.scenario import SCHEDULES, SELECTIVE, Number, Scenario, pick

CONTEXT_BYTES = 1.0e9  # CUDA context and libraries, outside the allocator
COMMUNICATORS_BYTES = 1.5e9  # NCCL channels of several groups, outside the allocator
RESERVE = 1.13  # reserved over allocated: fragmentation of a caching allocator, 3-20% published

BF16_BYTES = 2.0
STATE_BYTES = 12.0  # fp32 master weight and two moments
SHARDED_GRADIENT_BYTES = 4.0  # ZeRO-2 and ZeRO-3 add gradients up in fp32
RECOMPUTE_COPIES = 1.5  # recomputed activations and part of their gradients, alive at once
LOOSE_GRADIENT_BYTES = 6.0  # a new gradient in 16 bits and its fp32 cast
DUALPIPE = SCHEDULES.index("dualpipe")


@dataclass(frozen=True)
class Bytes:
    """Bytes of one accelerator on one stage by kind; `total` is the allocator's peak."""

    weights: Number
    gradients: Number
    optimizer: Number
    activations: Number
    working: Number  # alive inside one layer's backward pass only
    logits: Number
    buffers: Number  # communication buckets; not part of `total`

    @property
    def total(self) -> Number:
        """Peak of the allocator."""
        return (
            self.weights
            + self.gradients
            + self.optimizer
            + self.activations
            + self.working
            + self.logits
        )

    @property
    def reserved(self) -> Number:
        """Bytes that the allocator takes from the driver, fragments included."""
        return self.total * RESERVE

    @property
    def driver(self) -> Number:
        """Bytes that nvidia-smi reports: buffers, context and communicators as well."""
        return self.reserved + self.buffers + CONTEXT_BYTES + COMMUNICATORS_BYTES

    @property
    def needed(self) -> Number:
        """Bytes that must fit: peak of the allocator, buffers of the framework, CUDA context."""
        return self.total + self.buffers + CONTEXT_BYTES

    def at(self, index: int) -> Bytes:
        """Return one row of a table, as plain numbers."""
        row = {name: pick(np.asarray(value), index) for name, value in vars(self).items()}
        return Bytes(**{name: float(value) for name, value in row.items()})


# ---------------------------------------------------------------------- activations


def layer_activations(scenario: Scenario, routed_share: Number) -> Number:
    """Return the bytes that one layer keeps for its backward pass, without recompute.

    Args:
        scenario: a scenario or a table of them.
        routed_share: share of the stage's layers that are mixtures of experts.
    """
    norms = norm_activations(scenario)
    latent = BF16_BYTES * scenario.down_columns
    attention = attention_activations(scenario)
    feed = feed_activations(scenario, routed_share)
    routed = routed_activations(scenario, routed_share)
    split = (attention + feed + routed) / scenario.tp
    return scenario.tokens * (norms + latent + split + score_bytes(scenario))


def input_bytes(scenario: Scenario) -> Number:
    """Return the bytes of an element that a matmul keeps as its input.

    An 8-bit matmul may keep one byte: of the outputs of norms, attention and activation function.
    """
    narrow = (scenario.matmul_format > 0) & (scenario.keeps_8bit_inputs > 0)
    return np.where(narrow, 1.0, 2.0)


def norm_activations(scenario: Scenario) -> Number:
    """Return the bytes of one token around both norms.

    Their inputs in bf16, their outputs as the matmuls keep them, and the masks of two dropouts.
    """
    element = 4.0 + 2.0 * input_bytes(scenario) + 2.0 * scenario.dropout
    return element * scenario.hidden_size / scenario.norm_split


def attention_activations(scenario: Scenario) -> Number:
    """Return the bytes of q, k, v and of the attention's output of one token."""
    heads = scenario.num_attention_heads
    qkv = BF16_BYTES * (heads * scenario.query_dim + scenario.kv_elements)
    return qkv + input_bytes(scenario) * heads * scenario.value_dim


def inner_bytes(scenario: Scenario) -> Number:
    """Return the bytes of one inner element of a feed-forward: gate, up, and their product."""
    return BF16_BYTES * (scenario.matrices - 1) + input_bytes(scenario)


def feed_activations(scenario: Scenario, routed_share: Number) -> Number:
    """Return the bytes of one token inside dense feed-forwards and shared experts."""
    dense = scenario.intermediate_size * (1 - routed_share)
    shared = scenario.shared_intermediate_size * routed_share
    return inner_bytes(scenario) * (dense + shared)


def routed_activations(scenario: Scenario, routed_share: Number) -> Number:
    """Return the bytes of one token's copies at its experts: input, output and inner tensors."""
    ends = (input_bytes(scenario) + BF16_BYTES) * scenario.hidden_size
    expert = ends + inner_bytes(scenario) * scenario.moe_intermediate_size
    return scenario.num_experts_per_tok * expert * routed_share


def score_bytes(scenario: Scenario) -> Number:
    """Return the bytes of attention scores that one token keeps: none with flash attention.

    Unfused attention keeps the softmax (2 bytes a score) and, with dropout, its mask and output (3
    more). Selective recompute does not keep them.
    """
    unfused = scenario.kernel % 4 == 0  # kernels 0 and 4
    each = np.where(unfused, 2.0 + 3.0 * scenario.dropout, 0.0)
    scores = each * scenario.num_attention_heads * scenario.seq_len / scenario.tp
    return np.where(scenario.recompute == SELECTIVE, 0.0, scores)


def kept_activations(scenario: Scenario, routed_share: Number) -> Number:
    """Return the bytes that one layer keeps under its recompute policy.

    Full recompute keeps the layer's input only; other policies drop a share of the rest.
    """
    whole = layer_activations(scenario, routed_share)
    checkpoint = 2.0 * scenario.tokens * scenario.hidden_size / scenario.norm_split
    partly = checkpoint + (whole - checkpoint) * (1.0 - scenario.dropped)
    return np.where(scenario.repeats_all, checkpoint, partly)


def in_flight(scenario: Scenario, stage: Number) -> Number:
    """Return how many micro-batches' activations a stage holds at most.

    1F1B: min(p - i, m) on stage i (0 is the first). Interleaved: chunks, at most 1 + (p - 1) / (p
    v) of all stages' on the first stage (arXiv 2205.05198, section 4.2.3). DualPipe: p + 1 on every
    stage, as both directions are under way (its README).

    Args:
        scenario: a scenario or a table of them.
        stage: number of the stage, 0 is the first.
    """
    m = scenario.micro_batches
    pp = scenario.pp
    vpp = scenario.vpp
    limit = np.where(scenario.schedule == DUALPIPE, pp + 1, pp - stage)
    plain = np.minimum(limit, m)
    # Megatron warms up with 2 (p - i - 1) + (v - 1) p chunks and starts one more
    chunks = 2 * (pp - stage - 1) + (vpp - 1) * pp + 1
    interleaved = np.minimum(chunks / vpp, m)
    staged = np.where(vpp > 1, interleaved, plain)
    return np.where(pp > 1, staged, 1.0)


def working_bytes(scenario: Scenario, routed_share: Number) -> Number:
    """Return the bytes that are alive only inside one layer's backward pass.

    Recomputed activations and their gradients, the inputs that sequence parallelism gathers, and,
    without fused gradient accumulation, the gradient of the largest matmul in 16 and 32 bits.
    """
    redone = np.where(scenario.repeats_all, 1.0, scenario.dropped)
    recomputed = RECOMPUTE_COPIES * redone * layer_activations(scenario, routed_share)

    gathers = (scenario.sequence_parallel > 0) & (scenario.tp > 1)
    # the whole input of a matmul and its gradient, in bf16
    two_inputs = 2.0 * 2.0 * scenario.tokens * scenario.hidden_size
    gathered = np.where(gathers, two_inputs, 0.0)

    widest = np.maximum(scenario.intermediate_size, scenario.moe_intermediate_size)
    largest = scenario.hidden_size * (scenario.matrices - 1) * widest / scenario.tp
    loose = np.where(scenario.unfused_accumulation > 0, LOOSE_GRADIENT_BYTES * largest, 0.0)
    return recomputed + gathered + loose


# ---------------------------------------------------------------------- weights and states


def stage_layers(scenario: Scenario, stage: Number) -> tuple[Number, Number]:
    """Return (layers, share of them with experts) of a stage.

    Dense layers come first, multi-token-prediction layers last. Where the layers do not divide, the
    last stage holds fewer.
    """
    total = scenario.num_hidden_layers
    even = np.mod(total, scenario.pp) == 0
    last = np.asarray(stage == scenario.pp - 1)
    uneven = np.where(last, scenario.last_layers, scenario.stage_layers)
    count = np.where(even, total / scenario.pp, uneven)
    before = np.where(even, total / scenario.pp, scenario.stage_layers) * stage
    dense = np.clip(total - scenario.moe_layers - before, 0, count)

    predicted = np.where(last, scenario.num_nextn_predict_layers, 0.0)
    mixed = np.where(scenario.moe_layers > 0, count - dense + predicted, 0.0)
    whole = np.maximum(count + predicted, 1e-9)
    return whole, mixed / whole


def stage_bytes(scenario: Scenario, stage: Number) -> Bytes:
    """Return the bytes of one accelerator on a pipeline stage; 0 is the first, pp - 1 the last."""
    layers, share = stage_layers(scenario, stage)
    shared, routed = weights_of_stage(scenario, stage)
    held = shared + routed
    group, expert_group = optimizer_groups(scenario)
    sharded = shared / group + routed / expert_group
    return Bytes(
        weights=weight_bytes(scenario, stage, held),
        gradients=gradient_bytes(scenario, held, sharded),
        optimizer=STATE_BYTES * np.where(scenario.zero > 0, sharded, held),
        activations=layers * kept_activations(scenario, share) * in_flight(scenario, stage),
        working=working_bytes(scenario, share),
        logits=logit_bytes(scenario, stage),
        buffers=scenario.buffer_bytes + 0.0 * held,  # as many rows as the other kinds
    )


def weight_bytes(scenario: Scenario, stage: Number, held: Number) -> Number:
    """Return the bytes of weights on a stage.

    DualPipe runs both directions at once, so each rank holds the weights of two stages.
    """
    copies = np.where(scenario.schedule == DUALPIPE, 2.0, 1.0)
    gathered = gathered_bytes(scenario, stage)
    return np.where(scenario.zero >= 3, gathered, BF16_BYTES * held * copies)


def gradient_bytes(scenario: Scenario, held: Number, sharded: Number) -> Number:
    """Return the bytes of gradients on a stage.

    A pipeline adds gradients up over its micro-batches, so ZeRO-2 cannot shard them there.

    Args:
        scenario: a scenario or a table of them.
        held: weights of the stage on one rank.
        sharded: those whose states this rank has.
    """
    shards = (scenario.zero >= 3) | ((scenario.zero == 2) & (scenario.pp == 1))
    whole = scenario.gradient_bytes * held
    return np.where(shards, SHARDED_GRADIENT_BYTES * sharded, whole)


def logit_bytes(scenario: Scenario, stage: Number) -> Number:
    """Return the bytes of logits at the peak; only the last stage has them."""
    last = np.asarray(stage == scenario.pp - 1)
    on_last = np.where(last, 1.0, 0.0)
    logits = on_last * scenario.tokens * scenario.vocab_size / scenario.tp
    return logits * scenario.loss_bytes


def weights_of_stage(scenario: Scenario, stage: Number) -> tuple[Number, Number]:
    """Return the weights of one rank on a stage: (all but routed experts, routed experts)."""
    layers, share = stage_layers(scenario, stage)
    routed = scenario.routed_weights * share
    tables = table_weights(scenario) * tables_of_stage(scenario, stage)
    shared = layers * (mean_layer(scenario, share) - routed) + tables
    return shared, layers * routed


def mean_layer(scenario: Scenario, routed_share: Number) -> Number:
    """Return the weights of a stage's average layer on one rank."""
    dense, mixture = layer_weights(scenario)
    return dense * (1 - routed_share) + mixture * routed_share


def table_weights(scenario: Scenario) -> Number:
    """Return the weights of one vocabulary table (with learned positions) on one rank."""
    rows = scenario.vocab_size + scenario.n_positions
    return rows * scenario.hidden_size / scenario.tp


def tables_of_stage(scenario: Scenario, stage: Number) -> Number:
    """Return the vocabulary tables of a stage: the first has the embedding, the last the head."""
    first = np.asarray(stage == 0)
    last = np.asarray(stage == scenario.pp - 1)
    one_shared = (scenario.tie_word_embeddings > 0) & (scenario.pp == 1)
    return np.where(one_shared, 1.0, first * 1.0 + last * 1.0)


def gathered_bytes(scenario: Scenario, stage: Number) -> Number:
    """Return the bytes of weights that ZeRO-3 holds unsharded on a stage."""
    _, share = stage_layers(scenario, stage)
    table = table_weights(scenario)
    # one layer (or table) at work and half of the next one, which is gathered early
    live = np.maximum(1.5 * mean_layer(scenario, share), table)
    return BF16_BYTES * np.minimum(live, scenario.live_weights) + BF16_BYTES * table


# ---------------------------------------------------------------------- peaks


def peak(scenario: Scenario) -> Bytes:
    """Return the bytes of the fullest stage.

    That is the first, the second (the first may hold lighter dense layers) or the last.
    """
    first = np.zeros_like(np.asarray(scenario.pp, dtype=float))
    second = np.minimum(first + 1, scenario.pp - 1)
    fullest = stage_bytes(scenario, first)
    for stage in (second, scenario.pp - 1):
        fullest = fuller(fullest, stage_bytes(scenario, stage))
    return fullest


def fuller(one: Bytes, other: Bytes) -> Bytes:
    """Return the larger of two, row by row; the first where they are equal."""
    larger = np.asarray(other.total > one.total)
    kinds = {name: np.where(larger, getattr(other, name), getattr(one, name)) for name in vars(one)}
    return Bytes(**kinds)


def fits(scenario: Scenario, margin: float = 0.0) -> Number:
    """Return whether peak, buffers and context fit the accelerator.

    Args:
        scenario: a scenario or a table of them.
        margin: share of the memory that must stay free.
    """
    return peak(scenario).needed <= scenario.memory_bytes * (1.0 - margin)
