"""What does watching 10,000 ranks cost, and how soon does the watcher know and decide?

    python benchmarks/watcher.py [--nodes 1250] [--each 8] [--seconds 30] [--out FILE]

Nodes are simulated: 1,250 sockets whose agents report eight ranks once a second and obey orders.
The watcher is the real one, a process of its own over an engine that does nothing. Measured: its
CPU time and memory in the steady state; the seconds until a frozen rank, a crash and 100 nodes
dying at once are decided on; and that a killed watcher, started again, leaves the run alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tumen.cluster.engines import JobSpec, JobStatus, Node
from tumen.cluster.watcher import watch_job
from tumen.core import events
from tumen.heartbeat import messages

STEP_SECONDS = 2.0
DYING = 100


class Nothing:
    """A cluster's engine whose job runs, whatever happens."""

    def submit(self, job: JobSpec) -> str:
        return str(job.folder)

    def status(self, job_id: str) -> JobStatus:
        return JobStatus("running")

    def logs(self, job_id: str) -> str:
        return ""

    def cancel(self, job_id: str) -> None:
        return

    def nodes(self) -> list[Node]:
        return []

    def drain(self, node: str, why: str) -> None:
        return


class Simulated:
    """A simulated agent with its ranks."""

    def __init__(self, place: int, each: int, secret: bytes, watcher: tuple[str, int]) -> None:
        self.place, self.each, self.name = place, each, f"n{place:04d}"
        self.sender, self.receiver = (
            messages.MessageSender(secret, self.name),
            messages.MessageReceiver(secret),
        )
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(watcher)
        self.attempt, self.must_identify, self.world, self.first = 0, True, 0, 0
        self.due = time.time() + random.random()
        self.news = False
        self.began, self.frozen, self.dead, self.silent = 0.0, -1, -1, False
        self.frozen_since, self.sent = 0.0, 0

    def _host(self) -> str:
        """Return the address of the simulated node."""
        return f"10.0.{self.place // 256}.{self.place % 256}"

    def report(self, now: float, step: int) -> None:
        """A second has passed, or there is news: that comes between, as an agent's does."""
        self.news = False
        while self.due <= now:
            self.due += 1.0
        if self.silent:
            return
        beats = []
        for rank in range(self.first, self.first + self.each) if self.attempt else ():
            age = round(1000 * (now - self.frozen_since)) if rank == self.frozen else 200
            if rank != self.dead:
                beats.append(
                    messages.Heartbeat(
                        rank, self.attempt, 1, step, STEP_SECONDS, "train", 0.2, 2.0, age
                    )
                )
        note: dict[str, Any] = {"dead": [[self.dead, 137, None]]} if self.dead >= 0 else {}
        if self.must_identify:
            note["identity"] = {
                "pid": 1000 + self.place,
                "node_rank": self.place,
                "ranks_per_node": self.each,
                "master": f"{self._host()}:{random.randrange(20000, 60000)}",
                "ranks": [self.first, self.each if self.attempt else 0],
                "world": self.world,
                "health": {},
            }
        try:
            self.socket.send(self.sender.message(self.attempt, beats, note))
            self.sent += 1
        except OSError:
            return  # the watcher is not there now

    def hear(self, now: float) -> bool:
        """Obey; whether there is a new attempt."""
        while True:
            try:
                message = self.receiver.open(self.socket.recv(65536))
            except BlockingIOError:
                return False
            except OSError:
                continue
            if message is None:
                continue
            self.must_identify = bool(message.note.get("identify"))
            self.news |= self.must_identify
            if message.note.get("verb") == "run" and message.note["attempt"] > self.attempt:
                self.attempt, self.world, self.first = (
                    message.note["attempt"],
                    message.note["world"],
                    message.note["ranks"][0],
                )
                self.dead = self.frozen = -1
                self.news, self.began = True, now
                return True


class Fleet:
    """All nodes, turned by one thread."""

    def __init__(self, count: int, each: int, folder: Path) -> None:
        secret = messages.make_secret(folder / "secret")
        watcher = messages.address_of(
            wait_for(lambda: (folder / "watcher").exists() and (folder / "watcher").read_text())
        )
        self.nodes = [Simulated(place, each, secret, watcher) for place in range(count)]
        self.poll = select.epoll()
        self.by_handle = {node.socket.fileno(): node for node in self.nodes}
        for handle in self.by_handle:
            self.poll.register(handle, select.EPOLLIN)
        self.step, self.next_step, self.stuck = 0, 0.0, False

    def turn(self, seconds: float, until: Callable[[], Any] = lambda: None) -> Any:
        """Let time pass, or until something is there."""
        end = time.time() + seconds
        look = 0.0
        while (now := time.time()) < end:
            if now > look:
                look = now + 0.05
                if found := until():
                    return found
            if now >= self.next_step and not self.stuck:
                self.step, self.next_step = self.step + 1, now + STEP_SECONDS
            for node in self.nodes:
                if node.news or now >= node.due:
                    node.report(now, self.step)
            for handle, _ in self.poll.poll(0.01):
                self.by_handle[handle].hear(now)
        return None


