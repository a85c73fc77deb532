"""cluster: where?

What: the boundary to engines that start processes (this machine, Slurm, Kubernetes); an agent on each node, and a watcher that sees
    what breaks and mends it.
In: a `Job`: a command, its folder, its environment, how many nodes, ranks and cards; what ranks say of themselves.
Out: a job id, its status and logs; the nodes; watch.jsonl, what was seen and decided.
Never: training, torch, waiting for a collective's timeout.
Read next: engine.py, then local.py; order.py, then agent.py and watch.py.
"""

from tumen.cluster.drill import FAULTS, Drill, crews, judge, play
from tumen.cluster.engine import ENGINES, Cluster, Engine, Job, Node, Status, connect, rendered
from tumen.cluster.glance import Glance, standing, write_glance
from tumen.cluster.hosts import folded
from tumen.cluster.keeper import Keeper, folder_of
from tumen.cluster.ledger import PARTS, Ledger, account, balance
from tumen.cluster.local import die_with_parent
from tumen.cluster.order import WATCH_FILE
from tumen.cluster.watch import Layout, Watch, shown
from tumen.cluster.watcher import expect, watching, wish

__all__ = [
    "ENGINES",
    "FAULTS",
    "PARTS",
    "WATCH_FILE",
    "Cluster",
    "Drill",
    "Engine",
    "Glance",
    "Job",
    "Keeper",
    "Layout",
    "Ledger",
    "Node",
    "Status",
    "Watch",
    "account",
    "balance",
    "connect",
    "crews",
    "die_with_parent",
    "expect",
    "folded",
    "folder_of",
    "judge",
    "play",
    "rendered",
    "shown",
    "standing",
    "watching",
    "wish",
    "write_glance",
]
