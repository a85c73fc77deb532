"""Name what broke first in a running attempt.

Many signs follow from one cause: ranks abort because another one died, and a whole rack falls
silent because its switch is down. `detect_fault` names the cause, and waits where that is not
certain yet.
"""

from __future__ import annotations

from collections.abc import Sequence

from tumen.cluster.watcher.monitor.gathering import AGENT_SECONDS
from tumen.cluster.watcher.monitor.rank_table import MISSED_SECONDS
from tumen.cluster.watcher.monitor.rows import Fault, FaultKind
from tumen.cluster.watcher.monitor.run_state import AgentState, RankExit, RunState
from tumen.core.errors import RANKS_CANNOT_MEET, DiskError, TrainError

# Several agents that fall silent together are believed sooner than one, whose packets may be lost.
SEVERAL_AGENTS = 3
SEVERAL_SILENT_SECONDS = 1.5
REPORT_SECONDS = 1.0  # then the others that fell silent at the same moment are known, too
MOST_SILENT_SECONDS = 30.0  # when most are silent, it is rather the watcher's own network
ENGINE_SECONDS = 30.0  # the engine may take so long to say that it took the job away
STOPPED_SECONDS = 2.0  # a debugger that attaches stops a process for less
SETTLE_SECONDS = 0.3  # from the first exit on: other reports of the same cause arrive meanwhile
FOLLOW_SECONDS = 6.0  # the same while every exit is a consequence of another one

ABORTED = 134  # 128 + SIGABRT: gloo or NCCL ended the rank because another one was gone
SELF_REPORTED: tuple[FaultKind, ...] = ("nan", "spike", "disk")


def detect_fault(state: RunState, now: float, failed: Sequence[RankExit]) -> Fault | None:
    """Return what broke first, None while all is well or the cause is not certain yet.

    Args:
        state: its timers `first_exit` and `silent_together_since` are updated.
        now: time of the watcher's clock in seconds.
        failed: ranks of the attempt that ended with an error.
    """
    if failed and not state.first_exit:
        state.first_exit = now
    waited = now - state.first_exit if failed else 0.0
    # In this order: what a rank said itself, then its node, then the exit code, then the living.
    fault = _reported_by_rank(state, failed, waited)
    if fault is None:
        fault = _lost_agents(state, now, after_exit=bool(failed))
    if fault is None and failed:
        return _crash(state, failed, waited)
    if fault is None:
        fault = _stopped_rank(state, now)
    if fault is None:
        fault = _hindered_rank(state, now)
    return fault


# -- ranks that ended


def _reported_by_rank(state: RunState, failed: Sequence[RankExit], waited: float) -> Fault | None:
    """Return the fault that a rank named itself before it ended.

    Args:
        state: is only read.
        failed: ranks that ended with an error.
        waited: seconds since the first of them ended.
    """
    if waited < SETTLE_SECONDS:
        return None
    for found in failed:
        kind = _reported_kind(found)
        if kind is None:
            continue
        why = "disk error"  # a full disk takes no reason either
        step = state.ranks.furthest_step
        if found.reason is not None:
            why = found.reason["why"]
            step = found.reason["step"]
        nodes = state.nodes_of(found.rank)
        return Fault(kind, why, step, state.first_exit, found.rank, nodes)
    return None


def _reported_kind(found: RankExit) -> FaultKind | None:
    """Return the kind of fault that a rank reported, None where it reported none."""
    if found.code == DiskError.exit_code:
        return "disk"
    if found.reason is None or found.was_killed:
        return None
    kind: FaultKind = found.reason["kind"]
    if kind not in SELF_REPORTED:
        return None
    return kind


