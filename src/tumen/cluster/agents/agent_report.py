"""What an agent reports to the watcher: heartbeats of its ranks, and a note where there is news.

dead      [[rank, exit code, reason], ...] of this attempt     leaving   it got SIGTERM
stopped   [[rank, seconds], ...]                               verb      its order, unless "run"
identity  {pid, epoch, node_rank, nodes, ranks_per_node, master, ranks, world, health}
"""

from __future__ import annotations

import os
from typing import Any

from tumen.cluster.agents.agent_options import AgentOptions
from tumen.cluster.agents.health import Health
from tumen.cluster.agents.rank_group import RankGroup
from tumen.cluster.agents.watcher_link import free_port
from tumen.cluster.order import Verb
from tumen.heartbeat import messages


def heartbeats_of(group: RankGroup, now: float) -> list[messages.Heartbeat]:
    """Return the last heartbeat of each living rank, with its age.

    Args:
        group: the ranks of this node.
        now: of time.monotonic().
    """
    found = []
    for rank in group.ranks:
        is_alive = rank.number not in group.exits
        if is_alive and rank.heartbeat:
            # Ages, not times: the watcher's clock may differ from this node's.
            age_ms = round(1000 * rank.heartbeat_age(now))
            found.append(rank.heartbeat._replace(age_ms=age_ms))
    return found


def note_of(group: RankGroup, verb: Verb, leaving: bool, now: float) -> dict[str, Any]:
    """Return the note of a report, without the identity.

    Args:
        group: the ranks of this node.
        verb: of the order that the agent follows.
        leaving: whether the agent got SIGTERM.
        now: of time.monotonic().
    """
    # Only what differs from the usual: 1,250 agents report every second.
    note: dict[str, Any] = {}
    if group.exits:
        note["dead"] = list(group.exits.values())
    stopped = [
        [rank.number, round(now - rank.stopped_since, 1)]
        for rank in group.ranks
        if rank.stopped_since
    ]
    if stopped:
        note["stopped"] = stopped
    if leaving:
        note["leaving"] = True
    if verb != "run":
        note["verb"] = verb
    return note


def identity_of(
    options: AgentOptions, group: RankGroup, world: int, health: Health | None
) -> dict[str, Any]:
    """Return who this agent is, what it runs, and where ranks may meet next.

    Args:
        options: of the agent.
        group: the ranks of this node.
        world: number of ranks of the attempt, on all nodes.
        health: of the node, None before it was examined.
    """
    return {
        "pid": os.getpid(),
        "epoch": options.epoch,
        "node_rank": options.node_rank,
        "nodes": options.nodes,
        "ranks_per_node": options.ranks_per_node,
        "master": f"{options.address}:{free_port()}",
        "ranks": [group.first, len(group.ranks)],
        "world": world,
        "health": vars(health) if health else {},
    }
