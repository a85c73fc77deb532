"""cluster: where?

What: the boundary to engines that start processes: this machine, Slurm, Kubernetes.
In: a `Job`: a command, its folder, its environment, how many nodes, ranks and cards.
Out: a job id, its status and logs; the nodes.
Never: training, torch, waiting for a collective's timeout.
Read next: engine.py, then local.py, then slurm.py.
"""

from tumen.cluster.engine import ENGINES, Cluster, Engine, Job, Node, Status, connect, rendered
from tumen.cluster.keeper import Keeper, folder_of
from tumen.cluster.local import die_with_parent

__all__ = ["ENGINES", "Cluster", "Engine", "Job", "Keeper", "Node", "Status", "connect", "die_with_parent", "folder_of", "rendered"]
