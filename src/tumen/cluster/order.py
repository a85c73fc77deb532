"""What the watcher tells the agents to do, and the files by which they and people meet in a job's folder.

secret                 32 bytes, for its owner alone                watcher      host:port of the watcher, while it is wanted
watch.jsonl            what it saw and decided                      resize.json    {ranks: n}: how many ranks somebody wants
ranks/NODE/agent.json  {pid, attempt, ranks: {rank: pid}}           ranks/NODE/ATTEMPT/RANK.log   what a rank printed
faults/RANK-ATTEMPT.json   {kind, why, step, rank}: why a rank ended itself          start   which start of the job holds the run
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verb = Literal["run", "stop", "save-and-stop", "end"]
SECRET_FILE, WATCHER_FILE, WATCH_FILE, RESIZE_FILE = (
    "secret",
    "watcher",
    "watch.jsonl",
    "resize.json",
)
RANKS, FAULTS, AGENT_FILE = "ranks", "faults", "agent.json"


@dataclass(frozen=True)
class Order:
    """An order for every node. `ranks` gives each node its first rank and how many; a node that is not in it has none.

    run: be at `attempt`, with `world` ranks that meet at `master`. stop: kill the ranks (SIGKILL, so also stopped ones) and wait.
    save-and-stop: ask them (SIGTERM) for a checkpoint and to end. end: kill what is left and exit with `code`.
    """

    attempt: int
    verb: Verb = "run"
    world: int = 0
    master: str = ""
    ranks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    code: int = 0

    def part(self, node: str) -> dict[str, Any]:
        """What a node is told."""
        said: dict[str, Any] = {
            "verb": self.verb,
            "attempt": self.attempt,
            "world": self.world,
            "master": self.master,
        }
        return said | {"ranks": list(self.ranks.get(node, (0, 0))), "code": self.code}
