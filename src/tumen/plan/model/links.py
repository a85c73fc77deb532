"""Traffic between cards: alpha-beta times of collectives, with the rule that decides which link a group sees."""

from __future__ import annotations

import numpy as np

from tumen.plan.model.case import Case, Number
from tumen.plan.model.physics import Physics


def inside(case: Case, group: Number, stride: Number) -> Number:
    """Ranks of one group that share a scale-up domain, when neighbours are `stride` cards apart."""
    return np.clip(np.floor(case.domain / np.maximum(stride, 1.0) + 1e-9), 1.0, group)


def rate(case: Case, physics: Physics, group: Number, stride: Number) -> Number:
    """Bytes a second that one rank of a group sees, one way.

    The rings of a group use every network card its ranks have in a node: a group inside one domain sees the scale-up
    link, one with r ranks in a domain sees min(link, r x card). Naming the rate per card avoids the usual trap of
    per-node figures.
    """
    local = inside(case, group, stride)
    link = case.link_rate * physics.link
    across = np.minimum(link, np.minimum(local, case.rails) * case.nic_rate * physics.network)
    return np.where(local >= group, link, across)


def latency(case: Case, physics: Physics, group: Number, stride: Number) -> Number:
    """Seconds of one hop in a group."""
    return np.where(
        inside(case, group, stride) >= group, physics.link_latency, physics.network_latency
    )


def ring(
    case: Case,
    physics: Physics,
    size: Number,
    group: Number,
    stride: Number,
    messages: Number = 1.0,
) -> Number:
    """Reduce-scatter or all-gather of `size` bytes over a ring, cut into `messages`: each takes (g - 1) hops."""
    wire = size * (group - 1) / group / rate(case, physics, group, stride)
    return wire + messages * (group - 1) * latency(case, physics, group, stride)


def all_reduce(
    case: Case,
    physics: Physics,
    size: Number,
    group: Number,
    stride: Number,
    messages: Number = 1.0,
) -> Number:
    """All-reduce of `size` bytes: ring bandwidth 2 (g - 1) / g, tree latency 2 log2 g."""
    wire = 2 * size * (group - 1) / group / rate(case, physics, group, stride)
    hops = 2 * np.log2(np.maximum(group, 1.0))
    return np.where(group > 1, wire + messages * hops * latency(case, physics, group, stride), 0.0)
