"""Bytes of one card, by kind and stage: what the allocator holds at its peak.

Activations follow Korthikanti et al. (arXiv 2205.05198, section 4) with flash attention, gated feed-forwards, grouped
keys, latent attention and experts; the number of micro-batches in flight follows 1F1B (arXiv 2104.04473, section 2.2).
No term
belongs to a row or a model. Three numbers were chosen by looking at published peaks: RESERVE, the factor 1.5 of recomputed
activations in `working_bytes`, and the share each recompute policy drops (job.RECOMPUTE).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tumen.plan.model.case import FULL, SCHEDULES, SELECTIVE, Case, Number, pick
from tumen.plan.model.counts import layer_weights

CONTEXT_BYTES = 1.0e9  # CUDA context and libraries, outside the allocator
COMMUNICATORS_BYTES = 1.5e9  # NCCL channels of several groups, outside the allocator
RESERVE = 1.13  # reserved over allocated: fragmentation of a caching allocator, 3-20% published


@dataclass(frozen=True)
class Bytes:
    """Bytes of a card on one stage by kind; `total` is the allocator's peak."""

    weights: Number
    gradients: Number
    optimizer: Number
    activations: Number
    working: Number
    logits: Number
    buffers: Number

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
        """What the allocator took from the driver, fragments included."""
        return self.total * RESERVE

    @property
    def driver(self) -> Number:
        """What a tool outside the process sees: context and communicators as well."""
        return self.reserved + self.buffers + CONTEXT_BYTES + COMMUNICATORS_BYTES

    def at(self, index: int) -> Bytes:
        """One row of a table."""
        return Bytes(
            **{name: float(pick(np.asarray(value), index)) for name, value in vars(self).items()}
        )


def layer_activations(case: Case, routed_share: Number) -> Number:
    """Bytes one layer keeps for the backward pass of one micro-batch without recompute.

    A token keeps: the inputs and outputs of both norms (8 h, split under sequence parallelism), q, k, v and the
    attention's output, the feed-forward's inner tensors, dropout masks, and a s a b scores when attention is unfused.
    An 8-bit matmul keeps its input in one byte: the norms' outputs, the attention's output, the activation's output.
    """
    split = np.where(case.sp > 0, case.tp, 1.0)
    q, t = case.tokens, case.tp
    unfused = case.kernel % 4 == 0
    item = np.where((case.fp8 > 0) & (case.slim > 0), 1.0, 2.0)
    kept = (4.0 + 2.0 * item + 2.0 * case.dropout) * case.width / split
    heads = (
        2.0 * (case.heads * case.query_dim + case.kv_elements) + item * case.heads * case.value_dim
    )
    latent = 2.0 * case.down_columns
    inner = (2.0 * (case.matrices - 1) + item) * (
        case.feed_forward * (1 - routed_share) + case.shared_width * routed_share
    )
    expert = (item + 2.0) * case.width + (2.0 * (case.matrices - 1) + item) * case.expert_width
    routed = case.top_k * expert * routed_share
    scores = np.where(unfused, 2.0 + 3.0 * case.dropout, 0.0) * case.heads * case.seq / t
    scores = np.where(case.recompute == SELECTIVE, 0.0, scores)
    return q * (kept + latent + (heads + inner + routed) / t + scores)


def kept_activations(case: Case, routed_share: Number) -> Number:
    """The same with recompute: only the layer's input when everything is done again, else what the policy keeps."""
    whole = layer_activations(case, routed_share)
    checkpoint = 2.0 * case.tokens * case.width / np.where(case.sp > 0, case.tp, 1.0)
    return np.where(
        case.recompute >= FULL, checkpoint, checkpoint + (whole - checkpoint) * (1.0 - case.dropped)
    )


def in_flight(case: Case, stage: Number) -> Number:
    """Micro-batches whose activations stage `stage` (0 first) holds, in units of the whole stage.

    1F1B: min(p - i, m). Interleaved: at most (p - i) / p more of a chunk, 1 + (p - 1) / (p v) in all on the first stage
    (arXiv 2205.05198, section 4.2.3).
    """
    m = case.micro_batches
    dual = case.schedule == SCHEDULES.index("dualpipe")  # both directions: p + 1 on every stage
    plain = np.minimum(np.where(dual, case.pp + 1, case.pp - stage), m)
    chunked = (2 * (case.pp - stage - 1) + (case.vpp - 1) * case.pp + 1) / case.vpp
    return np.where(case.pp > 1, np.where(case.vpp > 1, np.minimum(chunked, m), plain), 1.0)


