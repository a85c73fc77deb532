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
    times = _count(state, fault)
    rows = [transitions.detected(state, now, fault)]
    response = choose_response(state, fault, times, job_ended)
    if response == "give_up":
        rows += _give_up(state, fault, times)
    elif response == "wait":
        rows += _wait_for_disk(state, now, times)
    elif response == "resubmit":
        transitions.avoid(state, fault.nodes)
        rows += transitions.resubmit(state, now, fault.why)
    else:
        rows += _restart(state, now, fault)
    return rows


def _count(state: RunState, fault: Fault) -> int:
    """Count a fault; returns how often it happened at its step."""
    history = state.history
    place = (fault.kind, fault.step)
    history.by_step[place] += 1
    if fault.kind == "slow":
        history.slow_nodes.update(fault.nodes)
    return history.by_step[place]


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
    # On one machine there is no other node to go to.
    if not state.can_move:
        return "restart"
    if job_ended or fault.kind == "node":
        return "resubmit"
    if fault.kind == "slow":
        times_slow = [state.history.slow_nodes[node] for node in fault.nodes]
        if max(times_slow, default=0) > MOST_SLOW_TIMES:
            return "resubmit"
    return "restart"


def _give_up(state: RunState, fault: Fault, times: int) -> list[Row]:
    """End the run with the exit code of a failed rank.

    Args:
        state: gets the order to end.
        fault: that happened too often.
        times: how often, at the same step.
    """
    why = f"{fault.kind} {times} times at step {fault.step}: {fault.why}"
    row = transitions.decided(state, "give_up", why, same_attempt=True)
    transitions.end_run(state, _first_failed_code(state))
    return [row]


def _first_failed_code(state: RunState) -> int:
    """Return the exit code of a rank that failed, 1 where no rank failed."""
    for agent in state.agents.values():
        for found in agent.exits:
            if found.code:
                return found.code
    return 1


def _wait_for_disk(state: RunState, now: float, times: int) -> list[Row]:
    """Pause the run; each pause at the same step is twice as long as the one before.

    Args:
        state: gets the pause.
        now: time of the watcher's clock in seconds.
        times: how often the disk was full at this step, this time included.
    """
    pause = DISK_WAIT_SECONDS * 2 ** (times - 1)
    why = f"retry in {pause:.0f} s, when the disk has room"
    row = transitions.decided(state, "wait", why)
    transitions.wait(state, now, pause)
    return [row]


def _restart(state: RunState, now: float, fault: Fault) -> list[Row]:
    """Kill the ranks, and begin a new attempt as soon as all agents are there.

    Args:
        state: gets the order to stop, or that of the next attempt.
        now: time of the watcher's clock in seconds.
        fault: whose agents, if it lost any, are awaited.
    """
    if fault.kind in ("agent", "node"):
        state.awaiting_agent = True
        # A lost agent is forgotten, unless its successor has reported already.
        for name in fault.nodes:
            agent = state.agents.get(name)
            if agent and not agent.restarted:
                del state.agents[name]
    why = f"{fault.kind}: restart from the newest complete state"
    row = transitions.decided(state, "restart", why)
    transitions.stop_ranks(state, now)
    return [row, *gathering.assemble(state, now)]


def recovered(state: RunState, now: float, fault: OpenFault) -> Row:
    """Return the row of a fault that is over.

    Args:
        state: gives the attempt and its furthest step.
        now: when the first new step was seen.
        fault: that is over.
    """
    return resumed_row(state.order.attempt, state.ranks.furthest_step, fault, now)


# -- what the engine says


def engine_status(state: RunState, now: float, status: JobStatus) -> list[Row]:
    """Take what the engine says of the job; returns rows.

    Args:
        state: changed accordingly.
        now: time of the watcher's clock in seconds.
        status: of the job; "silent" where the engine does not answer.
    """
    engine = state.engine
    engine.answered = now
    if status.state == "silent":
        return _engine_silent(state, now, status)
    rows = []
    if engine.silent_since:
        silence = OpenFault(engine.silent_since, engine.silent_since)
        rows.append(recovered(state, now, silence))
        engine.silent_since = 0.0
    # A job that waits although agents reported was put back into its queue.
    if status.state == "waiting" and state.agents:
        rows += requeued(state, now, f"the engine requeued the job ({status.reason})")
    if status.ended:
        rows += _job_ended(state, now, status)
    return rows


def _engine_silent(state: RunState, now: float, status: JobStatus) -> list[Row]:
    """Report an engine that does not answer, once.

    Args:
        state: remembers since when.
        now: time of the watcher's clock in seconds.
        status: has the reason.
    """
    if state.engine.silent_since:
        return []
    state.engine.silent_since = now
    fault = Fault("engine", status.reason, state.ranks.furthest_step, now)
    why = "the job may be healthy; nothing is launched again"
    decision = transitions.decided(state, "wait", why, same_attempt=True)
    return [fault_row(fault, now), decision]


