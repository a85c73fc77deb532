"""Engines start, list and cancel jobs: this machine, Slurm, Kubernetes."""

from tumen.cluster.engines.engine import (
    ENGINES,
    Cluster,
    Engine,
    Job,
    Node,
    Status,
    connect,
    rendered,
)
from tumen.cluster.engines.hostlist import folded
from tumen.cluster.engines.local import die_with_parent

__all__ = [
    "ENGINES",
    "Cluster",
    "Engine",
    "Job",
    "Node",
    "Status",
    "connect",
    "die_with_parent",
    "folded",
    "rendered",
]
