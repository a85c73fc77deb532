"""Agents start the ranks of a node, check its health and hold checkpoint replicas."""

from tumen.cluster.agents.replica_store import Keeper, folder_of

__all__ = ["Keeper", "folder_of"]
