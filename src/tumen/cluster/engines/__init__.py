"""Engines start, list and cancel jobs: this machine, Slurm, Kubernetes."""

from tumen.cluster.engines.engine import (
    ENGINES,
    ClusterEngine,
    Engine,
    JobSpec,
    JobStatus,
    Node,
    connect,
    render_job,
)
from tumen.cluster.engines.hostlist import fold_hosts
from tumen.cluster.engines.local import die_with_parent

__all__ = [
    "ENGINES",
    "ClusterEngine",
    "Engine",
    "JobSpec",
    "JobStatus",
    "Node",
    "connect",
    "die_with_parent",
    "fold_hosts",
    "render_job",
]
