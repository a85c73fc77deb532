"""Traffic between accelerators: times of collectives, and which link a group uses.

A message of n bytes takes alpha + n / rate seconds (arXiv 2104.04473, section 3). Rings follow
Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations in MPICH"
(2005).
"""

from __future__ import annotations

import numpy as np

from tumen.plan.model.physics import Physics
from tumen.plan.model.scenario import Number, Scenario


def inside(scenario: Scenario, group: Number, stride: Number) -> Number:
    """Return how many ranks of one group share a scale-up domain.

    Args:
        scenario: holds the size of the domain.
        group: ranks of the group.
        stride: distance of neighbours of the group, in ranks.
    """
    places = np.floor(scenario.domain / np.maximum(stride, 1.0) + 1e-9)
    return np.clip(places, 1.0, group)


def rate(scenario: Scenario, physics: Physics, group: Number, stride: Number) -> Number:
    """Return the bytes a second that one rank of a group can send, one way.

    A group inside one domain uses the scale-up link. The rings of a group with r ranks in a domain
    use their r network cards: min(link, r x network card). Rates are per accelerator, as figures of
    a whole node are a common source of errors.
    """
    local = inside(scenario, group, stride)
    link = scenario.link_rate * physics.link
    nics = np.minimum(local, scenario.rails)
    across = np.minimum(link, nics * scenario.nic_rate * physics.network)
    return np.where(local >= group, link, across)


def latency(scenario: Scenario, physics: Physics, group: Number, stride: Number) -> Number:
    """Return the seconds of one hop in a group."""
    one_domain = inside(scenario, group, stride) >= group
    return np.where(one_domain, physics.link_latency, physics.network_latency)


def ring(
    scenario: Scenario,
    physics: Physics,
    size: Number,
    group: Number,
    stride: Number,
    messages: Number = 1.0,
) -> Number:
    """Return the seconds of a reduce-scatter or an all-gather over a ring.

    Args:
        scenario: holds the links.
        physics: holds the shares of the links that are reached.
        size: bytes of the whole buffer.
        group: ranks g of the ring.
        stride: distance of neighbours, in ranks.
        messages: pieces the buffer is cut into; each takes g - 1 hops.
    """
    wire = size * (group - 1) / group / rate(scenario, physics, group, stride)
    hop = latency(scenario, physics, group, stride)
    return wire + messages * (group - 1) * hop


def all_reduce(
    scenario: Scenario,
    physics: Physics,
    size: Number,
    group: Number,
    stride: Number,
    messages: Number = 1.0,
) -> Number:
    """Return the seconds of an all-reduce: the bytes of two rings, the latency 2 log2 g of a tree.

    The arguments are those of `ring`.
    """
    wire = 2 * size * (group - 1) / group / rate(scenario, physics, group, stride)
    hops = 2 * np.log2(np.maximum(group, 1.0))
    seconds = wire + messages * hops * latency(scenario, physics, group, stride)
    return np.where(group > 1, seconds, 0.0)
