"""What the watcher knows of a run, as plain data.

gathering.py, transitions.py and decide.py change it; detect.py reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tumen.cluster.order import Order
from tumen.cluster.watcher.monitor.rank_table import RankTable
from tumen.cluster.watcher.monitor.rows import OpenFault

# gather: wait for all agents. run: an attempt is at work. save: ranks write a last checkpoint and
# end. wait: for space on the disk. over: nothing more to do.
Mode = Literal["gather", "run", "save", "wait", "over"]


@dataclass(frozen=True)
class RankLayout:
    """Nodes and ranks of each node, as the job was started."""

    nodes: int
    ranks_per_node: int

    @property
    def world(self) -> int:
        """All ranks."""
        return self.nodes * self.ranks_per_node


class RankExit(NamedTuple):
    """A rank that ended."""

    rank: int
    code: int  # exit code; 128 + signal where it was killed
    reason: Mapping[str, Any] | None  # {kind, why, step}, from faults/RANK-ATTEMPT.json

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it."""
        return self.code >= 128


class StoppedRank(NamedTuple):
    """A rank whose process is stopped, as by SIGSTOP."""

    rank: int
    seconds: float


@dataclass
class AgentState:
    """What an agent last reported. With `attempt` 0 it has no ranks."""

    name: str
    last_report: float
    attempt: int = 0
    verb: str = "run"  # the order that it follows
    pid: int = 0  # 0 until it identified itself
    epoch: tuple[int, ...] = ()
    node_rank: int = 0
    master: str = ""  # host:port where ranks may meet; "" until it names one
    ranks: tuple[int, int] = (0, 0)  # first rank, number of ranks
    world: int = 0
    health: Mapping[str, Any] = field(default_factory=dict)
    exits: list[RankExit] = field(default_factory=list)  # of its attempt
    stopped: list[StoppedRank] = field(default_factory=list)
    leaving: bool = False  # it got SIGTERM: its ranks write a checkpoint and end
    restarted: bool = False  # another process took its place, and its ranks are gone


@dataclass
class EngineView:
    """What the engine last said of the job and its nodes."""

    answered: float = 0.0
    silent_since: float = 0.0  # 0 while it answers
    not_ready: dict[str, str] = field(default_factory=dict)  # node -> reason


@dataclass
class FaultHistory:
    """Faults so far, over all attempts and watchers of the job."""

    by_step: Counter[tuple[str, int]] = field(default_factory=Counter)  # (kind, step)
    slow_nodes: Counter[str] = field(default_factory=Counter)
    skewed: set[str] = field(default_factory=set)  # nodes whose clock was reported
    open: OpenFault | None = None


@dataclass
class RunState:
    """The state of a watched run. Times are in seconds of the watcher's clock, 0 where unset.

    Attributes:
        layout: the job as it was started.
        can_move: whether the engine can start the job on other nodes.
        world: number of ranks that the next attempt gets.
        order: what agents should do now.
        since: when `mode` began; -1 before the first look.
        wait_until: end of mode "wait".
        first_exit: when the first failed rank of the attempt was seen.
        silent_together_since: since when several agents are silent at once.
        adopting: whether running ranks are taken over as they are.
        epoch: of the job, which its engine may start again.
        awaiting_agent: whether an agent that died is waited for.
        avoid: nodes that the job must not use any more.
        health_changed: an agent reported its node's health since the last check.
        unfit_since: since when a node is not fit.
        move_reason: why the job starts elsewhere once its ranks have saved.
    """

    layout: RankLayout
    can_move: bool
    world: int
    order: Order
    ranks: RankTable
    agents: dict[str, AgentState] = field(default_factory=dict)
    mode: Mode = "gather"
    since: float = -1.0
    wait_until: float = 0.0
    first_exit: float = 0.0
    silent_together_since: float = 0.0
    adopting: bool = True
    epoch: tuple[int, ...] = ()
    awaiting_agent: bool = False
    avoid: list[str] = field(default_factory=list)
    health_changed: bool = False
    unfit_since: float = 0.0
    move_reason: str = ""
    engine: EngineView = field(default_factory=EngineView)
    history: FaultHistory = field(default_factory=FaultHistory)
    exit_code: int = 0

    def agents_of_attempt(self) -> list[AgentState]:
        """Return the agents that are at the ordered attempt."""
        return [agent for agent in self.agents.values() if agent.attempt == self.order.attempt]

    def agents_with_ranks(self) -> list[AgentState]:
        """Return the agents that were ordered to run at least one rank."""
        return [agent for agent in self.agents.values() if self._rank_count(agent.name) > 0]

    def ordered_agents(self) -> list[AgentState]:
        """Return the agents that the order names, not those of an earlier job."""
        return [agent for agent in self.agents.values() if agent.name in self.order.ranks]

    def exits(self) -> list[RankExit]:
        """Return the ended ranks of the ordered attempt."""
        return [found for agent in self.agents_of_attempt() for found in agent.exits]

    def nodes_of(self, rank: int) -> tuple[str, ...]:
        """Return the node of a rank as a tuple, which is empty where the rank is not placed."""
        return tuple(self._nodes_of(rank))

    def _nodes_of(self, rank: int) -> Iterator[str]:
        for node, (first, count) in self.order.ranks.items():
            if first <= rank < first + count:
                yield node

    def _rank_count(self, node: str) -> int:
        _, count = self.order.ranks.get(node, (0, 0))
        return count


def new_run_state(layout: RankLayout, can_move: bool) -> RunState:
    """Return the state of a run before its first attempt."""
    return RunState(
        layout=layout,
        can_move=can_move,
        world=layout.world,
        order=Order(0, "stop"),
        ranks=RankTable(0.0, layout.world),
    )
