"""Seconds of traffic between accelerators, by kind of parallelism, before any of it is hidden."""

from __future__ import annotations

import numpy as np

from tumen.plan.model import links
from tumen.plan.model.counts import stage_weights
from tumen.plan.model.physics import Physics
from tumen.plan.model.scenario import Number, Scenario

BF16_BYTES = 2.0


# ---------------------------------------------------------------------- inside a layer


def tensor_traffic(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds of one all-reduce of a layer's activations over the TP group.

    With sequence parallelism an all-gather and a reduce-scatter send the same bytes.
    """
    size = scenario.tokens * scenario.hidden_size * BF16_BYTES
    seconds = links.all_reduce(scenario, physics, size, scenario.tp, 1.0)
    # ranks meet at every collective: the slowest host sets the pace
    meeting = physics.tp_meet * scenario.launch_factor * scenario.tp
    return np.where(scenario.tp > 1, seconds + meeting, 0.0)


def context_traffic(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds to pass the keys and values of one layer around the CP ring, forward.

    Each rank's keys and values make c - 1 hops.
    """
    cp = scenario.cp
    size = scenario.tokens * scenario.kv_elements / scenario.tp * BF16_BYTES
    rate = links.rate(scenario, physics, cp, scenario.tp)
    return np.where(cp > 1, (cp - 1) * size / rate, 0.0)


def expert_traffic(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds to dispatch the tokens of one layer to their experts (or to combine them).

    Traffic inside a scale-up domain and over the network run at the same time.
    """
    local = np.minimum(scenario.ep, scenario.domain)
    nodes = scenario.ep / local
    activations = scenario.tokens / scenario.tp * scenario.hidden_size * BF16_BYTES
    # inside a domain every chosen expert gets a copy, unless it is on the token's own rank
    copies = scenario.num_experts_per_tok
    link = scenario.link_rate * physics.all_to_all
    within = activations * copies * (1.0 - 1.0 / local) / link
    nic = scenario.nic_rate * physics.all_to_all
    across = activations * network_copies(scenario, nodes) / nic

    network_hops = np.where(nodes > 1, physics.network_latency * nodes, 0.0)
    latency = physics.link_latency * local + network_hops
    active = scenario.has_experts & (scenario.ep > 1)
    return np.where(active, np.maximum(across, within) + latency, 0.0)


def network_copies(scenario: Scenario, nodes: Number) -> Number:
    """Return the copies of a token that cross the network: one a node at most, none to its own.

    Args:
        scenario: a scenario or a table of them.
        nodes: nodes of an expert-parallel group.
    """
    limited = np.minimum(scenario.topk_group, nodes)
    reach = np.where(scenario.topk_group > 0, limited, nodes)
    return np.minimum(scenario.num_experts_per_tok, reach) * (1.0 - 1.0 / nodes)


# ---------------------------------------------------------------------- once a micro-batch


def sends(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds to send one activation to the next stage, of one micro-batch and chunk."""
    parts = np.where(scenario.scatter_sends + scenario.sequence_parallel > 0, scenario.tp, 1.0)
    size = scenario.tokens * scenario.hidden_size * BF16_BYTES / parts
    # stages as large as a domain lie in different ones
    over_network = scenario.world_size / scenario.pp >= scenario.domain
    network = scenario.nic_rate * physics.network_p2p
    rate = np.where(over_network, network, scenario.link_rate * physics.link)
    return np.where(scenario.pp > 1, size / rate + physics.network_latency, 0.0)


def sharded_traffic(scenario: Scenario, physics: Physics) -> tuple[Number, Number]:
    """Return the (forward, backward) seconds of FSDP (ZeRO-3) of one micro-batch.

    A gather forward, a gather and a scatter of gradients backward (arXiv 1910.02054, section
    7.2.2). With hybrid sharding the group is the shard; `gradient_traffic` reduces across the
    copies.
    """
    shared, routed = stage_weights(scenario)
    weights = shared + routed
    shard = scenario.shard
    layers = scenario.num_hidden_layers  # one message a layer
    gather = links.ring(scenario, physics, weights * BF16_BYTES, shard, scenario.tp, layers)
    scatter = links.ring(
        scenario, physics, weights * scenario.reduce_bytes, shard, scenario.tp, layers
    )
    on = (scenario.zero >= 3) & (shard > 1)
    return np.where(on, gather, 0.0), np.where(on, gather + scatter, 0.0)


# ---------------------------------------------------------------------- once a step


def gradient_traffic(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds to reduce the gradients over the data-parallel group.

    An all-reduce, or under ZeRO-1 and ZeRO-2 a reduce-scatter of gradients and an all-gather of
    weights. Routed experts have the smaller group of the ranks that hold a copy of them.
    """
    shared, routed = stage_weights(scenario)
    group = scenario.dp * scenario.cp
    size = (shared + routed) * scenario.reduce_bytes
    buckets = np.maximum(1.0, size / physics.bucket_bytes)
    dense = reduced(scenario, physics, shared, group, buckets)
    dense = np.where(group > 1, dense, 0.0)

    expert_group = np.maximum(group * scenario.tp / scenario.ep, 1.0)
    experts = reduced(scenario, physics, routed, expert_group, buckets)
    experts = np.where(scenario.has_experts & (expert_group > 1), experts, 0.0)
    return dense + experts


def reduced(
    scenario: Scenario, physics: Physics, weights: Number, group: Number, buckets: Number
) -> Number:
    """Return the seconds to reduce the gradients of some weights over a group.

    Args:
        scenario: a scenario or a table of them.
        physics: constants of the model.
        weights: elements on one rank.
        group: ranks that hold the same weights.
        buckets: messages the gradients are sent in.
    """
    gradient = weights * scenario.reduce_bytes
    plain = links.all_reduce(scenario, physics, gradient, group, scenario.tp, buckets)
    inside = reduced_in_shard(scenario, physics, weights, group, buckets)
    across = reduced_across_shards(scenario, physics, gradient, group, buckets)
    return np.where(scenario.zero > 0, inside + across, plain)


def shard_ranks(scenario: Scenario) -> Number:
    """Return the ranks of one shard, at most all that hold the same weights."""
    ranks = scenario.dp * scenario.cp
    return np.where(scenario.shard > 1, np.minimum(scenario.shard, ranks), 1.0)


def reduced_in_shard(
    scenario: Scenario, physics: Physics, weights: Number, group: Number, buckets: Number
) -> Number:
    """Return the seconds to scatter gradients and to gather weights inside a shard.

    ZeRO-3 has scattered its gradients in the backward pass already. The arguments are those of
    `reduced`.
    """
    local = np.minimum(shard_ranks(scenario), group)
    gradient = weights * scenario.reduce_bytes
    scatter = links.ring(scenario, physics, gradient, local, scenario.tp, buckets)
    gather = links.ring(scenario, physics, weights * BF16_BYTES, local, scenario.tp, buckets)
    return np.where(scenario.zero >= 3, 0.0, scatter + gather)


def reduced_across_shards(
    scenario: Scenario, physics: Physics, gradient: Number, group: Number, buckets: Number
) -> Number:
    """Return the seconds of hybrid sharding to reduce gradients across the copies of a shard.

    Args:
        scenario: a scenario or a table of them.
        physics: constants of the model.
        gradient: bytes on one rank before they are sharded.
        group: ranks that hold the same weights.
        buckets: messages the gradients are sent in.
    """
    shard = shard_ranks(scenario)
    copies = np.maximum(scenario.dp * scenario.cp / shard, 1.0)
    peers = np.maximum(group / shard, 1)
    size = gradient / shard
    stride = scenario.tp * shard
    across = links.all_reduce(scenario, physics, size, peers, stride, buckets)
    return np.where(copies > 1, across, 0.0)
