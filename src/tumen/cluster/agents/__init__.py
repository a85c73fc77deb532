"""Agents start the ranks of a node, check its health and hold checkpoint replicas."""

from tumen.cluster.agents.replica_store import ReplicaStore, replica_folder

__all__ = ["ReplicaStore", "replica_folder"]
