"""cluster: where?

What: the boundary to engines that start processes, and the local engine.
In: a `Job`: a command, its folder, its environment.
Out: a job id, its status and logs.
Never: training, torch, waiting for a collective's timeout.
Read next: engine.py, then local.py.
"""

from tumen.cluster.engine import ENGINES, Engine, Job, Node, Status, connect
from tumen.cluster.local import die_with_parent

__all__ = ["ENGINES", "Engine", "Job", "Node", "Status", "connect", "die_with_parent"]