def _crash(state: RunState, failed: Sequence[RankExit], waited: float) -> Fault | None:
    """Return the crash of the rank that is most likely the cause, None while that is uncertain.

    Args:
        state: is only read.
        failed: ranks that ended with an error.
        waited: seconds since the first of them ended.
    """
    causes = [found for found in failed if not _is_consequence(found)]
    if causes and waited >= SETTLE_SECONDS:
        # A rank that was killed comes before one that ended itself: that one may have noticed
        # the kill.
        cause = min(causes, key=lambda found: not found.was_killed)
    elif waited >= FOLLOW_SECONDS:
        cause = failed[0]
    else:
        return None
    why = _exit_text(cause)
    nodes = state.nodes_of(cause.rank)
    return Fault("crash", why, state.ranks.furthest_step, state.first_exit, cause.rank, nodes)


def _is_consequence(found: RankExit) -> bool:
    """Whether a rank ended only because another one was gone."""
    if found.code == ABORTED:
        return True
    if found.reason is None:
        return found.code == TrainError.exit_code  # PeerError leaves no reason
    return RANKS_CANNOT_MEET in found.reason["why"]


def _exit_text(found: RankExit) -> str:
    """Return why a rank ended, as one line for people."""
    if found.reason is not None:
        return str(found.reason["why"])
    text = f"rank ended with exit code {found.code}"
    if found.code > 128:
        text += f", signal {found.code - 128}"
    return text


# -- agents that restarted or are silent


def _lost_agents(state: RunState, now: float, after_exit: bool) -> Fault | None:
    """Return the fault of agents that restarted or stopped reporting.

    Args:
        state: its timer `silent_together_since` is updated.
        now: time of the watcher's clock in seconds.
        after_exit: whether ranks ended meanwhile, as those do that miss a peer.
    """
    used = state.agents_with_ranks()
    for agent in used:
        if agent.restarted:
            why = "agent restarted; its ranks ended with it"
            step = state.ranks.furthest_step
            return Fault("agent", why, step, agent.last_report, nodes=(agent.name,))
    silent = _silent_agents(state, now, used, after_exit)
    if not silent or _must_ask_engine(state, now, used):
        return None
    return _silence(state, now, silent)


def _silence(state: RunState, now: float, silent: Sequence[AgentState]) -> Fault:
    """Return the fault of silent agents: their nodes' or their own.

    Args:
        state: is only read.
        now: time of the watcher's clock in seconds.
        silent: agents, at least one.
    """
    not_ready = state.engine.not_ready
    every = [agent.name for agent in silent]
    down = [name for name in every if name in not_ready]
    # What the engine knows of a node is the better reason.
    if down:
        names = down
        why = not_ready[down[0]]
    else:
        names = every
        why = f"no report for {now - silent[0].last_report:.1f} s"
    if len(names) > 1:
        why = f"{len(names)} nodes at once: {why}"
    # Where an engine of many machines runs the agents, one that ended is restarted at once. One
    # that stays silent there is a dead machine or network.
    kind: FaultKind = "agent"
    if down or state.can_move or len(names) >= SEVERAL_AGENTS:
        kind = "node"
    first_sign = min(agent.last_report for agent in silent)
    return Fault(kind, why, state.ranks.furthest_step, first_sign, nodes=tuple(names))


def _silent_agents(
    state: RunState, now: float, used: Sequence[AgentState], after_exit: bool
) -> list[AgentState]:
    """Return the agents that have been silent long enough to be believed.

    Args:
        state: its timer `silent_together_since` is updated.
        now: time of the watcher's clock in seconds.
        used: agents that were ordered to run ranks.
        after_exit: whether ranks ended meanwhile; then one silent agent is as good as several.
    """
    quiet = _silent_for(SEVERAL_SILENT_SECONDS, now, used)
    together = len(quiet) >= SEVERAL_AGENTS
    if after_exit and quiet:
        together = True
    if not together:
        state.silent_together_since = 0.0
    elif not state.silent_together_since:
        state.silent_together_since = now
    # More than half are silent: rather the watcher's own network than so many nodes.
    if len(quiet) > max(1, len(used) / 2):
        return _silent_for(MOST_SILENT_SECONDS, now, quiet)
    if together and now - state.silent_together_since >= REPORT_SECONDS:
        return quiet
    if any(agent.name in state.engine.not_ready for agent in quiet):
        return quiet
    return _silent_for(AGENT_SECONDS, now, quiet)


