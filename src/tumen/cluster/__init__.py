"""cluster: where?

What: the boundary to engines that start processes: this machine, Slurm, Kubernetes.
In: a `Job`: a command, its folder, its environment, how many nodes, ranks and cards.
Out: a job id, its status and logs; the nodes.
Never: training, torch, waiting for a collective's timeout.
Read next: engine.py, then local.py, then slurm.py.
"""

from tumen.cluster.drill import FAULTS, Drill, crews, judge, play
from tumen.cluster.engine import ENGINES, Cluster, Engine, Job, Node, Status, connect, rendered
from tumen.cluster.ledger import PARTS, Ledger, account, balance
from tumen.cluster.local import die_with_parent

__all__ = [
    "ENGINES",
    "FAULTS",
    "PARTS",
    "Cluster",
    "Drill",
    "Engine",
    "Job",
    "Ledger",
    "Node",
    "Status",
    "account",
    "balance",
    "connect",
    "crews",
    "die_with_parent",
    "judge",
    "play",
    "rendered",
]
