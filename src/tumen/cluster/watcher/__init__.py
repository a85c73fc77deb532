"""The watcher detects faults of a run, decides what to do and recovers."""

from tumen.cluster.watcher.channel import announce_watcher
from tumen.cluster.watcher.monitor import RankLayout, RunMonitor, format_row
from tumen.cluster.watcher.resize_request import request_resize
from tumen.cluster.watcher.service import watch_job
from tumen.cluster.watcher.snapshot import Snapshot, read_snapshot, status_lines, write_snapshot

__all__ = [
    "RankLayout",
    "RunMonitor",
    "Snapshot",
    "announce_watcher",
    "format_row",
    "read_snapshot",
    "request_resize",
    "status_lines",
    "watch_job",
    "write_snapshot",
]
