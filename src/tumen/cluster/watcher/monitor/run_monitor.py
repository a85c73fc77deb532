"""`RunMonitor`: detect faults of a run and decide what to do. A pure state machine without clock, socket or file.

    ranks --heartbeats--> agent --reports--> watcher --order, as the reply--> agent

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
        """Take what the engine says of the job, and of its nodes where it was asked; returns rows."""
        if self.is_over:
            return []
        if nodes is not None:
            self.state.engine.not_ready = {
                node.name: node.reason for node in nodes if not node.ready
            }
        return decide.engine_status(self.state, now, status)

    def clocks_differ(self, now: float, ahead_seconds: Mapping[str, float]) -> list[Row]:
        """Take by how many seconds clocks of senders are off; returns a row for each new one."""
        state, rows = self.state, list[Row]()
        if self.is_over:
            return rows
        for node, ahead in ahead_seconds.items():
            if node in state.history.skewed:
                continue
            state.history.skewed.add(node)
            direction = "ahead" if ahead > 0 else "behind"
            why = f"its clock is {abs(ahead):.0f} s {direction}; its reports are dropped until the clock is set"
            fault = Fault("skew", why, state.ranks.furthest_step, now, nodes=(node,))
            rows.append(fault_row(fault, now))
        return rows

    def checkpoint_damaged(self, now: float, why: str) -> list[Row]:
        """Take that training fell back to an older checkpoint; returns rows."""
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
        state, history, attempt = self.state, self.state.history, 0
        for row in rows:
            attempt = max(attempt, int(row.get("attempt") or 0))
            if row["event"] == "watch" and row["state"] == "ended":
                history.by_step, history.open = Counter(), None
                state.avoid, state.world = [], state.layout.world
            elif row["event"] == "fault":
                history.by_step[row["kind"], row["step"]] += 1
                if row["kind"] == "slow":
                    history.slow_nodes[row["node"]] += 1
                history.open = OpenFault(row["time"] - row["silent_seconds"], row["time"])
            elif row["event"] == "decided":
                state.avoid = list(row["avoid"])
                state.world = row["world"] or state.world
            elif row["event"] == "resumed":
                history.open = None
        state.order = replace(state.order, attempt=attempt)
        usual = [usual_seconds] * USUAL_STEPS if usual_seconds else []
        state.ranks = RankTable(0.0, state.world, usual)

    # -- output

    def check(self, now: float) -> list[Row]:
        """Let time pass: detect faults, decide, begin attempts. Returns rows."""
        state = self.state
        if state.since < 0:
            state.since = now
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
        return any(agent.epoch > self.state.epoch for agent in self.state.agents.values())

    def _check_attempt(self, now: float) -> list[Row]:
        """Check a running attempt: complete, faulty or well."""
        state, exits = self.state, self.state.exits()
        for found in exits:
            state.ranks.mark_ended(found.rank)
        failed = [found for found in exits if found.code]
        complete = len(exits) >= state.world and not failed
        leaving = [agent.leaving for agent in state.ordered_agents()]
        if any(leaving) and (all(leaving) or not complete):
            return []  # somebody stops the job: ranks end as they should, and the engine says how
        if complete:
            transitions.end_run(state, 0)
            return []
        fault = detect_fault(state, now, failed)
        if fault:
            return decide.respond(state, now, fault)
        if state.history.open and state.ranks.has_stepped:
            row = decide.recovered(state, now, state.history.open)
            state.history.open = None
            return [row]
        if state.can_move and state.health_changed:
            return decide.check_health(state, now)
        return []

    def reply(self, node: str) -> dict[str, Any]:
        """Return what an agent that reported should do: an order that it does not follow yet, or nothing.

        With `identify` it is asked who it is and where ranks may meet.
        """
        agent, order = self.state.agents[node], self.state.order
        reply: dict[str, Any] = {}
        follows = (agent.attempt, agent.verb) == (order.attempt, order.verb)
        if not self.state.adopting and not follows:
            reply = order.part(node)
        if not _is_identified(agent):
            reply["identify"] = True
        return reply

    def needs_nodes(self, now: float) -> bool:
        """Whether the engine should be asked for its nodes, because an agent is silent or leaves."""
        if not self.state.can_move or self.state.mode != "run":
            return False
        return any(
            agent.leaving or now - agent.last_report > SEVERAL_SILENT_SECONDS
            for agent in self.state.agents.values()
        )


def _is_identified(agent: AgentState) -> bool:
    return bool(agent.pid and agent.master and not agent.restarted)
