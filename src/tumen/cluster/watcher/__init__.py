"""The watcher detects faults of a run, decides and recovers."""

from tumen.cluster.watcher.monitor import RankLayout, RunMonitor, format_row
from tumen.cluster.watcher.service import announce_watcher, request_resize, watch_job
from tumen.cluster.watcher.snapshot import Snapshot, status_lines, write_snapshot

__all__ = [
    "RankLayout",
    "RunMonitor",
    "Snapshot",
    "announce_watcher",
    "format_row",
    "request_resize",
    "status_lines",
    "watch_job",
    "write_snapshot",
]
