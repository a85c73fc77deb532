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
    """Take reports of agents. Heartbeats of another attempt than the ordered one are ignored."""
    bodies = []
    for report in reports:
        agent = state.agents.get(report.sender) or _new_agent(state, now, report.sender)
        _receive_report(state, now, agent, report)
        if report.body and report.attempt == state.order.attempt:
            bodies.append(report.body)
    if bodies:
        state.ranks.update(now, b"".join(bodies))


def _new_agent(state: RunState, now: float, name: str) -> AgentState:
    # A job may wait in its queue for days: the gathering begins with its first agent.
    if state.mode == "gather" and not state.agents:
        state.since = now
    agent = AgentState(name, now)
    state.agents[name] = agent
    return agent


def _receive_report(
    state: RunState, now: float, agent: AgentState, report: AuthenticatedMessage
) -> None:
    fell_back = agent.attempt > report.attempt
    if state.order.attempt > 0 and agent.attempt == state.order.attempt and fell_back:
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


def _identify(state: RunState, agent: AgentState, identity: Mapping[str, Any]) -> None:
    is_another = agent.pid not in (0, identity["pid"])
    if is_another and state.mode == "run":
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

    Returns:
        Rows, where agents are missing for too long or a node is not fit.
    """
    here = _present_agents(state, now)
    if len(here) < state.layout.nodes:
        return _incomplete(state, now, here)
    if not all(agent.pid and agent.master for agent in here):
        return []  # some have not identified themselves yet
    if _can_adopt(state, here):
        transitions.adopt_attempt(state, now, here)
        return []
    if state.can_move:
        bad = unfit({agent.name: agent.health for agent in here})
        if bad:
            rows = transitions.drain_nodes(state, now, bad)
            return rows + transitions.resubmit(state, now, f"without {', '.join(bad)}")
    transitions.begin_attempt(state, now, here)
    return []


def _present_agents(state: RunState, now: float) -> list[AgentState]:
    """Return the reporting agents of the newest epoch, by the rank of their nodes."""
    here = []
    for agent in state.agents.values():
        if now - agent.last_report < AGENT_SECONDS and not agent.leaving:
            here.append(agent)
    newest = max((agent.epoch for agent in here), default=())
    of_newest = [agent for agent in here if agent.epoch == newest]
    return sorted(of_newest, key=lambda agent: agent.node_rank)


def _can_adopt(state: RunState, here: list[AgentState]) -> bool:
    """Whether all agents run the same attempt, which no watcher of ours has ordered."""
    if not state.adopting or here[0].verb != "run":
        return False
    if len({(agent.attempt, agent.world) for agent in here}) > 1:
        return False
    return here[0].attempt >= max(1, state.order.attempt)


def _incomplete(state: RunState, now: float, here: list[AgentState]) -> list[Row]:
    """Wait for missing agents; after the patience start the job elsewhere, or give up."""
    waited = now - state.since
    patience = COMEBACK_SECONDS if state.awaiting_agent else GATHER_SECONDS
    expected = state.awaiting_agent or bool(state.agents)
    if waited < patience or not expected:
        return []
    transitions.avoid(state, [agent.name for agent in state.agents.values() if agent not in here])
    why = f"{len(here)} of {state.layout.nodes} agents reported within {waited:.0f} s"
    if state.can_move:
        return transitions.resubmit(state, now, why)
    row = transitions.decided(state, "give_up", why, same_attempt=True)
    transitions.end_run(state, 1)
    return [row]
