"""A simulated run for `RunMonitor`: agents that obey, ranks that train, and a clock that the test advances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tumen.cluster.watcher import RankLayout, RunMonitor, format_row
from tumen.heartbeat.messages import AuthenticatedMessage, Heartbeat, MessageReceiver, MessageSender

SECRET = bytes(32)
TICK_SECONDS = 0.1  # between two checks
LOAD_SECONDS = 2.0  # of a rank, before its first step
FIRST_STEP = 20  # of each attempt: that of the last checkpoint


class SimulatedRank:
    """A rank that sends one heartbeat a second, unless it is frozen."""

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.last_heartbeat = now
        self.last_step = now + LOAD_SECONDS
        self.step = FIRST_STEP
        self.phase = "load"
        self.frozen = False
        self.waiting = 0.2

    def heartbeat(self, attempt: int, step_seconds: float, now: float) -> Heartbeat:
        """Return its heartbeat as an agent passes it on."""
        if not self.frozen:
            self.last_heartbeat = now
        return Heartbeat(
            self.number,
            attempt,
            pid=1,
            step=self.step,
            step_seconds=step_seconds,
            phase=self.phase,
            waiting=self.waiting,
            loss=2.0,
            age_ms=round(1000 * (now - self.last_heartbeat)),
        )


class SimulatedAgent:
    """An agent that does what it is ordered."""

    def __init__(self, node_rank: int, ranks_per_node: int, epoch: str = "7.1") -> None:
        self.node_rank = node_rank
        self.ranks_per_node = ranks_per_node
        self.pid = 100 + node_rank
        self.epoch = epoch
        self.attempt = 0
        self.world = 0
        self.verb = "stop"
        self.ranks: dict[int, SimulatedRank] = {}
        self.exits: dict[int, list[Any]] = {}
        self.silent = False
        self.next_report = 0.0
        self.must_identify = True
        self.port = 5000
        self.health: dict[str, Any] = {}
        self.stopped: list[list[Any]] = []
        self.leaving = False

    def obey(self, note: dict[str, Any], now: float) -> None:
        """Carry out what the monitor replies."""
        self.must_identify = note.get("identify", False)
        if self.must_identify:
            self.next_report = now
        if "verb" not in note:
            return
        self.verb = note["verb"]
        self.next_report = now
        if self.verb == "run" and note["attempt"] > self.attempt:
            first, count = note["ranks"]
            self.attempt = note["attempt"]
            self.world = note["world"]
            self.exits = {}
            numbers = range(first, first + count)
            self.ranks = {number: SimulatedRank(number, now) for number in numbers}
        elif self.verb == "stop":
            self.ranks = {}
        elif self.verb == "save-and-stop":
            self.exits = {number: [number, 0, None] for number in self.ranks}

    def end_rank(self, rank: int, code: int, reason: dict[str, Any] | None = None) -> None:
        """Let a rank end; the agent reports that at once."""
        self.exits[rank] = [rank, code, reason]
        self.next_report = 0.0

    def restart(self) -> None:
        """Replace the agent by a new process, whose ranks ended with the old one."""
        self.pid += 100
        self.attempt = 0
        self.verb = "stop"
        self.ranks = {}
        self.exits = {}
        self.next_report = 0.0
        self.must_identify = True

    def report_health(self, **health: Any) -> None:
        """Change the node's health, and report it at once."""
        self.health = health
        self.must_identify = True
        self.next_report = 0.0

    def note(self) -> dict[str, Any]:
        """Return the note of its next report."""
        note: dict[str, Any] = {}
        if self.exits:
            note["dead"] = list(self.exits.values())
        if self.leaving:
            note["leaving"] = True
        if self.stopped:
            note["stopped"] = self.stopped
        if self.verb != "run":
            note["verb"] = self.verb
        if self.must_identify:
            self.port += 1
            note["identity"] = {
                "pid": self.pid,
                "epoch": self.epoch,
                "node_rank": self.node_rank,
                "ranks_per_node": self.ranks_per_node,
                "master": f"10.0.0.{self.node_rank}:{self.port}",
                "ranks": [min(self.ranks, default=0), len(self.ranks)],
                "world": self.world,
                "health": self.health,
            }
        return note


