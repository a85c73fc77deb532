"""cluster: run training on machines and keep it running.

What: engines that start jobs (this machine, Slurm, Kubernetes), an agent on each node that starts
    ranks, and a watcher that detects faults and recovers.
In: a `JobSpec`: command, folder, environment, number of nodes, ranks and accelerators; heartbeats
    of ranks.
Out: a job's id, status and logs; the engine's nodes; watch.jsonl, the detected faults and
    decisions.
Never: training, torch, waiting for a collective's timeout.
Read next: job_files.py and order.py; engine.py, then local.py; agent.py; run_monitor.py, then
    service.py.
"""

from tumen.cluster.fault_injection import (
    INJECTABLE_FAULTS,
    DrillReport,
    drill_report,
    inject_fault,
    local_agents,
)
from tumen.cluster.goodput import GOODPUT_PARTS, GoodputReport, goodput_of_events, measure_goodput
from tumen.cluster.job_files import WATCH_FILE

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