def stage_layers(case: Case, stage: Number) -> tuple[Number, Number]:
    """(layers, share of them with experts) of a stage; the dense layers come first, MTP layers last."""
    even = np.mod(case.layers, case.pp) == 0
    last = np.asarray(stage == case.pp - 1)
    count = np.where(
        even, case.layers / case.pp, np.where(last, case.last_layers, case.stage_layers)
    )
    before = np.where(even, case.layers / case.pp, case.stage_layers) * stage
    dense = np.clip(case.layers - case.moe_layers - before, 0, count)
    extra = np.where(last, case.mtp, 0.0)
    mixed = np.where(case.moe_layers > 0, count - dense + extra, 0.0)
    whole = np.maximum(count + extra, 1e-9)
    return whole, mixed / whole


def stage_bytes(case: Case, stage: Number) -> Bytes:
    """Bytes of one card on pipeline stage `stage`; 0 is the first, pp - 1 the last."""
    first, last = np.asarray(stage == 0), np.asarray(stage == case.pp - 1)
    layers, share = stage_layers(case, stage)
    dense, mixture = layer_weights(case)
    routed = case.matrices * case.width * case.expert_width * case.experts / case.ep * share
    table = (case.vocab + case.positions) * case.width / case.tp
    both = np.where((case.tied > 0) & (case.pp == 1), 1.0, first * 1.0 + last * 1.0)
    layer = dense * (1 - share) + mixture * share
    shared, routed = layers * (layer - routed) + table * both, layers * routed

    group = np.maximum(case.shard, 1.0)
    expert_group = np.where(case.experts > 0, np.maximum(group * case.tp / case.ep, 1.0), group)
    sharded = shared / group + routed / expert_group
    held = shared + routed
    # ZeRO-3 keeps weights, gradients and states in shards and gathers a layer (or a table) at a time, the next one
    # early
    gathered = 2.0 * np.minimum(np.maximum(1.5 * layer, table), case.live_weights) + 2.0 * table
    apart = case.zero >= 3
    twice = np.where(
        case.schedule == SCHEDULES.index("dualpipe"), 2.0, 1.0
    )  # both directions hold the weights
    weights = np.where(apart, gathered, 2.0 * held * twice)
    gradients = np.where(
        apart | ((case.zero == 2) & (case.pp == 1)), 4.0 * sharded, case.gradient_bytes * held
    )
    states = 12.0 * np.where(case.zero > 0, sharded, held)

    activations = layers * kept_activations(case, share) * in_flight(case, stage)
    logits = np.where(last, 1.0, 0.0) * case.tokens * case.vocab / case.tp * case.loss_bytes
    return Bytes(
        weights,
        gradients,
        states,
        activations,
        working_bytes(case, share),
        logits,
        case.buffer_bytes + 0.0 * held,
    )


def working_bytes(case: Case, routed_share: Number) -> Number:
    """What lives only inside one layer's backward pass.

    Recomputed activations and their gradients, the inputs sequence parallelism gathers, and, without fused
    accumulation, the gradient of the largest matmul in 16 and 32 bits.
    """
    redone = np.where(case.recompute >= FULL, 1.0, case.dropped)
    gathered = np.where((case.sp > 0) & (case.tp > 1), 2.0 * 2.0 * case.tokens * case.width, 0.0)
    largest = (
        case.width
        * (case.matrices - 1)
        * np.maximum(case.feed_forward, case.expert_width)
        / case.tp
    )
    loose = np.where(case.loose_gradients > 0, 6.0 * largest, 0.0)
    return 1.5 * redone * layer_activations(case, routed_share) + gathered + loose


def peak(case: Case) -> Bytes:
    """Bytes on the fullest stage: the first, the second (the first may hold lighter dense layers) or the last."""
    zero = np.zeros_like(np.asarray(case.pp, dtype=float))
    fullest = stage_bytes(case, zero)
    for stage in (np.minimum(zero + 1, case.pp - 1), case.pp - 1):
        other = stage_bytes(case, stage)
        worse = np.asarray(other.total > fullest.total)
        fullest = Bytes(
            **{n: np.where(worse, getattr(other, n), getattr(fullest, n)) for n in vars(fullest)}
        )
    return fullest


def fits(case: Case, margin: float = 0.0) -> Number:
    """Whether the allocator's peak, the framework's buffers and the context fit the card with a share `margin` to
    spare.
    """
    bytes_ = peak(case)
    return bytes_.total + bytes_.buffers + CONTEXT_BYTES <= case.memory_bytes * (1.0 - margin)
