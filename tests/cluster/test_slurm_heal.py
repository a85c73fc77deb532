"""Faults on a real Slurm of eight hosts, watched from this one: seen, named, and the same run goes on.

Ranks beat and keep step, but train nothing (fake_rank.py); tests/cli/test_launch.py has a real training.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.lab import slurm as lab

from tumen.cluster.engines import JobSpec
from tumen.cluster.engines.slurm import SlurmEngine
from tumen.cluster.watcher import announce_watcher, watch_job
from tumen.core.events import read

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("slurm_lab")]
PATIENCE_SECONDS = 120.0
BEATING = Path(__file__).with_name("fake_rank.py")
HERE = "10.77.0.1"  # this machine, as the lab's nodes reach it


class Watched:
    """A job of a rank a node, and a watcher of it in a thread."""

    def __init__(self, folder: Path, nodes: int, steps: int, step_seconds: float = 0.2) -> None:
        self.folder, self.slurm = folder, SlurmEngine()
        command = (sys.executable, str(BEATING), str(folder), str(steps), str(step_seconds))
        self.job = JobSpec("test", command, folder, nodes=nodes)
        self.code: int | None = None
        self.watcher = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        self.code = watch_job(self.slurm, self.job, HERE)

    def start(self) -> Watched:
        announce_watcher(self.folder, HERE)
        self.slurm.submit(self.job)
        self.watcher.start()
        return self

    def rows(self, event: str) -> list[dict[str, Any]]:
        return list(read(self.folder / "watch.jsonl", event))

    def agent(self, node: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.folder / "ranks" / node / "agent.json").read_text()
        )
        return found

    def nodes(self) -> list[str]:
        """Hosts of the newest attempt, by rank."""
        agents = [
            self.agent(path.parent.name) | {"node": path.parent.name}
            for path in self.folder.glob("ranks/*/agent.json")
        ]
        newest = max(agent["attempt"] for agent in agents)
        now = {
            int(rank): agent["node"]
            for agent in agents
            if agent["attempt"] == newest
            for rank in agent["ranks"]
        }
        return [now[rank] for rank in sorted(now)]

    def until_step(self, step: int) -> None:
        until(
            lambda: (
                (self.folder / "state").exists()
                and int((self.folder / "state").read_text()) >= step
            ),
            self.logs,
        )

    def logs(self) -> str:
        told = (
            (self.folder / "watch.jsonl").read_text()
            if (self.folder / "watch.jsonl").exists()
            else ""
        )
        return self.slurm.logs(str(self.folder)) + told

    def healed(self) -> tuple[list[str], list[str]]:
        """Wait for the end; kinds of faults and actions, in order, but for a rank that a busy machine made slow."""
        until(lambda: not self.watcher.is_alive(), self.logs)
        assert self.code == 0, self.logs()
        assert self.slurm.status(str(self.folder)).state == "done"
        assert len(self.rows("resumed")) >= 1, self.logs()
        faults = [row["kind"] for row in self.rows("fault") if row["kind"] != "slow"]
        return faults, [
            row["action"] for row in self.rows("decided") if not row["why"].startswith("slow: ")
        ]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Starts a watched job; it is gone afterwards, and all nodes are there again."""
    made: list[Watched] = []

    def start(nodes: int, steps: int, **given: float) -> Watched:
        made.append(Watched(tmp_path / "job", nodes, steps, **given))
        return made[0].start()

    yield start
    for one in made:
        one.slurm.cancel(str(one.folder))
        one.watcher.join(60)
    until(lambda: lab.states().get("idle") == 8, lambda: str(lab.states()))


