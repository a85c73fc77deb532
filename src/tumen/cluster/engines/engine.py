"""The boundary to whatever starts processes: five verbs, and one text each way.

A backend is pure functions, `render(job) -> text` (what is submitted) and `parse(text) -> Status` (what the engine says), plus one
thin call. Everything else (progress, resuming, healing) is written once against `Engine`.

A job's id is its folder, which outlives every process. In it: `job.sh` or `job.yaml` (what was submitted), `id` (what the engine
calls it), `log` (what it printed), `exit` (its exit code, or `cancelled`); what its agents and its watcher leave: order.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from tumen.cluster.job_files import RESIZE_FILE, SECRET_FILE
from tumen.core import fencing
from tumen.core.artifact import write_text
from tumen.core.errors import EngineError, disk
from tumen.core.table import named
from tumen.heartbeat import messages
from tumen.recipe import Fleet

State = Literal["waiting", "running", "silent", "done", "failed", "cancelled", "lost"]


@dataclass(frozen=True)
class JobSpec:
    """What an engine starts: a command that finds torchrun's variables in its environment.

    With `accelerators_per_node` 0 ranks compute on the CPU; `exclusive` takes whole nodes. `grace_seconds` before
    `limit_seconds` are over, the ranks get SIGTERM. `avoid` names nodes to leave out. `python` is the interpreter of the nodes.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    nodes: int = 1
    ranks_per_node: int = 1
    accelerators_per_node: int = 0
    exclusive: bool = True
    limit_seconds: float | None = None
    grace_seconds: float = 300.0
    avoid: tuple[str, ...] = ()
    python: str = sys.executable


@dataclass(frozen=True)
class JobStatus:
    """What an engine knows of a job. `exit_code` is None until it ended; `silent`: the engine itself does not answer now."""

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
    accelerators: int
    ready: bool = True
    reason: str = ""


class Engine(Protocol):
    """Starts processes and says how they are. A job's id is its folder, as text."""

    def submit(self, job: JobSpec) -> str:
        """Start a job; returns its id. Raises EngineError when the engine refuses; then nothing was started."""
        ...

    def status(self, job_id: str) -> JobStatus:
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


@runtime_checkable
class ClusterEngine(Engine, Protocol):
    """An engine of many machines: its jobs outlive the process that started them, and a node can be left out."""

    def drain(self, node: str, why: str) -> None:
        """Give a node no new work; what runs on it goes on. Raises EngineError when it may not be done."""
        ...


ENGINES = {
    "local": "tumen.cluster.engines.local:LocalEngine",
    "slurm": "tumen.cluster.engines.slurm:SlurmEngine",
    "kubernetes": "tumen.cluster.engines.kubernetes:KubernetesEngine",
}


def connect(name: str, fleet: Fleet | None = None) -> Engine:
    """The engine a recipe names: one of `ENGINES` or `"package.module:Class"`; it gets its own section of `fleet`.

    Raises:
        EngineError: no such engine.
    """
    kind = named(name, ENGINES, "fleet.engine", EngineError)
    section = getattr(fleet, name, None) if name in ENGINES else None
    engine: Engine = kind(section) if section is not None else kind()
    return engine


def render_job(engine: Engine, job: JobSpec) -> str:
    """What an engine would be given for a job, nothing is started.

    Raises:
        EngineError: the engine cannot say, or the job cannot run on it.
    """
    if not hasattr(engine, "render"):
        raise EngineError(
            f"{type(engine).__name__} has no render(job): it cannot show what it would submit"
        )
    return str(engine.render(job))


def stands_by(job: JobSpec) -> bool:
    """Whether a job's command can import everything and then wait to be told who it is: `tumen train` can."""
    return job.command[1:4] == ("-m", "tumen", "train")


def prepared(job: JobSpec, file: str, text: str) -> Path:
    """Write what will be submitted into the job's folder, emptied of what an earlier job said; returns the file.

    Raises:
        DiskError: the folder cannot be written; nothing was submitted.
    """
    folder = job.folder.resolve()
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in ("exit", "id", fencing.EPOCH_FILE, RESIZE_FILE):
            (folder / old).unlink(missing_ok=True)
        messages.make_secret(folder / SECRET_FILE)
        write_text(folder / file, text)
    return folder / file


def ended(exit_text: str) -> JobStatus:
    """Status from the text of a job's `exit` file."""
    said = exit_text.strip()
    if said.isdigit():
        return JobStatus("done" if int(said) == 0 else "failed", int(said))
    return (
        JobStatus("cancelled")
        if said == "cancelled"
        else JobStatus("lost", reason=f"its exit file says {said[:40]!r}")
    )


def said_in(folder: Path, file: str) -> str:
    """Text of a file of a job's folder, "" when there is none."""
    try:
        return (folder / file).read_text("utf-8", errors="replace")
    except OSError:
        return ""