def _silent_for(seconds: float, now: float, agents: Sequence[AgentState]) -> list[AgentState]:
    """Return the agents whose last report is older than that."""
    return [agent for agent in agents if now - agent.last_report > seconds]


def _must_ask_engine(state: RunState, now: float, used: Sequence[AgentState]) -> bool:
    """Whether all agents are silent and the engine has not answered since.

    It may have requeued the job: then no node is at fault.

    Args:
        state: is only read.
        now: time of the watcher's clock in seconds.
        used: agents that were ordered to run ranks.
    """
    last_report = max(agent.last_report for agent in used)
    silent_for = now - last_report
    if not state.can_move or silent_for <= SEVERAL_SILENT_SECONDS:
        return False
    has_answered = state.engine.answered > last_report
    return not has_answered and silent_for < ENGINE_SECONDS


# -- ranks that are alive


def _stopped_rank(state: RunState, now: float) -> Fault | None:
    """Return the rank whose process has been stopped longest, as its agent sees it in /proc."""
    stopped = []
    for agent in state.agents_of_attempt():
        stopped += [found for found in agent.stopped if found.seconds >= STOPPED_SECONDS]
    if not stopped:
        return None
    longest = max(stopped, key=lambda found: found.seconds)
    nodes = state.nodes_of(longest.rank)
    step = state.ranks.furthest_step
    since = now - longest.seconds
    return Fault("freeze", "process is stopped", step, since, longest.rank, nodes)


def _hindered_rank(state: RunState, now: float) -> Fault | None:
    """Return a rank without heartbeats, a run in which no step finishes, or a slow rank."""
    rank = state.ranks.silent_rank(now)
    if rank is None:
        rank = state.ranks.stuck_rank(now)
    if rank is None:
        return _slow_rank(state, now)
    if _is_unreported(state, now, state.nodes_of(rank)):
        return None  # its agent or node is the question, see _lost_agents
    return _silent_or_stuck(state, now, rank)


def _silent_or_stuck(state: RunState, now: float, rank: int) -> Fault:
    """Return the fault of a rank that is silent, or of a run that is stuck (rank -1: unknown).

    Args:
        state: is only read.
        now: time of the watcher's clock in seconds.
        rank: the likely cause, -1 where all ranks look alike.
    """
    ranks = state.ranks
    step = ranks.furthest_step
    nodes = state.nodes_of(rank)
    # A rank that sends heartbeats is alive: then the collective is stuck, not the process.
    if rank < 0 or now - ranks.last_heartbeat[rank] < MISSED_SECONDS:
        why = f"all ranks are alive, but no step finished for {now - ranks.last_progress:.1f} s"
        cause = None if rank < 0 else rank
        return Fault("collective", why, step, ranks.last_progress, cause, nodes)
    last_heartbeat = float(ranks.last_heartbeat[rank])
    why = f"process is alive but sent no heartbeat for {now - last_heartbeat:.1f} s"
    return Fault("freeze", why, step, last_heartbeat, rank, nodes)


def _is_unreported(state: RunState, now: float, nodes: Sequence[str]) -> bool:
    """Whether the agent of a node has been quiet for a while: then it passes on no heartbeats.

    Args:
        state: is only read.
        now: time of the watcher's clock in seconds.
        nodes: of the rank in question.
    """
    agents = [agent for agent in state.agents.values() if agent.name in nodes]
    quiet = _silent_for(SEVERAL_SILENT_SECONDS, now, agents)
    return bool(quiet)


def _slow_rank(state: RunState, now: float) -> Fault | None:
    """Return the rank that makes all steps slow, None where there is none."""
    ranks = state.ranks
    rank = ranks.slow_rank()
    if rank is None:
        return None
    latest = ranks.recent[-1]
    times = f"a step takes {latest:.2g} s instead of {ranks.step_seconds():.2g} s"
    why = f"{times}; the other ranks wait for this rank"
    nodes = state.nodes_of(rank)
    return Fault("slow", why, ranks.furthest_step, now, rank, nodes)
