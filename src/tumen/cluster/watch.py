"""See every fault, decide, act, write it down: `Watch` is a pure state machine, `watching` the loop with sockets around it.

    ranks --beats--> agent --reports--> watcher --order, as the reply--> agent
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tumen.cluster.engine import Engine, Job, Node, Status
from tumen.cluster.order import Order
from tumen.core.pulse import Message

Kind = Literal["crash", "agent", "freeze", "collective", "slow", "nan", "spike", "disk", "checkpoint", "node", "engine", "skew"]
Action = Literal["restart", "resubmit", "drain", "wait", "give_up", "resize"]


@dataclass(frozen=True)
class Layout:
    """What runs where at first: `world` ranks, `each` on a node."""

    nodes: int
    each: int

    @property
    def world(self) -> int:
        """All ranks."""
        return self.nodes * self.each


class Watch:
    """What the watcher knows of a run and what follows from it. No clock, no socket, no file: `now` is seconds since 1970.

    Rows that `hear`, `tell` and `look` return are written to watch.jsonl by the caller, in order; `resume` takes them back.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.order = Order(0, "stop")

    def hear(self, now: float, reports: Sequence[Message]) -> list[dict[str, Any]]:
        """Take reports of agents. Returns rows."""
        raise NotImplementedError

    def tell(
        self, now: float, status: Status | None = None, nodes: Sequence[Node] | None = None, ranks: int | None = None
    ) -> list[dict[str, Any]]:
        """Take what the engine says of the job and its nodes, and how many ranks somebody wishes. Returns rows."""
        raise NotImplementedError

    def look(self, now: float) -> list[dict[str, Any]]:
        """Let time pass: find what is silent, slow or stuck, and decide. Returns rows."""
        raise NotImplementedError

    def resume(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Go on from the rows of watch.jsonl."""
        raise NotImplementedError


def watching(
    engine: Engine,
    job: Job,
    address: str = "127.0.0.1",
    events: Path | None = None,
    tell: Callable[[dict[str, Any]], None] = lambda row: None,
) -> int:
    """Watch a job until it ends; returns its exit code. One process a job (a lock in its folder).

    Args:
        address: where agents send their reports; loopback unless the nodes are other machines.
        events: the run's events.jsonl, where training says that it passed over a damaged checkpoint.
        tell: called with every row that is written to watch.jsonl.
    """
    raise NotImplementedError
