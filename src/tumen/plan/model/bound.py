"""Physical lower bounds of a step: no software is faster, and no plan may promise to be.

    step >= max(arithmetic, memory, tensor, sharded, gradients, pipeline, expert)

Each term stands alone because everything else could overlap with it. Rates are peaks and full
links. Sources: arithmetic of arXiv 2104.04473 (section 3) and arXiv 2205.05198, traffic of arXiv
1910.02054 (section 7) and arXiv 2405.04434 (section 3.1.3).
"""

from __future__ import annotations

import numpy as np

from tumen.plan.model import links
from tumen.plan.model.counts import layer_weights, stage_weights
from tumen.plan.model.scenario import Number, Scenario

# Adam reads and writes the fp32 master weight and two moments (24 bytes) and writes the bf16
# weight.
ADAM_BYTES = 26.0
ACTIVATION_BYTES = 2.0  # bf16


def forward_flops(scenario: Scenario) -> tuple[Number, Number]:
    """Return the (matmul, attention) FLOPs of one token forward, all layers.

    Attention is causal; embedding look-ups are not counted. A matmul has two FLOPs a weight.
    """
    predicted = scenario.num_nextn_predict_layers
    head = (1 + predicted) * scenario.vocab_size * scenario.hidden_size
    weights = (scenario.num_hidden_layers + predicted) * used_weights(scenario) + head
    heads = scenario.num_hidden_layers * scenario.num_attention_heads
    dims = scenario.query_dim + scenario.value_dim
    scores = heads * dims * scenario.context * scenario.causal_share
    return 2.0 * weights, 2.0 * scores


def used_weights(scenario: Scenario) -> Number:
    """Return the weights of an average layer that one token is multiplied with."""
    hidden = scenario.hidden_size
    attention = (
        hidden * scenario.down_columns
        + scenario.up_rows * scenario.up_columns
        + scenario.kv_up_rows * scenario.kv_up_columns
    )
    attention = attention + scenario.num_attention_heads * scenario.value_dim * hidden
    dense = scenario.matrices * hidden * scenario.intermediate_size
    chosen = scenario.moe_intermediate_size * scenario.num_experts_per_tok
    experts = scenario.matrices * hidden * (chosen + scenario.shared_intermediate_size)
    mixture = experts + hidden * scenario.n_routed_experts  # and the router
    share = scenario.moe_share
    return attention + (1 - share) * dense + share * mixture


def arithmetic(scenario: Scenario) -> Number:
    """Return the FLOPs of the step over the peaks of all ranks; recomputed work counts."""
    matmuls, scores = forward_flops(scenario)
    redo = np.where(scenario.repeats_all, 1.0, scenario.redo_matmul)
    again = np.where(scenario.repeats_all, 1.0, 0.0)
    tokens = scenario.batch_size * scenario.seq_len
    matmul_seconds = (3 + redo) * matmuls / scenario.matmul_flops
    attention_seconds = (3 + again) * scores / scenario.bf16_flops
    return tokens / scenario.world_size * (matmul_seconds + attention_seconds)


def memory_traffic(scenario: Scenario) -> Number:
    """Return the seconds to read the weights twice a micro-batch and the states once a step."""
    shared, routed = stage_weights(scenario)
    weight_bytes = np.where(scenario.matmul_format > 0, 1.0, 2.0)
    shard = np.where(scenario.zero > 0, np.maximum(scenario.shard, 1.0), 1.0)
    # the loosest case for experts: their states are spread over the tensor ranks as well
    experts_split = np.where(scenario.has_experts, np.maximum(scenario.tp, 1), 1.0)
    states = ADAM_BYTES * (shared + routed) / np.maximum(shard, 1.0) / experts_split
    body = scenario.stage_layers * weights_read(scenario)
    return (scenario.micro_batches * 2 * weight_bytes * body + states) / scenario.memory_rate


def weights_read(scenario: Scenario) -> Number:
    """Return the weights that one layer's matmuls read on one rank.

    Routed experts are left out: one that no token chose is not read.
    """
    share = scenario.moe_share
    dense, _ = layer_weights(scenario)
    one_row = scenario.matrices * scenario.hidden_size
    attention = dense - one_row * scenario.intermediate_size / scenario.tp
    shared = one_row * scenario.shared_intermediate_size / scenario.tp
    return attention + (1 - share) * (dense - attention) + share * shared


