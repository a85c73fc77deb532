"""cluster: where?

What: the boundary to engines that start processes (this machine, Slurm, Kubernetes); an agent on each node, and a watcher that sees
    what breaks and mends it.
In: a `JobSpec`: a command, its folder, its environment, how many nodes, ranks and cards; what ranks say of themselves.
Out: a job id, its status and logs; the nodes; watch.jsonl, what was seen and decided.
Never: training, torch, waiting for a collective's timeout.
Read next: engine.py, then local.py; order.py, then agent.py and monitor.py.
"""

from tumen.cluster.fault_injection import (
    INJECTABLE_FAULTS,
    DrillReport,
    drill_report,
    inject_fault,
    local_agents,
)
from tumen.cluster.goodput import GOODPUT_PARTS, GoodputReport, goodput_of_events, measure_goodput
from tumen.cluster.order import WATCH_FILE

__all__ = [
    "GOODPUT_PARTS",
    "INJECTABLE_FAULTS",
    "WATCH_FILE",
    "DrillReport",
    "GoodputReport",
    "drill_report",
    "goodput_of_events",
    "inject_fault",
    "local_agents",
    "measure_goodput",
]
