"""What follows from a fault, from what the engine says, and from a request to resize."""

from __future__ import annotations

from typing import Literal

from tumen.cluster.agents.health import unfit
from tumen.cluster.engines.engine import JobStatus
from tumen.cluster.watcher.monitor import gathering, transitions
from tumen.cluster.watcher.monitor.rows import Fault, OpenFault, Row, fault_row, resumed_row
from tumen.cluster.watcher.monitor.run_state import RunState

MOST_TIMES = 3  # the same fault at the same step
MOST_DISK_WAITS = 8  # pauses of 5 s, 10 s, ...: about twenty minutes in all
DISK_WAIT_SECONDS = 5.0
MOST_SLOW_TIMES = 1  # a node that is slow more often is left out
UNFIT_SECONDS = 30.0  # of one node: by then others complain, too, where the cause is shared
SAVE_SECONDS = 600.0  # for a last checkpoint

Response = Literal["give_up", "wait", "resubmit", "restart"]


def respond(state: RunState, now: float, fault: Fault, job_ended: bool = False) -> list[Row]:
    """Write a fault down, and do what follows from it.

    Args:
        state: changed accordingly.
        now: time of the watcher's clock in seconds.
        fault: what was detected.
        job_ended: whether the engine ended the job, so that only a new one can go on.

    Returns:
        The rows of the fault and of the decision.
    """
    history = state.history
    history.by_step[fault.kind, fault.step] += 1
    if fault.kind == "slow":
        history.slow_nodes.update(fault.nodes)
    rows = [transitions.detected(state, now, fault)]
    times = history.by_step[fault.kind, fault.step]
    response = choose_response(state, fault, times, job_ended)
    if response == "give_up":
        return rows + _give_up(state, fault, times)
    if response == "wait":
        return rows + _wait_for_disk(state, now, times)
    if response == "resubmit":
        transitions.avoid(state, fault.nodes)
        return rows + transitions.resubmit(state, now, fault.why)
    return rows + _restart(state, now, fault)


def choose_response(state: RunState, fault: Fault, times: int, job_ended: bool) -> Response:
    """Return what to do about a fault.

    Args:
        state: is only read.
        fault: what was detected.
        times: how often it happened at this step, this time included.
        job_ended: whether the engine ended the job.
    """
    most = MOST_DISK_WAITS if fault.kind == "disk" else MOST_TIMES
    if times >= most:
        return "give_up"
    if fault.kind == "disk":
        return "wait"
    if not state.can_move:
        return "restart"
    slow_again = fault.kind == "slow" and any(
        state.history.slow_nodes[node] > MOST_SLOW_TIMES for node in fault.nodes
    )
    if job_ended or fault.kind == "node" or slow_again:
        return "resubmit"
    return "restart"


def _give_up(state: RunState, fault: Fault, times: int) -> list[Row]:
    why = f"{fault.kind} {times} times at step {fault.step}: {fault.why}"
    row = transitions.decided(state, "give_up", why, same_attempt=True)
    failed = [found.code for agent in state.agents.values() for found in agent.exits if found.code]
    transitions.end_run(state, failed[0] if failed else 1)
    return [row]


def _wait_for_disk(state: RunState, now: float, times: int) -> list[Row]:
    pause = DISK_WAIT_SECONDS * 2 ** (times - 1)
    row = transitions.decided(state, "wait", f"retry in {pause:.0f} s, when the disk has room")
    transitions.wait(state, now, pause)
    return [row]


def _restart(state: RunState, now: float, fault: Fault) -> list[Row]:
    if fault.kind in ("agent", "node"):
        state.awaiting_agent = True
        for name in fault.nodes:
            if name in state.agents and not state.agents[name].restarted:
                del state.agents[name]
    row = transitions.decided(
        state, "restart", f"{fault.kind}: restart from the newest complete state"
    )
    transitions.stop_ranks(state, now)
    return [row, *gathering.assemble(state, now)]


def recovered(state: RunState, now: float, fault: OpenFault) -> Row:
    """Return the row of a fault that is over."""
    return resumed_row(state.order.attempt, state.ranks.furthest_step, fault, now)


# -- what the engine says