def requeued(state: RunState, now: float, why: str) -> list[Row]:
    """Wait for agents of a newer epoch: the engine starts the job again by itself.

    A person asked for that, or a node died and the engine noticed first.

    Args:
        state: keeps the agents of the newer epoch alone.
        now: time of the watcher's clock in seconds.
        why: what the engine did, for the row; a node that is down is the better reason.
    """
    kind: Literal["node", "engine"] = "engine"
    not_ready = state.engine.not_ready
    down = tuple(name for name in state.agents if name in not_ready)
    if down:
        kind = "node"
        why = "; ".join(not_ready[name] for name in down)
    first_sign = min(agent.last_report for agent in state.agents.values())
    fault = Fault(kind, why, state.ranks.furthest_step, first_sign, nodes=down)
    if state.history.open is None:
        state.history.open = OpenFault(first_sign, now)
    _keep_newer_agents(state)
    transitions.gather(state, now)
    decision = transitions.decided(state, "wait", "the engine starts the job again")
    return [fault_row(fault, now), decision]


def _keep_newer_agents(state: RunState) -> None:
    """Forget the agents of the job's present and earlier epochs."""
    for name, agent in list(state.agents.items()):
        if agent.epoch <= state.epoch:
            del state.agents[name]


def _job_ended(state: RunState, now: float, status: JobStatus) -> list[Row]:
    """End with the job, or start it elsewhere where it failed.

    Args:
        state: changed accordingly.
        now: time of the watcher's clock in seconds.
        status: of the job, which ended.
    """
    failed = status.state in ("failed", "lost")
    if failed and state.can_move:
        # The fault is written down already, and the job did not outlive it.
        if state.mode == "gather" and state.awaiting_agent:
            why = f"the job {status.state}"
            if status.reason:
                why += f": {status.reason}"
            return transitions.resubmit(state, now, why)
        was_running = state.order.attempt > 0 and state.order.verb != "end"
        if was_running:
            why = status.reason or f"the engine reports the job as {status.state}"
            fault = Fault("node", why, state.ranks.furthest_step, now)
            return respond(state, now, fault, job_ended=True)
    _end_with_job(state, status)
    return []


def _end_with_job(state: RunState, status: JobStatus) -> None:
    """End the run with the job's exit code; a cancelled or lost job has none of its own."""
    state.exit_code = 1
    if status.state in ("done", "failed"):
        state.exit_code = status.exit_code or 0
    state.mode = "over"


# -- other reasons for a new attempt


def resize(state: RunState, now: float, ranks: int) -> list[Row]:
    """Take a last checkpoint, then begin an attempt with another number of ranks.

    Args:
        state: gets the new number of ranks.
        now: time of the watcher's clock in seconds.
        ranks: that the next attempt has.
    """
    why = f"from {state.world} to {ranks} ranks, as requested"
    state.world = ranks
    row = transitions.decided(state, "resize", why)
    transitions.save_and_stop(state, now)
    return [row]


def check_health(state: RunState, now: float) -> list[Row]:
    """Leave out nodes that are no longer fit while their ranks train, after a last checkpoint.

    Args:
        state: its field `health_changed` stays set until the node is fit or left out.
        now: time of the watcher's clock in seconds.
    """
    healths = {agent.name: agent.health for agent in state.ordered_agents()}
    bad = unfit(healths)
    state.health_changed = bool(bad)
    if not bad:
        state.unfit_since = 0.0
        return []
    if not state.unfit_since:
        state.unfit_since = now
    # A shared cause, such as a full disk, shows on one node first.
    if now - state.unfit_since < UNFIT_SECONDS:
        return []
    rows = transitions.drain_nodes(state, now, bad)
    transitions.save_and_stop(state, now)
    state.move_reason = f"without {', '.join(bad)}"
    return rows


def check_saved(state: RunState, now: float) -> list[Row]:
    """Begin the next attempt once all ranks wrote their last checkpoint and ended.

    Args:
        state: gets the order of the next attempt.
        now: time of the watcher's clock in seconds.
    """
    exits = state.exits()
    complete = len(exits) >= state.order.world
    too_late = now - state.since > SAVE_SECONDS
    one_failed = any(found.code for found in exits)
    if not complete and not too_late and not one_failed:
        return []
    if state.move_reason:
        return transitions.resubmit(state, now, state.move_reason)
    transitions.stop_ranks(state, now)
    return gathering.assemble(state, now)
