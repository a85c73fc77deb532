"""The environment of a rank.

torchrun's variables, and where the rank finds its agent, its job and its node's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tumen.cluster.agents.agent_options import AgentOptions
from tumen.cluster.agents.replica_store import ReplicaStore
from tumen.cluster.job_files import SECRET_FILE
from tumen.core import fencing
from tumen.heartbeat import messages


def rank_environment(
    options: AgentOptions,
    order: Mapping[str, Any],
    local: int,
    agent_address: str,
    store: ReplicaStore | None,
) -> dict[str, str]:
    """Return the variables of a rank.

    Args:
        options: of the agent.
        order: to run an attempt (`Order.part`).
        local: place of the rank on this node.
        agent_address: host:port where the agent receives heartbeats.
        store: of checkpoint replicas in memory, where there is one.

    Raises:
        EngineError: the order's master is not host:port.
    """
    host, port = messages.address_of(order["master"])
    first, count = order["ranks"]
    # torchrun's names, which torch.distributed reads; then what only this project's ranks read.
    variables = {
        "RANK": first + local,
        "LOCAL_RANK": local,
        "WORLD_SIZE": order["world"],
        "LOCAL_WORLD_SIZE": count,
        "GROUP_RANK": options.node_rank,
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        messages.AGENT: agent_address,
        messages.SECRET: options.folder / SECRET_FILE,
        messages.ATTEMPT: order["attempt"],
        fencing.EPOCH_ENV: options.epoch,
        fencing.JOB_ENV: options.folder,
        "TUMEN_WORLD": order["world"],
        "TUMEN_NODE": options.node,
    }
    if store:
        variables["TUMEN_REPLICA_FOLDER"] = store.folder
        variables["TUMEN_REPLICA_STORE"] = store.address
    return {name: str(value) for name, value in variables.items()}