class SimulatedRun:
    """Nodes n0, n1, ... with their agents, and a monitor that watches them.

    Args:
        nodes: number of nodes.
        ranks_per_node: number of ranks on each.
        step_seconds: of a training step.
        can_move: whether the engine can start the job on other nodes.
        monitor: default: a new one.
    """

    def __init__(
        self,
        nodes: int = 2,
        ranks_per_node: int = 2,
        step_seconds: float = 0.5,
        can_move: bool = False,
        monitor: RunMonitor | None = None,
    ) -> None:
        self.layout = RankLayout(nodes, ranks_per_node)
        self.monitor = monitor or RunMonitor(self.layout, can_move)
        self.step_seconds = step_seconds
        self.now = 1000.0
        self.rows: list[dict[str, Any]] = []
        self.agents = {f"n{i}": SimulatedAgent(i, ranks_per_node) for i in range(nodes)}
        self.stuck = False

    @property
    def state(self) -> Any:
        return self.monitor.state

    def advance(self, seconds: float) -> list[dict[str, Any]]:
        """Let time pass; returns the rows that were written."""
        before = len(self.rows)
        until = self.now + seconds
        while self.now < until - 1e-9 and not self.monitor.is_over:
            self.now = round(self.now + TICK_SECONDS, 6)
            self._train()
            reports = [self.report(name) for name in self.agents if self._is_due(name)]
            self.monitor.receive(self.now, reports)
            self.record(self.monitor.check(self.now))
            for name, agent in self.agents.items():
                if not agent.silent and name in self.state.agents:
                    agent.obey(self.monitor.reply(name), self.now)
        return self.rows[before:]

    def silence(self, *names: str) -> None:
        """Let all agents report, and some of them be silent from then on."""
        for agent in self.agents.values():
            agent.next_report = 0.0
        assert self.advance(TICK_SECONDS) == []
        for name in names:
            self.agents[name].silent = True

    def record(self, rows: list[dict[str, Any]]) -> None:
        """Keep rows as watch.jsonl would; each can be shown to people."""
        for row in rows:
            self.rows.append({"time": self.now, **row})
            assert format_row(row)

    def advance_until(self, event: str, seconds: float = 60.0) -> dict[str, Any]:
        """Let time pass until a row of that event is written; returns it."""
        deadline = self.now + seconds
        while self.now < deadline:
            for row in self.advance(TICK_SECONDS):
                if row["event"] == event:
                    return row
        raise AssertionError(f"no {event} within {seconds} s: {self.rows}")

    def advance_to_fault(self, within: float, **facts: Any) -> dict[str, Any]:
        """Let time pass until a fault is detected, which has these facts and comes in time."""
        begun = self.now
        fault = self.advance_until("fault")
        assert {name: fault[name] for name in facts} == facts, fault
        assert self.now - begun <= within + 1e-6
        return fault

    def assert_recovers(self, action: str = "restart") -> dict[str, Any]:
        """Assert the last decision and that training resumes; returns the decision."""
        decided = [row for row in self.rows if row["event"] == "decided"][-1]
        assert decided["action"] == action
        for agent in self.agents.values():
            agent.silent = False
        resumed = self.advance_until("resumed")
        assert resumed["attempt"] == decided["attempt"] == self.state.order.attempt
        assert 0 <= resumed["detection_seconds"] <= resumed["seconds"]
        assert self.advance(20) == [], "nothing is detected where nothing is wrong"
        return decided

    def ranks(self) -> Iterator[SimulatedRank]:
        """Yield all ranks."""
        for agent in self.agents.values():
            yield from agent.ranks.values()

    def rank(self, number: int) -> SimulatedRank:
        """Return one rank."""
        return next(rank for rank in self.ranks() if rank.number == number)

    def set_straggler(self, number: int, waiting: float = 0.02, others: float = 0.5) -> None:
        """Let all ranks wait for one."""
        for rank in self.ranks():
            rank.waiting = waiting if rank.number == number else others

    def _train(self) -> None:
        """Advance the step of all ranks, if none of them is missing."""
        complete = all(not agent.silent and not agent.exits for agent in self.agents.values())
        frozen = any(rank.frozen for rank in self.ranks())
        if not complete or frozen or self.stuck:
            return
        for rank in self.ranks():
            if self.now - rank.last_step >= self.step_seconds:
                rank.step += 1
                rank.last_step = self.now
                rank.phase = "train"

    def _is_due(self, name: str) -> bool:
        agent = self.agents[name]
        return not agent.silent and self.now >= agent.next_report

    def report(self, name: str) -> AuthenticatedMessage:
        """Return the report of an agent, through sender and receiver."""
        agent = self.agents[name]
        agent.next_report = self.now + 1.0
        heartbeats = [
            rank.heartbeat(agent.attempt, self.step_seconds, self.now)
            for rank in agent.ranks.values()
            if rank.number not in agent.exits
        ]
        datagram = MessageSender(SECRET, name).message(agent.attempt, heartbeats, agent.note())
        message = MessageReceiver(SECRET).open(datagram)
        assert message is not None
        return message


def started_run(**options: Any) -> SimulatedRun:
    """Return a run that has trained for 20 seconds without a row."""
    run = SimulatedRun(**options)
    assert run.advance(20) == []
    assert run.state.order.attempt == 1
    return run
