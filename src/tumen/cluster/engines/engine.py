"""The boundary to whatever starts processes: `Engine` with five verbs.

A backend is pure functions, `render(job) -> text` (what is submitted) and `parse(text) ->
JobStatus` (what the engine says), and one thin call of the engine's own tools. All else (progress,
resuming, recovery) is written once against `Engine`.

The id of a job is its folder, which outlives every process. job_files.py lists the files in it.
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

# silent: the engine itself does not answer now, so nothing is known of the job.
JobState = Literal["waiting", "running", "silent", "done", "failed", "cancelled", "lost"]
ENDED = ("done", "failed", "cancelled", "lost")


@dataclass(frozen=True)
class JobSpec:
    """What an engine starts: a command that finds torchrun's variables in its environment.

    Attributes:
        name: for people and the engine.
        command: of a rank.
        folder: of the job.
        environment: variables of all ranks.
        nodes: number of nodes.
        ranks_per_node: number of ranks on each of them.
        accelerators_per_node: 0 where ranks compute on the CPU.
        exclusive: whether it takes whole nodes.
        limit_seconds: time limit, None for the engine's own.
        grace_seconds: so long before the limit, ranks get SIGTERM.
        avoid: nodes that it must not use.
        python: interpreter of the nodes, which runs their agents.
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
    """What an engine says of a job.

    Attributes:
        state: see `JobState`.
        exit_code: None until it ended, or where the engine does not know it.
        reason: why it waits or ended, or where it runs.
    """

    state: JobState
    exit_code: int | None = None
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state in ENDED


@dataclass(frozen=True)
class Node:
    """One machine of an engine.

    Attributes:
        name: as the engine calls it.
        accelerators: that it has.
        ready: whether it takes work.
        reason: why it does not.
    """

    name: str
    accelerators: int
    ready: bool = True
    reason: str = ""


class Engine(Protocol):
    """Starts jobs and says how they are. The id of a job is its folder, as text."""

    def submit(self, job: JobSpec) -> str:
        """Start a job; returns its id.

        Raises:
            EngineError: the engine refuses, and nothing was started.
        """
        ...

    def status(self, job_id: str) -> JobStatus:
        """Return the status of a job. An unknown id is not an error: that job is `lost`."""
        ...

    def logs(self, job_id: str) -> str:
        """Return everything that the job has printed so far."""
        ...

    def cancel(self, job_id: str) -> None:
        """Stop a job and everything that it started."""
        ...

    def nodes(self) -> list[Node]:
        """Return the machines."""
        ...


@runtime_checkable
class ClusterEngine(Engine, Protocol):
    """An engine of many machines.

    Jobs outlive the process that started them, and nodes can be left out.
    """

    def drain(self, node: str, why: str) -> None:
        """Give a node no new work; what runs on it continues.

        Raises:
            EngineError: the engine does not permit it.
        """
        ...


ENGINES = {
    "local": "tumen.cluster.engines.local:LocalEngine",
    "slurm": "tumen.cluster.engines.slurm:SlurmEngine",
    "kubernetes": "tumen.cluster.engines.kubernetes:KubernetesEngine",
}


def connect(name: str, fleet: Fleet | None = None) -> Engine:
    """Return the engine that a recipe names.

    Args:
        name: one of `ENGINES`, or `"package.module:Class"`.
        fleet: section of the recipe; the engine gets its own part of it.

    Raises:
        EngineError: there is no such engine.
    """
    kind = named(name, ENGINES, "fleet.engine", EngineError)
    # A class from elsewhere has no section in the recipe.
    section = getattr(fleet, name, None) if name in ENGINES else None
    engine: Engine = kind() if section is None else kind(section)
    return engine


def render_job(engine: Engine, job: JobSpec) -> str:
    """Return what an engine would be given for a job; nothing is started.

    Args:
        engine: that would start the job.
        job: what to start.

    Raises:
        EngineError: the engine cannot show it, or the job cannot run on it.
    """
    if not hasattr(engine, "render"):
        raise EngineError(
            f"{type(engine).__name__} has no render(job): it cannot show what it would submit"
        )
    return str(engine.render(job))


def supports_standby(job: JobSpec) -> bool:
    """Whether a job's command can import everything and then wait for its environment.

    `tumen train` can.
    """
    return job.command[1:4] == ("-m", "tumen", "train")


def write_submission(job: JobSpec, file: str, text: str) -> Path:
    """Write what is submitted into the job's folder; returns the path of the file.

    What an earlier job left in the folder is removed, and a secret is made.

    Args:
        job: that is submitted.
        file: name of the file.
        text: what the engine is given.

    Raises:
        DiskError: the folder cannot be written.
    """
    folder = job.folder.resolve()
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # What an earlier job left would be taken for this one's.
        for old in ("exit", "id", fencing.EPOCH_FILE, RESIZE_FILE):
            (folder / old).unlink(missing_ok=True)
        messages.make_secret(folder / SECRET_FILE)
        write_text(folder / file, text)
    return folder / file


def parse_exit(text: str) -> JobStatus:
    """Return the status of a job by the text of its `exit` file."""
    word = text.strip()
    if word.isdigit():
        return JobStatus("done" if int(word) == 0 else "failed", int(word))
    if word == "cancelled":
        return JobStatus("cancelled")
    return JobStatus("lost", reason=f"its exit file contains {word[:40]!r}")


def read_or_empty(folder: Path, file: str) -> str:
    """Return the text of a file of a job's folder, "" where there is none.

    Args:
        folder: of the job.
        file: name of the file.
    """
    try:
        return (folder / file).read_text("utf-8", errors="replace")
    except OSError:
        return ""