def until(happened: Callable[[], object], say: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, say()
        time.sleep(0.1)


def test_a_killed_agent_a_frozen_rank_and_a_crash(watched: Callable[..., Watched]) -> None:
    """One after the other, on one gang: nothing is requeued, agents of the other nodes stay."""
    run = watched(nodes=8, steps=60)
    run.until_step(10)
    os.kill(run.agent("n5")["pid"], signal.SIGKILL)
    until(lambda: run.rows("resumed"), run.logs)
    before = len(run.rows("resumed"))
    os.kill(run.agent("n7")["ranks"]["6"], signal.SIGSTOP)
    until(lambda: len(run.rows("resumed")) > before, run.logs)
    os.kill(run.agent("n2")["ranks"]["1"], signal.SIGKILL)
    assert run.healed() == (["agent", "freeze", "crash"], ["restart"] * 3)
    named = [(row["node"], row["rank"]) for row in run.rows("fault") if row["kind"] != "slow"]
    assert named == [("n5", None), ("n7", 6), ("n2", 1)]
    assert run.slurm.logs(str(run.folder)).count("start 1, on") == 1
    assert all(row["detection_seconds"] < 10 for row in run.rows("resumed"))


def test_a_node_that_dies_is_left_out(watched: Callable[..., Watched]) -> None:
    run = watched(
        nodes=3, steps=100_000
    )  # a watcher sees it go on once Slurm has ended the first job, which takes its time
    run.until_step(10)
    os.kill(int((lab.FOLDER / "run" / "n2.pid").read_text()), signal.SIGKILL)
    lab.kill_node("n2")
    try:
        until(lambda: run.rows("resumed"), run.logs)
        assert [(row["kind"], row["node"]) for row in run.rows("fault")] == [("node", "n2")]
        assert [row["action"] for row in run.rows("decided")] == ["resubmit"]
        assert "n2" not in run.nodes()
    finally:
        lab.start_node("n2")


@contextlib.contextmanager
def read_only(node: str, folder: Path) -> Iterator[None]:
    """A run's folder as that node alone sees it after a mount that failed; in the end the node is well, and in use again."""
    pid = (lab.FOLDER / "run" / f"{node}.pid").read_text().strip()
    inside = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "sh", "-c"]
    subprocess.run(
        [*inside, f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"],
        check=True,
    )
    try:
        yield
    finally:
        subprocess.run([*inside, f"umount {folder}"], check=False)
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)


def test_a_node_that_is_not_fit_is_drained_and_left_out(
    watched: Callable[..., Watched], tmp_path: Path
) -> None:
    (tmp_path / "job").mkdir()
    with read_only("n2", tmp_path / "job"):
        run = watched(nodes=3, steps=20)
        until(lambda: run.rows("decided"), run.logs)
        until(lambda: (run.folder / "state").exists(), run.logs)
        assert [row["action"] for row in run.rows("decided")] == ["drain", "resubmit"]
        assert run.rows("fault")[0]["why"] == "it cannot write the run's folder"
        assert "n2" not in run.nodes()


def test_a_node_that_ails_while_it_trains_is_drained_and_left_out(
    watched: Callable[..., Watched], tmp_path: Path
) -> None:
    """Its rank dies of it, again and again; the node, and not the training, is what is named before anybody gives up."""
    run = watched(nodes=3, steps=100_000)
    run.until_step(10)
    with read_only("n2", tmp_path / "job"):
        until(lambda: run.rows("resumed"), run.logs)
        actions = [row["action"] for row in run.rows("decided")]
        # on a busy machine a slow rank may be healed after it
        assert actions[actions.index("drain") :][:2] == ["drain", "resubmit"], actions
        faults = [(row["kind"], row["node"], row["why"]) for row in run.rows("fault")]
        assert ("node", "n2", "it cannot write the run's folder") in faults
        assert "n2" not in run.nodes()
        assert lab.states().get("drained", 0) + lab.states().get("draining", 0) == 1


def test_put_back_into_the_queue_it_goes_on(watched: Callable[..., Watched]) -> None:
    run = watched(nodes=2, steps=40)
    run.until_step(10)
    run.slurm.requeue(str(run.folder))
    assert run.healed()[1] == ["wait"]
    assert "start 2, on" in run.slurm.logs(str(run.folder))


def test_ranks_of_a_slurmd_that_died_alone_end_when_the_job_is_started_elsewhere(
    tmp_path: Path,
) -> None:
    """kill -9 of slurmd alone: its ranks live on, and nobody watches. Slurm starts the job on other nodes."""
    slurm, folder = SlurmEngine(), tmp_path / "job"
    command = (sys.executable, str(BEATING), str(folder), "100000", "0.2")
    slurm.submit(JobSpec("test", command, folder, nodes=2, avoid=("n1",)))
    until(lambda: (folder / "state").exists(), lambda: slurm.logs(str(folder)))
    old = json.loads((folder / "ranks" / "n2" / "agent.json").read_text())
    os.kill(int((lab.FOLDER / "run" / "n2.pid").read_text()), signal.SIGKILL)
    try:
        until(lambda: "start 2, on" in slurm.logs(str(folder)), lambda: slurm.logs(str(folder)))
        until(
            lambda: not any(map(alive, (old["pid"], *old["ranks"].values()))),
            lambda: slurm.logs(str(folder)),
        )
    finally:
        slurm.cancel(str(folder))
        lab.start_node("n2")
        until(lambda: lab.states().get("idle") == 8, lambda: str(lab.states()))


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False
