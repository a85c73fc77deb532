"""cluster: where?

What: the boundary to engines that start processes (this machine, Slurm, Kubernetes); an agent on each node, and a watcher that sees
    what breaks and mends it.
In: a `Job`: a command, its folder, its environment, how many nodes, ranks and cards; what ranks say of themselves.
Out: a job id, its status and logs; the nodes; watch.jsonl, what was seen and decided.
Never: training, torch, waiting for a collective's timeout.
Read next: engine.py, then local.py; order.py, then agent.py and watch.py.
"""

from tumen.cluster.drill import FAULTS, Drill, crews, judge, play
from tumen.cluster.goodput import PARTS, Ledger, account, balance
from tumen.cluster.order import WATCH_FILE

__all__ = [
    "FAULTS",
    "PARTS",
    "WATCH_FILE",
    "Drill",
    "Ledger",
    "account",
    "balance",
    "crews",
    "judge",
    "play",
]
