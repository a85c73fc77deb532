"""The watcher's loop: reports come in by UDP, rows go to watch.jsonl, orders go out; the engine is asked beside it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tumen.cluster.engines.engine import ClusterEngine, Engine, JobSpec, JobStatus, Node
from tumen.cluster.order import (
    AGENT_FILE,
    RANKS,
    RESIZE_FILE,
    SECRET_FILE,
    WATCH_FILE,
    WATCHER_FILE,
)
from tumen.cluster.watcher.monitor import RankLayout, Row, RunMonitor
from tumen.cluster.watcher.snapshot import read_snapshot, take_snapshot, write_snapshot
from tumen.core import events
from tumen.core.artifact import write_text
from tumen.core.errors import DiskError, EngineError, disk
from tumen.core.events import Events
from tumen.core.lock import alone
from tumen.heartbeat import messages

TICK_SECONDS = 0.1
ASK_SECONDS = {
    True: 5.0,
    False: 0.5,
}  # between two questions to an engine of many machines, and to this one
URGENT_SECONDS = 1.0  # the same while an agent is silent
NOTICE_SECONDS = 1.0  # between two looks at files
ACK_SECONDS = 2.0  # an agent hears at least so often that it is heard
LAST_SECONDS = 30.0  # the agents may take to end when all is over
LET_GO_SECONDS = 0.5  # for agents to kill their ranks and end
BUFFER_BYTES = 8 << 20


def watch_job(
    engine: Engine,
    job: JobSpec,
    address: str = "127.0.0.1",
    said: Path | None = None,
    tell: Callable[[Row], None] = lambda row: None,
) -> int:
    """Watch a job until it ends; returns its exit code. One process a job: it holds a lock in the job's folder.

    Args:
        address: where agents send their reports; loopback unless the nodes are other machines.
        said: the run's events.jsonl, where training says that it passed over a damaged checkpoint.
        tell: called with every row that is written to watch.jsonl.

    Raises:
        RunnerBusy: another process watches it.
        EngineError: the run has no secret, or this machine has no such address.
    """
    with alone(job.folder, "watching it"), ThreadPoolExecutor(1) as beside:
        return WatcherService(engine, job, address, said, tell, beside).run()


class WatcherService:
    """One watcher at work."""

    def __init__(
        self,
        engine: Engine,
        job: JobSpec,
        address: str,
        said: Path | None,
        tell: Callable[[Row], None],
        beside: ThreadPoolExecutor,
    ) -> None:
        self.engine, self.job, self.tell, self.beside = engine, job, tell, beside
        self.many = isinstance(engine, ClusterEngine)
        secret = messages.read_secret(job.folder / SECRET_FILE)
        self.sender, self.receiver = (
            messages.MessageSender(secret, "watcher"),
            messages.MessageReceiver(secret),
        )
        self.watch = RunMonitor(RankLayout(job.nodes, job.ranks_per_node), elsewhere=self.many)
        self.log, self.unwritten = Events(job.folder / WATCH_FILE), list[Row]()
        self.tail = events.Tail(said) if said else None
        if said and said.exists():
            assert self.tail
            self.tail.offset = said.stat().st_size
        self.socket = listening(job.folder / WATCHER_FILE, address)
        self.addresses: dict[str, Any] = {}
        self.acked: dict[str, float] = {}
        self.answer: Future[tuple[JobStatus, list[Node] | None]] | None = None
        self.status = JobStatus("running")
        self.next_ask = self.next_notice = 0.0

    def run(self) -> int:
        """Until the job is over."""
        rows = list(events.read(self.job.folder / WATCH_FILE))
        ended = bool(rows) and rows[-1].get("state") == "ended"
        before = None if ended else read_snapshot(self.job.folder)
        self.watch.resume(rows, before.usual_seconds if before else 0.0)
        self._write(
            {
                "event": "watch",
                "state": "resumed" if rows else "started",
                "attempt": self.watch.order.attempt,
            }
        )
        try:
            while self.watch.state != "over":
                self._turn(time.time())
            self._last(time.time() + LAST_SECONDS)
        finally:
            (self.job.folder / WATCHER_FILE).unlink(
                missing_ok=True
            )  # from now on the agents are alone
            self.socket.close()
            self._write({"event": "watch", "state": "ended", "attempt": self.watch.order.attempt})
        return self.watch.code

    def _turn(self, now: float) -> None:
        """Hear, look, write, act, answer."""
        heard = list(self._reports())
        before = self.watch.order
        self.watch.hear(now, heard)
        rows = self._asked(now) + self._noticed(now) + self.watch.look(now)
        for row in rows:
            self._write(row)
            self._act(row)
        everyone = self.watch.order is not before
        for node in list(self.addresses) if everyone else {message.sender for message in heard}:
            self._answer(node, now)
        time.sleep(max(0.0, now + TICK_SECONDS - time.time()))

    def _reports(self) -> Iterator[messages.Message]:
        """What agents sent since the last turn."""
        with contextlib.suppress(BlockingIOError):
            while True:
                with contextlib.suppress(
                    ConnectionError
                ):  # an agent that is gone; its silence will tell
                    datagram, address = self.socket.recvfrom(messages.MAX_BYTES)
                    message = self.receiver.open(datagram)
                    if message and message.sender != "watcher":
                        self.addresses[message.sender] = address
                        yield message

    def _answer(self, node: str, now: float) -> None:
        """Tell an agent what it should do, or now and then that it is heard."""
        if node not in self.watch.seats:
            return
        note = self.watch.reply(node)
        if note or now - self.acked.get(node, 0.0) > ACK_SECONDS:
            self.acked[node] = now
            with contextlib.suppress(OSError):
                self.socket.sendto(
                    self.sender.message(self.watch.order.attempt, note=note), self.addresses[node]
                )

    def _asked(self, now: float) -> list[Row]:
        """What the engine says, which may take it a minute: it is asked in another thread."""
        rows = []
        if self.answer and self.answer.done():
            self.status, nodes = self.answer.result()
            self.answer = None
            rows = self.watch.tell(now, self.status, nodes)
        soon = (
            self.watch.asks(now) and now > self.next_ask - ASK_SECONDS[self.many] + URGENT_SECONDS
        )
        if self.answer is None and (now >= self.next_ask or soon):
            self.next_ask = now + ASK_SECONDS[self.many]
            self.answer = self.beside.submit(self._ask, self.watch.asks(now))
        return rows

    def _ask(self, about_nodes: bool) -> tuple[JobStatus, list[Node] | None]:
        try:
            return self.engine.status(
                str(self.job.folder)
            ), self.engine.nodes() if about_nodes else None
        except EngineError as error:
            return JobStatus("silent", reason=str(error)), None

    def _noticed(self, now: float) -> list[Row]:
        """What others left: a damaged checkpoint, which is a fault's cause and named before it is over; and now and then a wish
        for another number of ranks, a clock that is off.
        """
        due, rows = now >= self.next_notice, list[Row]()
        for row in self.tail.new() if self.tail and (due or self.watch.open) else ():
            if row.get("event") == "checkpoint_damaged":
                rows += self.watch.tell(now, damaged=f"{row.get('path')}: {row.get('error')}")
        return rows + (self._seldom_noticed(now) if due else [])

    def _seldom_noticed(self, now: float) -> list[Row]:
        """Once a second: what we see is written for others, and what they wish is read."""
        self.next_notice = now + NOTICE_SECONDS
        with contextlib.suppress(
            DiskError
        ):  # a full disk is told by the ranks, which cannot write either
            write_snapshot(self.job.folder, take_snapshot(self.watch, now))
        return self.watch.tell(now, ranks=wished(self.job.folder), skewed=self.receiver.skewed)

    def _write(self, row: Row) -> None:
        """Write a row down; on a full disk it waits for the next, as healing must not."""
        self.unwritten.append(row)
        with contextlib.suppress(DiskError):
            while self.unwritten:
                self.log.emit(**self.unwritten[0])
                self.unwritten.pop(0)
        self.tell(row)

    def _act(self, row: Row) -> None:
        """What a decision asks of the engine; on this machine a silent agent is ended, so that another takes its place."""
        if row.get("kind") == "agent" and not self.many:
            _end_agent(self.job.folder / RANKS / row["node"] / AGENT_FILE)
        if row["event"] != "decided" or not isinstance(self.engine, ClusterEngine):
            return
        try:
            if row["action"] == "drain":
                self.engine.drain(row["avoid"][-1], row["why"])
            if row["action"] == "resubmit":
                self._resubmit(tuple(row["avoid"]))
        except EngineError as error:
            self._write({"event": "fault", "kind": "engine", "rank": None, "node": None, "step": self.watch.signs.steps}
                        | {"why": str(error), "silent_seconds": 0.0})  # fmt: skip

    def _resubmit(self, avoid: tuple[str, ...]) -> None:
        """Start the job again elsewhere. The old ranks are killed by our order, which is quicker than their engine."""
        order = replace(self.watch.order, verb="stop")
        for node, address in self.addresses.items():
            with contextlib.suppress(OSError):
                self.socket.sendto(
                    self.sender.message(order.attempt, note=order.part(node)), address
                )
        time.sleep(LET_GO_SECONDS)
        self.engine.cancel(str(self.job.folder))
        job = replace(self.job, avoid=tuple(dict.fromkeys((*self.job.avoid, *avoid))))
        deadline = time.monotonic() + LAST_SECONDS
        while True:
            try:
                self.engine.submit(job)
                break
            except EngineError:  # Kubernetes: a job of this name is still being removed
                if time.monotonic() > deadline:
                    raise
                time.sleep(URGENT_SECONDS)
        list(self._reports())  # the last words of the old agents
        self.addresses.clear()
        self.answer = None

    def _last(self, deadline: float) -> None:
        """Tell the agents to end, as often as it takes."""
        (self.job.folder / WATCHER_FILE).unlink(missing_ok=True)
        while (
            self.watch.order.verb == "end"
            and not self.status.ended
            and (now := time.time()) < deadline
        ):
            self.watch.hear(now, list(self._reports()))
            self._asked(now)
            for node in self.addresses:
                self._answer(node, now)
            time.sleep(TICK_SECONDS)


def _end_agent(file: Path) -> None:
    """Kill an agent of this machine that may be stopped, or hang; nobody else who got its number."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        pid = int(json.loads(file.read_text("utf-8"))["pid"])
        if b"tumen.cluster.agents.agent" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def listening(file: Path, address: str) -> socket.socket:
    """A socket for reports, at the port of the watcher before if it is free; its address is written into `file`.

    Raises:
        EngineError: this machine has no such address.
    """
    where = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    where.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    where.setblocking(False)
    try:
        host, port = messages.address_of(file.read_text("utf-8"))
    except (OSError, EngineError):
        host, port = address, 0
    for number in (port if host == address else 0, 0):
        try:
            where.bind((address, number))
        except OSError:
            continue
        with disk(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, f"{address}:{where.getsockname()[1]}\n")
        return where
    where.close()
    raise EngineError(
        f"{address} is no address of this machine; name one by which the nodes reach it"
    )


def announce_watcher(folder: Path, address: str = "127.0.0.1") -> None:
    """Say in a job's folder that somebody will watch it, before it starts: its agents then wait for orders."""
    listening(folder / WATCHER_FILE, address).close()


def request_resize(folder: Path, ranks: int) -> None:
    """Ask for another number of ranks; whoever watches the job brings it about."""
    write_text(folder / RESIZE_FILE, json.dumps({"ranks": ranks}))


def wished(folder: Path) -> int | None:
    """How many ranks somebody wants, None where nobody said."""
    try:
        ranks = json.loads((folder / RESIZE_FILE).read_text("utf-8"))["ranks"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ranks if isinstance(ranks, int) and ranks > 0 else None
