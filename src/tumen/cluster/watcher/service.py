"""The watcher's loop around `RunMonitor`: reports by UDP, questions to the engine, rows, orders."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tumen.cluster.engines.engine import ClusterEngine, Engine, JobSpec
from tumen.cluster.job_files import AGENT_FILE, RANKS_FOLDER, SECRET_FILE, WATCH_FILE, WATCHER_FILE
from tumen.cluster.watcher.channel import AgentChannel
from tumen.cluster.watcher.engine_probe import EngineProbe
from tumen.cluster.watcher.monitor import Fault, RankLayout, Row, RunMonitor, fault_row, watch_row
from tumen.cluster.watcher.resize_request import requested_ranks
from tumen.cluster.watcher.snapshot import read_snapshot, take_snapshot, write_snapshot
from tumen.core import events
from tumen.core.errors import DiskError, EngineError
from tumen.core.events import Events
from tumen.core.lock import alone
from tumen.heartbeat import messages

TICK_SECONDS = 0.1
FILES_SECONDS = 1.0  # between two looks at files that others write
ACK_SECONDS = 2.0  # an agent gets a message at least so often, so it knows that the watcher lives
END_SECONDS = 30.0  # for the agents to end when the run is over
KILL_SECONDS = 0.5  # for agents to kill their ranks before the engine cancels the job
SUBMIT_SECONDS = 30.0  # Kubernetes may still be removing a job of the same name
SUBMIT_RETRY_SECONDS = 1.0


def watch_job(
    engine: Engine,
    job: JobSpec,
    address: str = "127.0.0.1",
    run_events: Path | None = None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> int:
    """Watch a job until it ends; returns its exit code.

    One process watches a job: it holds a lock in the job's folder.

    Args:
        engine: runs the job.
        job: as it was submitted.
        address: where agents send their reports; loopback unless the nodes are other machines.
        run_events: the run's events.jsonl, where training reports damaged checkpoints.
        on_row: called with every row that is written to watch.jsonl.

    Raises:
        RunnerBusy: another process watches the job.
        EngineError: the run has no secret, or this machine has no such address.
    """
    with alone(job.folder, "watching it"), ThreadPoolExecutor(1) as executor:
        return WatcherService(engine, job, address, run_events, on_row, executor).run()


class WatchLog:
    """Writes watch.jsonl. Rows that a full disk rejects are written with a later one.

    Args:
        file: watch.jsonl.
        on_row: called with every row.
    """

    def __init__(self, file: Path, on_row: Callable[[Row], None]) -> None:
        self._events = Events(file)
        self._on_row = on_row
        self._unwritten: list[Row] = []

    def write(self, row: Row) -> None:
        """Write a row; recovery must not wait for the disk."""
        self._unwritten.append(row)
        with contextlib.suppress(DiskError):
            while self._unwritten:
                self._events.emit(**self._unwritten[0])
                self._unwritten.pop(0)
        self._on_row(row)


class WatcherService:
    """One watcher at work. Arguments as of `watch_job`; `executor` runs questions to the engine."""

    def __init__(
        self,
        engine: Engine,
        job: JobSpec,
        address: str,
        run_events: Path | None,
        on_row: Callable[[Row], None],
        executor: ThreadPoolExecutor,
    ) -> None:
        self.engine = engine
        self.job = job
        layout = RankLayout(job.nodes, job.ranks_per_node)
        self.monitor = RunMonitor(layout, can_move=isinstance(engine, ClusterEngine))
        self.log = WatchLog(job.folder / WATCH_FILE, on_row)
        self.tail = _new_events(run_events) if run_events else None
        secret = messages.read_secret(job.folder / SECRET_FILE)
        self.channel = AgentChannel(secret, job.folder / WATCHER_FILE, address)
        self.probe = EngineProbe(engine, str(job.folder), executor)
        self.answered: dict[str, float] = {}  # agent -> when it last got a message
        self.next_files = 0.0

    def run(self) -> int:
        """Watch until the job is over; returns its exit code."""
        self._resume()
        try:
            while not self.monitor.is_over:
                self._turn(time.time())
            self._end_agents(time.time() + END_SECONDS)
        finally:
            self._withdraw_address()
            self.channel.close()
            self.log.write(watch_row("ended", self._attempt))
        return self.monitor.state.exit_code

    @property
    def _attempt(self) -> int:
        return self.monitor.state.order.attempt

    def _resume(self) -> None:
        """Continue from what an earlier watcher of this job wrote."""
        rows = list(events.read(self.job.folder / WATCH_FILE))
        had_ended = bool(rows) and rows[-1].get("state") == "ended"
        usual_seconds = 0.0
        if not had_ended:
            snapshot = read_snapshot(self.job.folder)
            if snapshot:
                usual_seconds = snapshot.usual_seconds
        self.monitor.resume(rows, usual_seconds)
        self.log.write(watch_row("resumed" if rows else "started", self._attempt))

    def _turn(self, now: float) -> None:
        """Receive, detect, write, act, reply; takes TICK_SECONDS."""
        reports = self.channel.receive()
        order_before = self.monitor.state.order
        self.monitor.receive(now, reports)
        rows = self._ask_engine(now)
        rows += self._read_files(now)
        rows += self.monitor.check(now)
        self._write_and_act(rows)
        agents = {report.sender for report in reports}
        if self.monitor.state.order is not order_before:
            agents |= set(self.channel.addresses)  # a new order goes to all at once
        for agent in agents:
            self._reply(agent, now)
        left = now + TICK_SECONDS - time.time()
        time.sleep(max(0.0, left))

    def _write_and_act(self, rows: list[Row]) -> None:
        """Write rows and carry them out.

        A row is on disk before anything is done about it: the next watcher continues from there.
        """
        for row in rows:
            self.log.write(row)
            self._act(row)

    def _reply(self, agent: str, now: float) -> None:
        """Send an agent its order, or now and then an empty message.

        Args:
            agent: name of the agent's node.
            now: time of the watcher's clock in seconds.
        """
        if agent not in self.monitor.state.agents:
            return
        note = self.monitor.reply(agent)
        silent_for = now - self.answered.get(agent, 0.0)
        if note or silent_for > ACK_SECONDS:
            self.answered[agent] = now
            self.channel.send(agent, self._attempt, note)

    def _ask_engine(self, now: float) -> list[Row]:
        """Take the engine's answer, and ask again when it is time."""
        rows = []
        answer = self.probe.answer()
        if answer:
            status, nodes = answer
            rows = self.monitor.engine_answered(now, status, nodes)
        needs_nodes = self.monitor.needs_nodes(now)
        self.probe.ask_if_due(now, needs_nodes)
        return rows

    def _read_files(self, now: float) -> list[Row]:
        """Read what others wrote into files.

        A damaged checkpoint may be the cause of a fault, so while one is open it is looked for in
        every turn: later the fault would be over, and named something else.
        """
        rows = []
        is_due = now >= self.next_files
        if is_due or self.monitor.state.history.open:
            rows += self._read_run_events(now)
        if is_due:
            self.next_files = now + FILES_SECONDS
            rows += self._exchange_files(now)
        return rows

    def _read_run_events(self, now: float) -> list[Row]:
        """Read the new events of the training."""
        rows: list[Row] = []
        if self.tail is None:
            return rows
        for event in self.tail.new():
            if event.get("event") == "checkpoint_damaged":
                why = f"{event.get('path')}: {event.get('error')}"
                rows += self.monitor.checkpoint_damaged(now, why)
        return rows

    def _exchange_files(self, now: float) -> list[Row]:
        """Write the snapshot for others, and read what they request."""
        # A full disk is reported by the ranks, which cannot write either.
        snapshot = take_snapshot(self.monitor.state, now)
        with contextlib.suppress(DiskError):
            write_snapshot(self.job.folder, snapshot)
        rows = self.monitor.clocks_differ(now, self.channel.skewed)
        ranks = requested_ranks(self.job.folder)
        rows += self.monitor.resize_requested(now, ranks)
        return rows

    def _act(self, row: Row) -> None:
        """Carry out a row.

        A silent agent of this machine is restarted; an engine of many machines drains a node or
        resubmits the job.
        """
        if isinstance(self.engine, ClusterEngine):
            if row["event"] == "decided":
                self._act_by_engine(self.engine, row)
        elif row.get("kind") == "agent":
            # Its starter replaces an agent that was killed.
            kill_agent(self.job.folder / RANKS_FOLDER / row["node"] / AGENT_FILE)

    def _act_by_engine(self, engine: ClusterEngine, row: Row) -> None:
        """Carry out a decision; where the engine rejects it, that becomes a row too.

        Args:
            engine: of many machines.
            row: a decision.
        """
        try:
            if row["action"] == "drain":
                engine.drain(row["avoid"][-1], row["why"])
            elif row["action"] == "resubmit":
                self._resubmit(tuple(row["avoid"]))
        except EngineError as error:
            now = time.time()
            step = self.monitor.state.ranks.furthest_step
            fault = Fault("engine", str(error), step, now)
            self.log.write(fault_row(fault, now))

    def _resubmit(self, avoid: tuple[str, ...]) -> None:
        """Start the job again on other nodes.

        Args:
            avoid: nodes that the job must not use, beside those it avoids already.
        """
        # The watcher's own order kills the old ranks sooner than the engine does.
        order = replace(self.monitor.state.order, verb="stop")
        for agent in self.channel.addresses:
            self.channel.send(agent, order.attempt, order.part(agent))
        time.sleep(KILL_SECONDS)
        self.engine.cancel(str(self.job.folder))
        nodes = dict.fromkeys((*self.job.avoid, *avoid))  # each once, in this order
        self._submit(replace(self.job, avoid=tuple(nodes)))
        self.channel.receive()  # drop the last reports of the old agents
        self.channel.addresses.clear()
        self.probe.forget()

    def _submit(self, job: JobSpec) -> None:
        """Submit a job, and try again for SUBMIT_SECONDS where the engine rejects it."""
        deadline = time.monotonic() + SUBMIT_SECONDS
        while True:
            try:
                self.engine.submit(job)
                return
            except EngineError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(SUBMIT_RETRY_SECONDS)

    def _end_agents(self, deadline: float) -> None:
        """Send the agents the order to end until the job has ended."""
        self._withdraw_address()
        while self.monitor.state.order.verb == "end" and not self.probe.status.ended:
            now = time.time()
            if now >= deadline:
                return
            self.monitor.receive(now, self.channel.receive())
            self._ask_engine(now)
            for agent in self.channel.addresses:
                self._reply(agent, now)
            time.sleep(TICK_SECONDS)

    def _withdraw_address(self) -> None:
        """Remove the published address: from now on agents act without a watcher."""
        (self.job.folder / WATCHER_FILE).unlink(missing_ok=True)


def _new_events(file: Path) -> events.Tail:
    """Return a reader of the events that are appended from now on."""
    tail = events.Tail(file)
    if file.exists():
        tail.offset = file.stat().st_size
    return tail


def kill_agent(file: Path) -> None:
    """Kill the agent that wrote its process id into `file`, which may be stopped or hang.

    Its command line is checked first: another process may have got the same id.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        pid = int(json.loads(file.read_text("utf-8"))["pid"])
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"tumen.cluster.agents" in command_line:
            os.kill(pid, signal.SIGKILL)
