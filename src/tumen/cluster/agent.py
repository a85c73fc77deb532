"""`python -m tumen.cluster.agent ... -- COMMAND`: starts the ranks of one node, says how they are, and does what it is told.

Without a watcher (no file `watcher` in the job's folder) it is what torchrun is without restarts: the first rank that fails ends
all, with its exit code. With one, a dead rank is told and an order awaited. Ranks get torchrun's variables, and
TUMEN_PULSE (this agent), TUMEN_SECRET, TUMEN_ATTEMPT, TUMEN_WORLD, TUMEN_NODE, TUMEN_JOB (the job's folder) and TUMEN_KEEPER
(where the neighbour keeps copies, when there is one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Post:
    """What an agent is told at its start; on the command line --folder, --node, ... in this order, then -- COMMAND.

    `master` is where ranks meet when there is no watcher. `address` is the name under which other nodes reach this one.
    `standby`: the command takes --standby, and then waits on its input for one line of JSON, its environment.
    """

    folder: Path
    command: tuple[str, ...]
    node: str = "local"
    nodes: int = 1
    node_rank: int = 0
    processes: int = 1
    master: str = "127.0.0.1:29500"
    address: str = "127.0.0.1"
    attempt: int = 0
    standby: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a node's ranks; returns the exit code: 0, or that of the first rank that failed."""
    raise NotImplementedError
