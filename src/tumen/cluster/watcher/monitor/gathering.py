"""Reports of agents become state; when all agents are there, an attempt begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tumen.cluster.agents.health import unfit
from tumen.cluster.watcher.monitor import transitions
from tumen.cluster.watcher.monitor.rows import Row
from tumen.cluster.watcher.monitor.run_state import AgentState, RankExit, RunState, StoppedRank
from tumen.core import fencing
from tumen.heartbeat import AuthenticatedMessage

AGENT_SECONDS = 5.0  # an agent without a report for so long is silent
GATHER_SECONDS = 600.0  # by then the agents of a running job have all reported
COMEBACK_SECONDS = 20.0  # an agent that died is back by then, if anything restarts it


def receive_reports(state: RunState, now: float, reports: Iterable[AuthenticatedMessage]) -> None:
    """Take reports of agents. Heartbeats of another attempt than the ordered one are ignored.

    Args:
        state: its agents and its table of ranks are updated.
        now: time of the watcher's clock in seconds.
        reports: as they arrived; several of one agent are possible.
    """
    bodies = []
    for report in reports:
        agent = state.agents.get(report.sender)
        if agent is None:
            agent = _new_agent(state, now, report.sender)
        _receive_report(state, now, agent, report)
        if report.body and report.attempt == state.order.attempt:
            bodies.append(report.body)
    # One numpy call for all heartbeats: with 1,250 agents one call each would be too slow.
    if bodies:
        state.ranks.update(now, b"".join(bodies))


def _new_agent(state: RunState, now: float, name: str) -> AgentState:
    """Add an agent that reports for the first time."""
    # A job may wait in its queue for days: the gathering begins with its first agent.
    if state.mode == "gather" and not state.agents:
        state.since = now
    agent = AgentState(name, now)
    state.agents[name] = agent
    return agent


def _receive_report(
    state: RunState, now: float, agent: AgentState, report: AuthenticatedMessage
) -> None:
    """Update an agent from its report. Without a note, what earlier notes said stays valid."""
    if _fell_back(state, agent, report):
        agent.restarted = True
        agent.master = ""
    note = report.note
    agent.last_report = now
    agent.attempt = report.attempt
    agent.verb = note.get("verb", "run")
    agent.exits = [RankExit(*found) for found in note.get("dead", [])]
    agent.stopped = [StoppedRank(*found) for found in note.get("stopped", [])]
    if note:
        agent.leaving = bool(note.get("leaving", False))
    if identity := note.get("identity"):
        _identify(state, agent, identity)


def _fell_back(state: RunState, agent: AgentState, report: AuthenticatedMessage) -> bool:
    """Whether an agent reports an earlier attempt than before.

    No agent goes back by itself: this is a new process under its name.
    """
    was_at_order = state.order.attempt > 0 and agent.attempt == state.order.attempt
    return was_at_order and report.attempt < agent.attempt


def _identify(state: RunState, agent: AgentState, identity: Mapping[str, Any]) -> None:
    """Take an agent's identity.

    Args:
        state: is told that there is news of a node's health.
        agent: that identified itself.
        identity: as in `agents.agent_report.identity_of`.
    """
    # The same name with another process id: the agent was killed and started again.
    is_another_process = agent.pid not in (0, identity["pid"])
    if is_another_process and state.mode == "run":
        agent.restarted = True
    agent.pid = identity["pid"]
    agent.node_rank = identity["node_rank"]
    agent.master = identity["master"]
    agent.health = identity["health"]
    agent.epoch = fencing.parse_epoch(identity.get("epoch", ""))
    first, count = identity["ranks"]
    agent.ranks = (first, count)
    agent.world = identity["world"]
    state.health_changed = True


def assemble(state: RunState, now: float) -> list[Row]:
    """Begin an attempt as soon as every agent is there, or take over one that runs.

    Args:
        state: gets the order of the attempt.
        now: time of the watcher's clock in seconds.

    Returns:
        Rows, where agents are missing for too long or a node is not fit.
    """
    here = _present_agents(state, now)
    if len(here) < state.layout.nodes:
        return _incomplete(state, now, here)
    identified = all(agent.pid and agent.master for agent in here)
    if not identified:
        return []
    if _can_adopt(state, here):
        transitions.adopt_attempt(state, now, here)
        return []
    rows = _leave_out_unfit(state, now, here)
    if not rows:
        transitions.begin_attempt(state, now, here)
    return rows


def _leave_out_unfit(state: RunState, now: float, here: list[AgentState]) -> list[Row]:
    """Start the job again without nodes that are not fit; no row where all are.

    Args:
        state: gets the nodes to avoid.
        now: time of the watcher's clock in seconds.
        here: the agents that report.
    """
    # Only an engine of many machines has another node to take instead.
    if not state.can_move:
        return []
    healths = {agent.name: agent.health for agent in here}
    bad = unfit(healths)
    if not bad:
        return []
    rows = transitions.drain_nodes(state, now, bad)
    rows += transitions.resubmit(state, now, f"without {', '.join(bad)}")
    return rows


def _present_agents(state: RunState, now: float) -> list[AgentState]:
    """Return the reporting agents of the newest epoch, by the rank of their nodes."""
    here = []
    for agent in state.agents.values():
        is_silent = now - agent.last_report >= AGENT_SECONDS
        if not is_silent and not agent.leaving:
            here.append(agent)
    newest = max((agent.epoch for agent in here), default=())
    of_newest = [agent for agent in here if agent.epoch == newest]
    of_newest.sort(key=lambda agent: agent.node_rank)
    return of_newest


def _can_adopt(state: RunState, here: list[AgentState]) -> bool:
    """Whether all agents run the same attempt, which no watcher of ours has ordered."""
    if not state.adopting:
        return False
    first = here[0]
    if first.verb != "run":
        return False
    for agent in here:
        if (agent.attempt, agent.world) != (first.attempt, first.world):
            return False
    # Attempt 0 has no ranks; one before the ordered attempt is stale.
    return first.attempt >= max(1, state.order.attempt)


def _incomplete(state: RunState, now: float, here: list[AgentState]) -> list[Row]:
    """Wait for missing agents; after the patience start the job elsewhere, or give up.

    Args:
        state: its nodes without an agent are avoided from then on.
        now: time of the watcher's clock in seconds.
        here: the agents that report.
    """
    waited = now - state.since
    patience = COMEBACK_SECONDS if state.awaiting_agent else GATHER_SECONDS
    # Before the first agent the job may still be in its queue: that is not a fault.
    expected = state.awaiting_agent or bool(state.agents)
    if waited < patience or not expected:
        return []
    missing = [agent.name for agent in state.agents.values() if agent not in here]
    transitions.avoid(state, missing)
    why = f"{len(here)} of {state.layout.nodes} agents reported within {waited:.0f} s"
    if state.can_move:
        return transitions.resubmit(state, now, why)
    row = transitions.decided(state, "give_up", why, same_attempt=True)
    transitions.end_run(state, 1)
    return [row]