def engine_status(state: RunState, now: float, status: JobStatus) -> list[Row]:
    """Take what the engine says of the job; returns rows."""
    state.engine.answered = now
    if status.state == "silent":
        return _engine_silent(state, now, status)
    rows = []
    if state.engine.silent_since:
        since = state.engine.silent_since
        rows.append(recovered(state, now, OpenFault(since, since)))
        state.engine.silent_since = 0.0
    if status.state == "waiting" and state.agents:
        rows += requeued(state, now, f"the engine requeued the job ({status.reason})")
    if status.ended:
        rows += _job_ended(state, now, status)
    return rows


def _engine_silent(state: RunState, now: float, status: JobStatus) -> list[Row]:
    if state.engine.silent_since:
        return []
    state.engine.silent_since = now
    fault = Fault("engine", status.reason, state.ranks.furthest_step, now)
    why = "the job may be healthy; nothing is launched again"
    return [fault_row(fault, now), transitions.decided(state, "wait", why, same_attempt=True)]


def requeued(state: RunState, now: float, why: str) -> list[Row]:
    """Wait for agents of a newer epoch: the engine starts the job again by itself.

    A person asked for that, or a node died and the engine noticed first.
    """
    down = tuple(name for name in state.agents if name in state.engine.not_ready)
    if down:
        why = "; ".join(state.engine.not_ready[name] for name in down)
    first_sign = min(agent.last_report for agent in state.agents.values())
    kind: Literal["node", "engine"] = "node" if down else "engine"
    fault = Fault(kind, why, state.ranks.furthest_step, first_sign, nodes=down)
    state.history.open = state.history.open or OpenFault(first_sign, now)
    newer = {name: agent for name, agent in state.agents.items() if agent.epoch > state.epoch}
    state.agents = newer
    transitions.gather(state, now)
    row = transitions.decided(state, "wait", "the engine starts the job again")
    return [fault_row(fault, now), row]


def _job_ended(state: RunState, now: float, status: JobStatus) -> list[Row]:
    """End with the job, or start it elsewhere where it failed."""
    failed = status.state in ("failed", "lost")
    if failed and state.can_move:
        if state.mode == "gather" and state.awaiting_agent:
            reason = f": {status.reason}" if status.reason else ""
            return transitions.resubmit(state, now, f"the job {status.state}{reason}")
        if state.order.attempt and state.order.verb != "end":
            why = status.reason or f"the engine reports the job as {status.state}"
            fault = Fault("node", why, state.ranks.furthest_step, now)
            return respond(state, now, fault, job_ended=True)
    if status.state in ("done", "failed"):
        state.exit_code = status.exit_code or 0
    else:
        state.exit_code = 1
    state.mode = "over"
    return []


# -- other reasons for a new attempt


def resize(state: RunState, now: float, ranks: int) -> list[Row]:
    """Take a last checkpoint, then begin an attempt with another number of ranks."""
    why = f"from {state.world} to {ranks} ranks, as requested"
    state.world = ranks
    row = transitions.decided(state, "resize", why)
    transitions.save_and_stop(state, now)
    return [row]


def check_health(state: RunState, now: float) -> list[Row]:
    """Leave out nodes that are no longer fit while their ranks still train, after a last checkpoint."""
    bad = unfit({agent.name: agent.health for agent in state.ordered_agents()})
    state.health_changed = bool(bad)
    if not bad:
        state.unfit_since = 0.0
        return []
    if not state.unfit_since:
        state.unfit_since = now
    if now - state.unfit_since < UNFIT_SECONDS:
        return []
    rows = transitions.drain_nodes(state, now, bad)
    transitions.save_and_stop(state, now)
    state.move_reason = f"without {', '.join(bad)}"
    return rows


def check_saved(state: RunState, now: float) -> list[Row]:
    """Begin the next attempt once all ranks wrote their last checkpoint and ended."""
    exits = state.exits()
    complete = len(exits) >= state.order.world
    too_late = now - state.since > SAVE_SECONDS
    if not complete and not too_late and not any(found.code for found in exits):
        return []
    if state.move_reason:
        return transitions.resubmit(state, now, state.move_reason)
    transitions.stop_ranks(state, now)
    return gathering.assemble(state, now)
