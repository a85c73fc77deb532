"""Bytes of one card, by kind and stage: what the allocator holds at its peak.

Activations follow Korthikanti et al. (arXiv 2205.05198, section 4) with flash attention, gated feed-forwards, grouped
keys, latent attention and experts; the number of micro-batches in flight follows 1F1B (arXiv 2104.04473, section 2.2).
Nothing here is fitted to a model or a row: each term is a tensor somebody keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tumen.plan.case import FULL, SELECTIVE, Case, Number, pick
from tumen.plan.time import layer_weights

CONTEXT_BYTES = 1.0e9  # CUDA context and libraries, outside the allocator
COMMUNICATORS_BYTES = 1.5e9  # NCCL channels of several groups, outside the allocator
RESERVE = 1.13  # reserved over allocated: fragmentation of a caching allocator, 3-20% published


@dataclass(frozen=True)
class Bytes:
    """Bytes of a card on one stage by kind; `total` is the allocator's peak, `reserved` what the driver sees."""

    weights: Number
    gradients: Number
    optimizer: Number
    activations: Number
    working: Number
    logits: Number

    @property
    def total(self) -> Number:
        """Peak of the allocator."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.working + self.logits

    @property
    def reserved(self) -> Number:
        """What a tool outside the process sees: fragments, context and communicators as well."""
        return self.total * RESERVE + CONTEXT_BYTES + COMMUNICATORS_BYTES

    def at(self, index: int) -> Bytes:
        """One row of a table."""
        return Bytes(**{name: float(pick(np.asarray(value), index)) for name, value in vars(self).items()})


def layer_activations(case: Case, routed_share: Number) -> Number:
    """Bytes one layer keeps for the backward pass of one micro-batch without recompute.

    A token keeps: the inputs and outputs of both norms (8 h, split under sequence parallelism), q, k, v and the attention's
    output, the feed-forward's inner tensors, dropout masks, and a s a b scores when attention is unfused. An 8-bit matmul
    keeps its input in one byte: the norms' outputs, the attention's output, the activation's output.
    """
    split = np.where(case.sp > 0, case.tp, 1.0)
    q, t = case.tokens, case.tp
    unfused = case.kernel % 4 == 0
    item = np.where(case.fp8 > 0, 1.0, 2.0)
    kept = (4.0 + 2.0 * item + 2.0 * case.dropout) * case.width / split
    heads = 2.0 * (case.heads * case.query_dim + case.kv_elements) + item * case.heads * case.value_dim
    latent = 2.0 * case.down_columns
    inner = (2.0 * (case.matrices - 1) + item) * (case.feed_forward * (1 - routed_share) + case.shared_width * routed_share)
    expert = (item + 2.0) * case.width + (2.0 * (case.matrices - 1) + item) * case.expert_width
    routed = case.top_k * expert * routed_share
    scores = np.where(unfused, 2.0 + 3.0 * case.dropout, 0.0) * case.heads * case.seq / t
    scores = np.where(case.recompute == SELECTIVE, 0.0, scores)
    return q * (kept + latent + (heads + inner + routed) / t + scores)


def kept_activations(case: Case, routed_share: Number) -> Number:
    """The same with recompute: only the layer's input when everything is done again, else what the policy keeps."""
    whole = layer_activations(case, routed_share)
    checkpoint = 2.0 * case.tokens * case.width / np.where(case.sp > 0, case.tp, 1.0)
    return np.where(case.recompute >= FULL, checkpoint, checkpoint + (whole - checkpoint) * (1.0 - case.dropped))


def in_flight(case: Case, stage: Number) -> Number:
    """Micro-batches whose activations stage `stage` (0 first) holds, in units of the whole stage.

    1F1B: min(p - i, m). Interleaved: at most (p - i) / p more of a chunk, 1 + (p - 1) / (p v) in all on the first stage
    (arXiv 2205.05198, section 4.2.3).
    """
    m = case.micro_batches
    plain = np.minimum(case.pp - stage, m)
    chunked = (2 * (case.pp - stage - 1) + (case.vpp - 1) * case.pp + 1) / case.vpp
    return np.where(case.pp > 1, np.where(case.vpp > 1, np.minimum(chunked, m), plain), 1.0)


def stage_bytes(case: Case, stage: Number) -> Bytes:
    """Bytes of one card on pipeline stage `stage`; 0 is the first, pp - 1 the last."""
    first, last = np.asarray(stage == 0), np.asarray(stage == case.pp - 1)
    share = case.moe_layers / case.layers
    even = case.layers / case.pp
    layers = np.where(last & (case.pp > 1), case.last_layers, case.stage_layers)
    layers = np.where(np.mod(case.layers, case.pp) == 0, even, layers) + np.where(last, case.mtp, 0.0)
    dense, mixture = layer_weights(case)
    routed = case.matrices * case.width * case.expert_width * case.experts / case.ep * share
    table = (case.vocab + case.positions) * case.width / case.tp
    both = np.where((case.tied > 0) & (case.pp == 1), 1.0, first * 1.0 + last * 1.0)
    shared = layers * (dense * (1 - share) + mixture * share - routed) + table * both
    routed = layers * routed

    group = np.where(case.shard > 1, case.shard, 1.0)
    expert_group = np.maximum(group * case.cp * case.tp / case.ep, 1.0)
    group = np.where(case.zero < 3, group * case.cp, group)
    sharded = shared / group + routed / np.where(case.experts > 0, expert_group, group)
    held = shared + routed
    whole = np.where(case.zero >= 3, 0.0, 1.0)
    # FSDP keeps fp32 weights and gradients in shards and gathers two layers at a time
    gathered = 2.0 * 2.0 * (dense * (1 - share) + mixture * share) + 4.0 * table
    weights = whole * 2.0 * held + (1 - whole) * gathered
    gradients = np.where(case.zero >= 2, 4.0 * sharded, case.reduce_bytes * held)
    states = np.where(case.zero >= 3, 12.0, 12.0) * np.where(case.zero > 0, sharded, held)

    live = in_flight(case, stage)
    activations = layers * kept_activations(case, share) * live
    working = np.where(case.recompute >= FULL, 1.0, case.dropped) * layer_activations(case, share)
    logits = np.where(last, 1.0, 0.0) * case.tokens * case.vocab / case.tp * (2.0 + 4.0)
    embedded = np.where(first, 2.0 * case.tokens * case.width * live, 0.0)
    return Bytes(weights, gradients, states, activations + embedded, working, logits)


def peak(case: Case) -> Bytes:
    """Bytes on the fullest stage."""
    ends = stage_bytes(case, np.zeros_like(np.asarray(case.pp, dtype=float))), stage_bytes(case, case.pp - 1)
    worse = np.asarray(ends[1].total > ends[0].total)
    return Bytes(**{name: np.where(worse, getattr(ends[1], name), getattr(ends[0], name)) for name in vars(ends[0])})


def fits(case: Case, margin: float = 0.0) -> Number:
    """Whether the allocator's peak and the context fit the card with a share `margin` to spare."""
    return peak(case).total + CONTEXT_BYTES <= case.memory_bytes * (1.0 - margin)
