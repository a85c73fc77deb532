"""The options of an agent, as engines write them on its command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class AgentOptions:
    """Options of an agent: `--folder`, `--node`, ... and at the end `-- COMMAND`.

    Attributes:
        folder: of the job.
        command: what each rank runs.
        node: name of this node.
        nodes: number of nodes of the job.
        node_rank: place of this node among them.
        ranks_per_node: number of ranks that it starts.
        master: host:port where ranks meet when there is no watcher. One node does not need it;
            several without it wait for a watcher.
        address: name under which other nodes reach this one.
        attempt: number of the first attempt.
        epoch: of the job (core/fencing.py).
        standby: whether the command takes --standby, and then waits on its standard input for one
            line of JSON, its environment.
    """

    folder: Path
    command: tuple[str, ...]
    node: str = "local"
    nodes: int = 1
    node_rank: int = 0
    ranks_per_node: int = 1
    master: str = ""
    address: str = "127.0.0.1"
    attempt: int = 1
    epoch: str = ""
    standby: bool = False


def parse_options(arguments: Sequence[str]) -> AgentOptions:
    """Return the options of a command line: one for each field, then -- and the command.

    Raises:
        SystemExit: an option is missing or unknown, as argparse does.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tumen.cluster.agents", description="Run the ranks of one node."
    )
    # A field's annotation is a text here (`from __future__ import annotations`).
    kinds = {"Path": Path, "int": int}
    for field in fields(AgentOptions):
        if field.name == "command":
            continue
        option = "--" + field.name.replace("_", "-")
        if field.type == "bool":
            parser.add_argument(option, action="store_true")
            continue
        parser.add_argument(
            option,
            type=kinds.get(str(field.type), str),
            required=field.default is MISSING,
            default=field.default,
        )
    parser.add_argument("command", nargs="+", help="after --: what each rank runs")
    given = vars(parser.parse_args(arguments))
    return AgentOptions(**{**given, "command": tuple(given["command"])})
