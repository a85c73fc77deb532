"""The local engine, agents, ranks and a watcher, all of them processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.waiting import is_alive, until

from tumen.cluster.engines import JobSpec, connect
from tumen.cluster.watcher import announce_watcher, request_resize
from tumen.core import events

FAKE_RANK = str(Path(__file__).with_name("fake_rank.py"))
WATCHER = """
import sys
from pathlib import Path
from tumen.cluster.engines import JobSpec, connect
from tumen.cluster.watcher import watch_job
folder = Path(sys.argv[1])
job = JobSpec("test", (), folder, nodes=int(sys.argv[2]), ranks_per_node=int(sys.argv[3]))
sys.exit(watch_job(connect("local"), job))
"""


class WatchedJob:
    """A job of two nodes with a rank each, and its watcher as a process."""

    def __init__(self, folder: Path) -> None:
        command = (sys.executable, FAKE_RANK, str(folder), "100000", "0.02")
        self.spec = JobSpec("test", command, folder / "job", nodes=2)
        self.folder = self.spec.folder
        self.state = folder / "state"
        announce_watcher(self.folder)
        self.local = connect("local")
        self.local.submit(self.spec)
        self.watcher = self.start_watcher()

    def start_watcher(self) -> subprocess.Popen[bytes]:
        numbers = (str(self.spec.nodes), str(self.spec.ranks_per_node))
        return subprocess.Popen([sys.executable, "-c", WATCHER, self.folder, *numbers])

    def rows(self, event: str) -> list[dict[str, Any]]:
        return list(events.read(self.folder / "watch.jsonl", event))

    def facts(self, attempt: int, node: str = "n0") -> dict[str, Any]:
        """Return what a node's agent wrote, once both nodes are at an attempt."""

        def facts() -> Any:
            found = {}
            for name in ("n0", "n1"):
                path = self.folder / "ranks" / name / "agent.json"
                if path.exists():
                    found[name] = json.loads(path.read_text())
            attempts = [one["attempt"] for one in found.values()]
            return found[node] if attempts == [attempt, attempt] else None

        return dict(until(facts))

    def close(self) -> None:
        self.local.cancel(str(self.folder))
        self.watcher.kill()
        self.watcher.wait()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[WatchedJob]:
    job = WatchedJob(tmp_path)
    yield job
    job.close()


def test_training_continues_whatever_is_killed(job: WatchedJob) -> None:
    assert stat.S_IMODE((job.folder / "secret").stat().st_mode) == 0o600
    facts = job.facts(1)
    until(job.state.exists)

    os.kill(facts["ranks"]["0"], signal.SIGKILL)
    until(lambda: len(job.rows("resumed")) == 1)
    facts = job.facts(2)

    os.kill(facts["ranks"]["0"], signal.SIGSTOP)
    until(lambda: len(job.rows("resumed")) == 2)
    assert not is_alive(facts["ranks"]["0"])
    facts = job.facts(3)

    job.watcher.kill()
    job.watcher.wait()
    os.kill(facts["pid"], signal.SIGKILL)  # while no watcher is running
    before = job.state.read_text()
    job.watcher = job.start_watcher()
    until(lambda: len(job.rows("watch")) == 2 and job.state.read_text() != before)
    facts = job.facts(4)

    request_resize(job.folder, 4)
    until(lambda: job.rows("decided")[-1]["action"] == "resize")
    until(lambda: len(job.facts(5)["ranks"]) == 2)
    until(lambda: job.rows("resumed")[-1]["attempt"] == 5)

    kinds = [(row["kind"], row["rank"], row["node"]) for row in job.rows("fault")]
    assert kinds[:2] == [("crash", 0, "n0"), ("freeze", 0, "n0")]
    assert set(kinds[2:]) <= {("agent", None, "n0"), ("crash", 1, "n1")}
    for row in job.rows("resumed"):
        assert 0 <= row["detection_seconds"] <= row["seconds"]
    (job.state.parent / "do-0").write_text("exit")
    until(lambda: job.rows("resumed")[-1]["attempt"] == 6)
    assert connect("local").status(str(job.folder)).state == "running"


def test_a_stopped_agent_is_killed_and_replaced(job: WatchedJob) -> None:
    """SIGSTOP of the agent itself: it cannot end, so the watcher ends it and its starter replaces it."""
    agent = job.facts(1, "n1")["pid"]
    until(job.state.exists)
    os.kill(agent, signal.SIGSTOP)
    until(lambda: not is_alive(agent))
    until(lambda: job.rows("resumed"))
    assert [(row["kind"], row["node"]) for row in job.rows("fault")] == [("agent", "n1")]
    assert job.facts(2, "n1")["pid"] != agent
