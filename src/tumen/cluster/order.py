"""`Order`: what the watcher wants all agents to do.

It says which state to reach, not which step to take, so it may be lost or sent twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verb = Literal["run", "stop", "save-and-stop", "end"]


@dataclass(frozen=True)
class Order:
    """An order for every node.

    run: be at `attempt`, with `world` ranks that meet at `master`. stop: kill the ranks (SIGKILL,
    which also reaches stopped ones) and wait. save-and-stop: send SIGTERM, so that ranks write a
    checkpoint and end. end: kill what is left and exit with `code`.

    Attributes:
        attempt: number of the attempt; it only grows.
        verb: what to do.
        world: number of ranks.
        master: host:port where ranks meet.
        ranks: node -> its first rank and how many; a node that is not in it has none.
        code: exit code of the agents, with "end".
    """

    attempt: int
    verb: Verb = "run"
    world: int = 0
    master: str = ""
    ranks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    code: int = 0

    def part(self, node: str) -> dict[str, Any]:
        """Return the part of one node, as it is sent."""
        # Lists, not tuples: it is sent as JSON.
        return {
            "verb": self.verb,
            "attempt": self.attempt,
            "world": self.world,
            "master": self.master,
            "ranks": list(self.ranks.get(node, (0, 0))),
            "code": self.code,
        }
