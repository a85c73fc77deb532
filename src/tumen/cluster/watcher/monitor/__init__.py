"""The pure part of the watcher: state of a run, detection of faults, decisions.

It has no clock, socket or file.
"""

from tumen.cluster.watcher.monitor.rank_table import SLOW_STEPS, USUAL_STEPS
from tumen.cluster.watcher.monitor.rows import Fault, Row, fault_row, format_row, watch_row
from tumen.cluster.watcher.monitor.run_monitor import RunMonitor
from tumen.cluster.watcher.monitor.run_state import AgentState, RankLayout, RunState

__all__ = [
    "SLOW_STEPS",
    "USUAL_STEPS",
    "AgentState",
    "Fault",
    "RankLayout",
    "Row",
    "RunMonitor",
    "RunState",
    "fault_row",
    "format_row",
    "watch_row",
]
