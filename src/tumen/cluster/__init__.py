"""cluster: where?

What: the boundary to engines that start processes: this machine, Slurm, Kubernetes.
In: a `Job`: a command, its folder, its environment, how many nodes, ranks and cards.
Out: a job id, its status and logs; the nodes.
Never: training, torch, waiting for a collective's timeout.
Read next: engine.py, then local.py, then slurm.py.
"""

from tumen.cluster.engine import ENGINES, Cluster, Engine, Job, Node, Status, connect, rendered
from tumen.cluster.hosts import folded
from tumen.cluster.local import die_with_parent
from tumen.cluster.standing import Glance, standing, write_glance

__all__ = [
    "ENGINES",
    "Cluster",
    "Engine",
    "Glance",
    "Job",
    "Node",
    "Status",
    "connect",
    "die_with_parent",
    "folded",
    "rendered",
    "standing",
    "write_glance",
]
