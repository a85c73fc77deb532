"""The watcher detects faults of a run, decides and recovers."""

from tumen.cluster.watcher.glance import Glance, standing, write_glance
from tumen.cluster.watcher.watch import Layout, Watch, shown
from tumen.cluster.watcher.watcher import expect, watching, wish

__all__ = [
    "Glance",
    "Layout",
    "Watch",
    "expect",
    "shown",
    "standing",
    "watching",
    "wish",
    "write_glance",
]
