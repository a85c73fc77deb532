"""Changes of a run's mode and order. Each function leaves the state consistent.

Rows for watch.jsonl are returned. `now` is the time of the watcher's clock in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tumen.cluster.order import Order
from tumen.cluster.watcher.monitor.rank_table import RankTable
from tumen.cluster.watcher.monitor.rows import Action, Fault, OpenFault, Row, decided_row, fault_row
from tumen.cluster.watcher.monitor.run_state import AgentState, RunState


def decided(state: RunState, action: Action, why: str, same_attempt: bool = False) -> Row:
    """Return the row of a decision.

    Args:
        state: gives the attempt, its number of ranks and the nodes to avoid.
        action: what is done.
        why: one line for people.
        same_attempt: whether the decision is about the present attempt, not the next one.
    """
    attempt = state.order.attempt
    if not same_attempt:
        attempt += 1
    return decided_row(action, why, attempt, state.world, state.avoid)


def detected(state: RunState, now: float, fault: Fault) -> Row:
    """Open a fault, or keep the earlier first sign of one that is open, and return its row.

    Args:
        state: gets the open fault.
        now: when it was detected.
        fault: that was detected.
    """
    earlier = state.history.open
    first_sign = fault.first_sign
    if earlier:
        # The training stands still since the first of them: that is the time that counts.
        first_sign = min(first_sign, earlier.first_sign)
    state.history.open = OpenFault(first_sign, now)
    return fault_row(fault, now)


def avoid(state: RunState, nodes: Sequence[str]) -> None:
    """Use these nodes no more, from the next start of the job on."""
    new = [node for node in nodes if node not in state.avoid]
    state.avoid += new


def gather(state: RunState, now: float) -> None:
    """Wait for all agents; then a new attempt begins."""
    state.mode = "gather"
    state.since = now
    state.wait_until = 0.0
    state.first_exit = 0.0
    state.move_reason = ""


def stop_ranks(state: RunState, now: float) -> None:
    """Order agents to kill their ranks, and gather them for a new attempt."""
    state.order = replace(state.order, verb="stop")
    gather(state, now)


def save_and_stop(state: RunState, now: float) -> None:
    """Order a last checkpoint, after which the ranks end."""
    state.order = replace(state.order, verb="save-and-stop")
    state.mode = "save"
    state.since = now
    # Not a fault, but the ranks stand still from here on: `resumed` says for how long.
    state.history.open = OpenFault(now, now)


def wait(state: RunState, now: float, seconds: float) -> None:
    """Kill the ranks and leave agents without any for some seconds.

    Args:
        state: gets the order to stop.
        now: time of the watcher's clock in seconds.
        seconds: until the agents are gathered again.
    """
    stop_ranks(state, now)
    # After `stop_ranks`, which sets a mode of its own.
    state.mode = "wait"
    state.wait_until = now + seconds


def resubmit(state: RunState, now: float, why: str) -> list[Row]:
    """Let the engine start the job again, without the nodes to avoid.

    Args:
        state: loses its agents and gets the order to stop.
        now: time of the watcher's clock in seconds.
        why: one line for people.
    """
    row = decided(state, "resubmit", why)
    # Agents of the new job report as new ones.
    state.agents = {}
    state.awaiting_agent = False
    stop_ranks(state, now)
    return [row]


def drain_nodes(state: RunState, now: float, unfit: Mapping[str, str]) -> list[Row]:
    """Leave out nodes that are not fit, from the next start of the job on.

    Args:
        unfit: node -> what is wrong with it.
    """
    rows = []
    step = state.ranks.furthest_step
    for node, why in unfit.items():
        fault = Fault("node", why, step, now, nodes=(node,))
        rows.append(fault_row(fault, now))
        # First avoided, then decided: the caller drains the last node that the row names.
        avoid(state, [node])
        rows.append(decided(state, "drain", why))
    return rows


def begin_attempt(state: RunState, now: float, agents: Sequence[AgentState]) -> None:
    """Order a new attempt on as many of the agents as share the ranks evenly.

    Args:
        state: gets the order.
        now: when the attempt begins.
        agents: that are there, by the rank of their nodes; the first one names the master.
    """
    newest = max(agent.attempt for agent in agents)
    attempt = 1 + max(state.order.attempt, newest)
    used = _even_count(state.world, len(agents))
    each = state.world // used
    ranks = {}
    for place, agent in enumerate(agents[:used]):
        ranks[agent.name] = (each * place, each)
    first = agents[0]
    state.order = Order(attempt, "run", state.world, first.master, ranks)
    first.master = ""  # a port serves one attempt; the agent names another when asked
    _run(state, now)


def _even_count(world: int, most: int) -> int:
    """Return the largest number of nodes, at most `most`, that share the ranks evenly.

    Args:
        world: number of ranks.
        most: nodes that are there.
    """
    count = most
    while world % count:
        count -= 1
    return count


def adopt_attempt(state: RunState, now: float, agents: Sequence[AgentState]) -> None:
    """Take over an attempt that runs, as it is."""
    first = agents[0]
    state.world = first.world
    ranks = {agent.name: agent.ranks for agent in agents}
    state.order = Order(first.attempt, "run", state.world, "", ranks)
    _run(state, now)


def _run(state: RunState, now: float) -> None:
    """Watch the ordered attempt from now on, with a fresh table of its ranks."""
    state.mode = "run"
    state.since = now
    state.wait_until = 0.0
    state.first_exit = 0.0
    epochs = [agent.epoch for agent in state.agents.values()]
    state.epoch = max(epochs, default=())
    state.adopting = False
    state.awaiting_agent = False
    for agent in state.agents.values():
        agent.restarted = False
    # Step times of another number of ranks say nothing about this attempt.
    usual: list[float] = []
    if state.ranks.world == state.world:
        usual = [*state.ranks.usual, *state.ranks.recent]
    state.ranks = RankTable(now, state.world, usual)


def end_run(state: RunState, code: int) -> None:
    """Order agents to end with this exit code."""
    state.order = replace(state.order, verb="end", code=code)
    state.exit_code = code
    state.mode = "over"
    state.adopting = False