def tensor(scenario: Scenario) -> Number:
    """Return the seconds of tensor-parallel traffic.

    Two all-reduces forward and two backward a layer and micro-batch: 8 (t - 1) / t of the
    activations one way. Full recompute adds the forward ones again.
    """
    tp = scenario.tp
    link = full_rate(scenario, tp, 1.0)
    size = 8.0 * (tp - 1) / tp * scenario.tokens * scenario.hidden_size * ACTIVATION_BYTES
    again = np.where(scenario.repeats_all, 1.5, 1.0)
    layers = np.floor(scenario.num_hidden_layers / scenario.pp)
    return scenario.micro_batches * layers * size * again / link


def pipeline(scenario: Scenario) -> Number:
    """Return the seconds to send activations to the next stage."""
    stage_ranks = scenario.world_size / scenario.pp
    over_network = stage_ranks >= scenario.domain
    link = np.where(over_network, scenario.nic_rate, scenario.link_rate)
    size = scenario.tokens * scenario.hidden_size * ACTIVATION_BYTES / scenario.tp
    seconds = scenario.micro_batches * scenario.vpp * size / link
    return np.where(scenario.pp > 1, seconds, 0.0)


def gradients(scenario: Scenario) -> Number:
    """Return the seconds to reduce the gradients of all but routed experts, once a step.

    Two bytes an element, whatever the software sends.
    """
    shared, _ = stage_weights(scenario)
    group = scenario.dp * scenario.cp
    element = np.minimum(scenario.reduce_bytes, 2.0)
    size = 2.0 * (group - 1) / group * element * shared
    reduced = np.where(scenario.zero >= 3, 0.0, 1.0)
    seconds = reduced * size / full_rate(scenario, group, scenario.tp)
    return np.where(group > 1, seconds, 0.0)


def sharded(scenario: Scenario) -> Number:
    """Return the seconds of ZeRO-3's two gathers and one scatter of the stage's weights."""
    shared, routed = stage_weights(scenario)
    shard = scenario.shard
    size = 3.0 * (shard - 1) / np.maximum(shard, 1) * 2.0 * (shared + routed)
    seconds = size / full_rate(scenario, shard, scenario.tp)
    return np.where((scenario.zero >= 3) & (shard > 1), seconds, 0.0)


def expert(scenario: Scenario) -> Number:
    """Return the seconds of expert dispatch and combine over the network, forward and backward.

    A token is sent once to each node other than its own that holds a chosen expert.
    """
    local = np.minimum(scenario.ep, scenario.domain)
    nodes = np.maximum(scenario.ep / np.maximum(local, 1), 1.0)
    limited = np.minimum(scenario.topk_group, nodes)
    reach = np.where(scenario.topk_group > 0, limited, nodes)
    activations = 4.0 * scenario.tokens / scenario.tp * scenario.hidden_size
    sent = activations * np.minimum(scenario.num_experts_per_tok, reach) * (1 - 1 / nodes)
    stage_layers = np.floor(scenario.num_hidden_layers / scenario.pp)
    layers = stage_layers * scenario.moe_layers / scenario.num_hidden_layers
    seconds = scenario.micro_batches * layers * sent / scenario.nic_rate
    return np.where(scenario.has_experts, seconds, 0.0)


def full_rate(scenario: Scenario, group: Number, stride: Number) -> Number:
    """Return `links.rate` of perfect links."""
    local = links.inside(scenario, group, stride)
    across = np.minimum(scenario.link_rate, local * scenario.nic_rate)
    return np.where(local >= group, scenario.link_rate, across)


def terms(scenario: Scenario) -> dict[str, Number]:
    """Return every bound by name, in seconds."""
    return {
        "arithmetic": arithmetic(scenario),
        "memory": memory_traffic(scenario),
        "tensor traffic": tensor(scenario),
        "pipeline sends": pipeline(scenario),
        "gradients": gradients(scenario),
        "sharded weights": sharded(scenario),
        "expert traffic": expert(scenario),
    }


def seconds(scenario: Scenario) -> Number:
    """Return the largest bound."""
    largest: Number = 0.0
    for term in terms(scenario).values():
        largest = np.maximum(largest, term)
    return largest
