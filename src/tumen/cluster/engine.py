"""The boundary to whatever starts processes: five verbs, and one text each way.

A backend is two pure functions, `render(job) -> text` (what is submitted) and `parse(text) -> Status` (what the engine says), plus
one thin call. Everything else (progress, resuming, healing) is written once against `Engine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from tumen.core import EngineError, named

State = Literal["waiting", "running", "done", "failed", "cancelled", "lost"]


@dataclass(frozen=True)
class Job:
    """What an engine starts: a command that finds torchrun's variables in its environment.

    `folder` takes the rendered text and the logs; `processes` is the number of ranks on each node.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    nodes: int = 1
    processes: int = 1


@dataclass(frozen=True)
class Status:
    """What an engine knows of a job. `exit_code` is None until it ended."""

    state: State
    exit_code: int | None = None
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state in ("done", "failed", "cancelled", "lost")


@dataclass(frozen=True)
class Node:
    """One machine of the engine: its cards and whether it takes work."""

    name: str
    cards: int
    ready: bool = True
    reason: str = ""


class Engine(Protocol):
    """Starts processes and says how they are. A job's id is a text that survives this process."""

    def submit(self, job: Job) -> str:
        """Start a job; returns its id. Raises EngineError when the engine refuses."""
        ...

    def status(self, job_id: str) -> Status:
        """How a job is. Never raises for an unknown id: that job is `lost`."""
        ...

    def logs(self, job_id: str) -> str:
        """Everything the job printed so far."""
        ...

    def cancel(self, job_id: str) -> None:
        """Stop a job and everything it started."""
        ...

    def nodes(self) -> list[Node]:
        """The machines."""
        ...


ENGINES = {"local": "tumen.cluster.local:Local"}


def connect(name: str) -> Engine:
    """The engine a recipe names: one of `ENGINES` or `"package.module:Class"`.

    Raises:
        EngineError: no such engine.
    """
    engine: Engine = named(name, ENGINES, "fleet.engine", EngineError)()
    return engine
