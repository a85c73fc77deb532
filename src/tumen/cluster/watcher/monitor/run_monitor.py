"""`RunMonitor`: detect faults of a run and decide what to do.

    ranks --heartbeats--> agent --reports--> watcher --order, as the reply--> agent

A pure state machine without clock, socket or file.
It gathers the agents, orders an attempt and checks it until it is over or a fault is detected;
then it gathers again. In mode "save" it waits for a last checkpoint, because the number of ranks
or the nodes change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tumen.cluster.engines.engine import JobStatus, Node
from tumen.cluster.watcher.monitor import decide, gathering, transitions
from tumen.cluster.watcher.monitor.detect import SEVERAL_SILENT_SECONDS, detect_fault
from tumen.cluster.watcher.monitor.rank_table import USUAL_STEPS, RankTable
from tumen.cluster.watcher.monitor.rows import Fault, OpenFault, Row, fault_row
from tumen.cluster.watcher.monitor.run_state import AgentState, RankLayout, new_run_state
from tumen.heartbeat import AuthenticatedMessage


class RunMonitor:
    """The watcher's knowledge of a run, and what follows from it.

    `state.order` is what agents should do now. The caller writes the returned rows to watch.jsonl
    before it sends the order; `resume` reads them back. A row `decided` with the action resubmit
    or drain is for the caller to carry out. `now` is always in seconds of one clock.

    Args:
        layout: nodes and ranks of the job.
        can_move: whether the engine can start the job on other nodes.
    """

    def __init__(self, layout: RankLayout, can_move: bool = False) -> None:
        self.state = new_run_state(layout, can_move)

    @property
    def is_over(self) -> bool:
        """Whether the run ended; its exit code is `state.exit_code`."""
        return self.state.mode == "over"

    # -- input

    def receive(self, now: float, reports: Iterable[AuthenticatedMessage]) -> None:
        """Take reports of agents."""
        gathering.receive_reports(self.state, now, reports)

    def engine_answered(
        self, now: float, status: JobStatus, nodes: Sequence[Node] | None = None
    ) -> list[Row]:
        """Take what the engine says of the job; returns rows.

        Args:
            now: time in seconds.
            status: of the job.
            nodes: of the cluster, None where the engine was not asked for them.
        """
        if self.is_over:
            return []
        if nodes is not None:
            not_ready = {node.name: node.reason for node in nodes if not node.ready}
            self.state.engine.not_ready = not_ready
        return decide.engine_status(self.state, now, status)

    def clocks_differ(self, now: float, ahead_seconds: Mapping[str, float]) -> list[Row]:
        """Take by how many seconds clocks of senders are off; returns a row for each new one.

        Args:
            now: time in seconds.
            ahead_seconds: node -> how far its clock is ahead, below 0 where it is behind.
        """
        rows: list[Row] = []
        if self.is_over:
            return rows
        history = self.state.history
        for node, ahead in ahead_seconds.items():
            if node in history.skewed:
                continue
            history.skewed.add(node)
            direction = "ahead" if ahead > 0 else "behind"
            clock = f"its clock is {abs(ahead):.0f} s {direction}"
            why = f"{clock}; its reports are dropped until the clock is set"
            fault = Fault("skew", why, self.state.ranks.furthest_step, now, nodes=(node,))
            rows.append(fault_row(fault, now))
        return rows

    def checkpoint_damaged(self, now: float, why: str) -> list[Row]:
        """Take that training fell back to an older checkpoint; returns rows.

        Args:
            now: time in seconds.
            why: the checkpoint, and what is wrong with it.
        """
        if self.is_over:
            return []
        fault = Fault("checkpoint", why, self.state.ranks.furthest_step, now)
        fallback = "training fell back to the previous checkpoint"
        row = transitions.decided(self.state, "restart", fallback, same_attempt=True)
        return [fault_row(fault, now), row]

    def resize_requested(self, now: float, ranks: int | None) -> list[Row]:
        """Take the requested number of ranks, None where there is no request; returns rows."""
        if ranks is None or self.state.mode != "run" or ranks == self.state.world:
            return []
        return decide.resize(self.state, now, ranks)

    def resume(self, rows: Iterable[Mapping[str, Any]], usual_seconds: float = 0.0) -> None:
        """Continue from the rows of watch.jsonl that an earlier watcher wrote.

        Args:
            rows: give attempts, how often a fault happened, nodes to avoid, and an open fault.
            usual_seconds: usual step time that the earlier watcher knew, 0 where it did not.
        """
        state = self.state
        attempt = 0
        for row in rows:
            attempt = max(attempt, int(row.get("attempt") or 0))
            self._remember(row)
        state.order = replace(state.order, attempt=attempt)
        usual: list[float] = []
        if usual_seconds:
            # As many as the table needs before it calls a step time usual.
            usual = [usual_seconds] * USUAL_STEPS
        state.ranks = RankTable(0.0, state.world, usual)

    def _remember(self, row: Mapping[str, Any]) -> None:
        """Take what a row of an earlier watcher says of the run."""
        state = self.state
        event = row["event"]
        if event == "watch" and row["state"] == "ended":
            self._forget_ended_job()
        elif event == "fault":
            self._remember_fault(row)
        elif event == "decided":
            state.avoid = list(row["avoid"])
            state.world = row["world"] or state.world
        elif event == "resumed":
            state.history.open = None

    def _forget_ended_job(self) -> None:
        """Drop what is known of a job that ended: the next one starts with all nodes."""
        state = self.state
        state.history.by_step = Counter()
        state.history.open = None
        state.avoid = []
        state.world = state.layout.world

    def _remember_fault(self, row: Mapping[str, Any]) -> None:
        """Count a fault of an earlier watcher; it is open until training resumed."""
        history = self.state.history
        history.by_step[row["kind"], row["step"]] += 1
        if row["kind"] == "slow":
            history.slow_nodes[row["node"]] += 1
        first_sign = row["time"] - row["silent_seconds"]
        history.open = OpenFault(first_sign, row["time"])

    # -- output

    def check(self, now: float) -> list[Row]:
        """Let time pass: detect faults, decide, begin attempts. Returns rows."""
        state = self.state
        if state.since < 0:  # the first look
            state.since = now
        # Agents of a later start of the job: the old attempt is over, whatever it reports.
        if state.mode in ("run", "save") and self._is_newer_epoch_there():
            return decide.requeued(state, now, "the engine started the job again")
        if state.mode == "gather":
            return gathering.assemble(state, now)
        if state.mode == "run":
            return self._check_attempt(now)
        if state.mode == "save":
            return decide.check_saved(state, now)
        if state.mode == "wait" and now >= state.wait_until:
            transitions.gather(state, now)
        return []

    def _is_newer_epoch_there(self) -> bool:
        """Whether an agent of a later start of the job reported."""
        agents = self.state.agents.values()
        return any(agent.epoch > self.state.epoch for agent in agents)

    def _check_attempt(self, now: float) -> list[Row]:
        """Check a running attempt: complete, faulty or well."""
        state = self.state
        exits = state.exits()
        for found in exits:
            state.ranks.mark_ended(found.rank)
        failed = [found for found in exits if found.code]
        complete = len(exits) >= state.world and not failed
        # Somebody stops the job: ranks end as they should, and the engine says how.
        leaving = [agent.leaving for agent in state.ordered_agents()]
        if any(leaving) and (all(leaving) or not complete):
            return []
        if complete:
            transitions.end_run(state, 0)
            return []
        fault = detect_fault(state, now, failed)
        if fault:
            return decide.respond(state, now, fault)
        return self._check_recovery(now)

    def _check_recovery(self, now: float) -> list[Row]:
        """Close an open fault after the first new step; else look at the nodes' health."""
        state = self.state
        open_fault = state.history.open
        if open_fault and state.ranks.has_stepped:
            row = decide.recovered(state, now, open_fault)
            state.history.open = None
            return [row]
        if state.can_move and state.health_changed:
            return decide.check_health(state, now)
        return []

    def reply(self, node: str) -> dict[str, Any]:
        """Return what an agent that reported should do.

        Returns:
            The part of an order that it does not follow yet, or nothing. With `identify` the
            agent is asked who it is and where ranks may meet.
        """
        agent = self.state.agents[node]
        order = self.state.order
        reply: dict[str, Any] = {}
        follows = agent.attempt == order.attempt and agent.verb == order.verb
        if not self.state.adopting and not follows:
            reply = order.part(node)
        if not _is_identified(agent):
            reply["identify"] = True
        return reply

    def needs_nodes(self, now: float) -> bool:
        """Whether the engine should be asked for its nodes: an agent is silent or leaves."""
        state = self.state
        if not state.can_move or state.mode != "run":
            return False
        for agent in state.agents.values():
            silent_for = now - agent.last_report
            if agent.leaving or silent_for > SEVERAL_SILENT_SECONDS:
                return True
        return False


def _is_identified(agent: AgentState) -> bool:
    """Whether an agent said who it is and where ranks may meet, since its last start."""
    return bool(agent.pid and agent.master and not agent.restarted)
