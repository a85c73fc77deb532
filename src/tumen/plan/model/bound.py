"""Physical lower bounds of a step: no software beats them, and no plan may claim to.

    step >= max(arithmetic, memory, tensor, sharded, gradients, pipeline, expert) of an otherwise perfect machine

Each term stands alone because everything else could overlap with it; rates are peaks and full links. Sources: the
arithmetic of arXiv 2104.04473 (section 3) and arXiv 2205.05198, the traffic of arXiv 1910.02054 (section 7) and
2405.04434 (section 3.1.3).
"""

from __future__ import annotations

import numpy as np

from tumen.plan.model import links
from tumen.plan.model.case import FULL, Case, Number
from tumen.plan.model.counts import layer_weights, stage_weights


def forward_flops(case: Case) -> tuple[Number, Number]:
    """(matmul, attention) flops of one token forward, all layers; causal attention, embeddings not counted."""
    share = case.moe_layers / case.layers
    h = case.width
    attention = (
        h * case.down_columns
        + case.up_rows * case.up_columns
        + case.kv_up_rows * case.kv_up_columns
    )
    attention = attention + case.heads * case.value_dim * h
    dense = case.matrices * h * case.feed_forward
    mixture = (
        case.matrices * h * (case.expert_width * case.top_k + case.shared_width) + h * case.experts
    )
    layer = attention + (1 - share) * dense + share * mixture
    weights = (case.layers + case.mtp) * layer + (1 + case.mtp) * case.vocab * h
    context: Number = np.where(case.window > 0, np.minimum(case.window, case.seq), case.seq)
    causal: Number = np.where(case.window > 0, np.minimum(1.0, 1.0 - 0.5 * context / case.seq), 0.5)
    scores = case.layers * case.heads * (case.query_dim + case.value_dim) * context * causal
    return 2.0 * weights, 2.0 * scores


def arithmetic(case: Case) -> Number:
    """Flops of the step over the peaks of all cards; work done again counts."""
    matmuls, scores = forward_flops(case)
    redo = np.where(case.recompute >= FULL, 1.0, case.redo_matmul)
    again = np.where(case.recompute >= FULL, 1.0, 0.0)
    tokens = case.batch * case.seq
    return (
        tokens
        / case.cards
        * ((3 + redo) * matmuls / case.matmul_flops + (3 + again) * scores / case.half_flops)
    )


def memory_traffic(case: Case) -> Number:
    """Weights read once forward and once backward a micro-batch, optimizer states touched once."""
    shared, routed = stage_weights(case)
    item = np.where(case.fp8 > 0, 1.0, 2.0)
    shard = np.where(case.zero > 0, np.maximum(case.shard, 1.0), 1.0)
    states = (
        26.0
        * (shared + routed)
        / np.maximum(shard, 1.0)
        / np.where(case.experts > 0, np.maximum(case.tp, 1), 1.0)
    )
    body = case.stage_layers * weights_read(case)
    return (case.micro_batches * 2 * item * body + states) / case.memory_rate


def weights_read(case: Case) -> Number:
    """Weights one layer's matmuls read on one rank; experts no token chose are not read."""
    share = case.moe_layers / case.layers
    dense, _ = layer_weights(case)
    attention = dense - case.matrices * case.width * case.feed_forward / case.tp
    shared = case.matrices * case.width * case.shared_width / case.tp
    return attention + (1 - share) * (dense - attention) + share * shared


def tensor(case: Case) -> Number:
    """Two all-reduces forward and two backward a layer and micro-batch: 8 (t - 1) / t q h elements one way."""
    rate = full_rate(case, case.tp, 1.0)
    size = 8.0 * (case.tp - 1) / case.tp * case.tokens * case.width * 2.0
    again = np.where(case.recompute >= FULL, 1.5, 1.0)
    return case.micro_batches * np.floor(case.layers / case.pp) * size * again / rate


def pipeline(case: Case) -> Number:
    """Activations to the next stage and gradients back."""
    apart = case.cards / case.pp >= case.domain
    rate = np.where(apart, case.nic_rate, case.link_rate)
    size = case.tokens * case.width * 2.0 / case.tp
    return np.where(case.pp > 1, case.micro_batches * case.vpp * size / rate, 0.0)


def gradients(case: Case) -> Number:
    """Gradients over the data-parallel group once a step; experts have the smaller group."""
    shared, _ = stage_weights(case)
    group = case.dp * case.cp
    size = 2.0 * (group - 1) / group * np.minimum(case.reduce_bytes, 2.0) * shared
    spread = np.where(case.zero >= 3, 0.0, 1.0)
    return np.where(group > 1, spread * size / full_rate(case, group, case.tp), 0.0)


def sharded(case: Case) -> Number:
    """ZeRO-3: two gathers and a scatter of the stage's weights a micro-batch."""
    shared, routed = stage_weights(case)
    size = 3.0 * (case.shard - 1) / np.maximum(case.shard, 1) * 2.0 * (shared + routed)
    return np.where(
        (case.zero >= 3) & (case.shard > 1), size / full_rate(case, case.shard, case.tp), 0.0
    )


def expert(case: Case) -> Number:
    """Dispatch and combine, forward and backward, over the network: one copy a node that is not the token's own."""
    inside = np.minimum(case.ep, case.domain)
    nodes = np.maximum(case.ep / np.maximum(inside, 1), 1.0)
    reach = np.where(case.group_limit > 0, np.minimum(case.group_limit, nodes), nodes)
    copies = (
        4.0 * case.tokens / case.tp * case.width * np.minimum(case.top_k, reach) * (1 - 1 / nodes)
    )
    layers = np.floor(case.layers / case.pp) * case.moe_layers / case.layers
    return np.where(case.experts > 0, case.micro_batches * layers * copies / case.nic_rate, 0.0)


def full_rate(case: Case, group: Number, stride: Number) -> Number:
    """`links.rate` of perfect links."""
    local = links.inside(case, group, stride)
    return np.where(
        local >= group, case.link_rate, np.minimum(case.link_rate, local * case.nic_rate)
    )


def terms(case: Case) -> dict[str, Number]:
    """Every bound by name, in seconds."""
    return {
        "arithmetic": arithmetic(case),
        "memory": memory_traffic(case),
        "tensor traffic": tensor(case),
        "pipeline sends": pipeline(case),
        "gradients": gradients(case),
        "sharded weights": sharded(case),
        "expert traffic": expert(case),
    }


def seconds(case: Case) -> Number:
    """The largest bound."""
    every = list(terms(case).values())
    largest = every[0]
    for term in every[1:]:
        largest = np.maximum(largest, term)
    return largest