def wait_for(found: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.time() + seconds
    while not (said := found()):
        if time.time() > end:
            raise SystemExit("the watcher did not start")
        time.sleep(0.02)
    return said


def started(folder: Path, nodes: int, each: int) -> subprocess.Popen[bytes]:
    """The watcher as a process."""
    return subprocess.Popen(
        [
            sys.executable,
            __file__,
            "--watch",
            str(folder),
            "--nodes",
            str(nodes),
            "--each",
            str(each),
        ]
    )


def spent(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Bytes of memory at the most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def measure(nodes: int, each: int, seconds: float, folder: Path) -> dict[str, Any]:
    """All of it."""
    watcher = started(folder, nodes, each)
    log = folder / "watch.jsonl"

    def newest(event: str, since: float) -> dict[str, Any] | None:
        return next((row for row in events.read(log, event) if row["time"] >= since), None)

    try:
        fleet = Fleet(nodes, each, folder)
        begun = time.time()
        fleet.turn(60, lambda: all(node.attempt == 1 for node in fleet.nodes))
        found: dict[str, Any] = {
            "ranks": nodes * each,
            "gather_seconds": round(time.time() - begun, 2),
        }
        fleet.turn(15)
        before, since, sent = (
            spent(watcher.pid),
            time.time(),
            sum(node.sent for node in fleet.nodes),
        )
        fleet.turn(seconds)
        passed = time.time() - since
        found["reports_per_second"] = round(
            (sum(node.sent for node in fleet.nodes) - sent) / passed
        )
        found["cpu_share"] = round((spent(watcher.pid) - before) / passed, 4)
        found["memory_bytes"] = resident(watcher.pid)

        def fault(name: str, play: Callable[[], None]) -> None:
            at = time.time()
            play()
            decided = fleet.turn(30, lambda: newest("decided", at))
            said = newest("fault", at)
            assert decided, name
            assert said, name
            found[name] = {
                "kind": said["kind"],
                "rank": said["rank"],
                "decided_seconds": round(decided["time"] - at, 2),
            }
            fleet.stuck = False
            attempt = decided["attempt"]
            ordered = fleet.turn(
                30,
                lambda: (
                    all(node.attempt >= attempt or node.silent for node in fleet.nodes)
                    and time.time()
                ),
            )
            found[name]["all_ordered_seconds"] = round(ordered - at, 2) if ordered else None
            fleet.turn(12)

        def freeze() -> None:
            node = fleet.nodes[nodes // 3]
            node.frozen, node.frozen_since, fleet.stuck = node.first, time.time(), True

        def crash() -> None:
            node = fleet.nodes[nodes // 2]
            node.dead, node.news, fleet.stuck = node.first + 1, True, True

        def killed() -> None:
            nonlocal watcher
            rows = len(list(events.read(log)))
            at, attempt = time.time(), fleet.nodes[0].attempt
            watcher.kill()
            watcher.wait()
            watcher = started(folder, nodes, each)
            back = fleet.turn(60, lambda: newest("watch", at))
            assert back
            fleet.turn(15)
            after = [row["event"] for row in events.read(log)][rows:]
            same = {node.attempt for node in fleet.nodes} == {attempt}
            found["killed"] = {
                "back_seconds": round(back["time"] - at, 2),
                "rows": after,
                "attempt_kept": same,
            }

        def nodes_die() -> None:
            for node in random.sample(fleet.nodes, min(DYING, nodes // 3)):
                node.silent = True
            fleet.stuck = True

        fault("freeze", freeze)
        fault("crash", crash)
        killed()
        at = time.time()
        nodes_die()
        decided = fleet.turn(30, lambda: newest("decided", at))
        assert decided
        found["nodes"] = {
            "dying": len(decided["avoid"]),
            "action": decided["action"],
            "decided_seconds": round(decided["time"] - at, 2),
        }
        return found
    finally:
        watcher.kill()
        watcher.wait()


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1250)
    parser.add_argument("--each", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        job = JobSpec(
            "watched", (), options.watch, nodes=options.nodes, ranks_per_node=options.each
        )
        sys.exit(watch_job(Nothing(), job))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        messages.make_secret(Path(folder) / "secret")
        found = measure(options.nodes, options.each, options.seconds, Path(folder))
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "agents": "simulated, in one process",
        **found,
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
