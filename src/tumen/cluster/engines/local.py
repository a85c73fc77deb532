"""The local engine: processes of this machine. A job is a shell script in its folder; it dies with the process that started it.

job.sh    what runs          pid   process group and its start time, so that a reused pid is not mistaken for the job
log       what it printed    exit  its exit code, or `cancelled`, written when it ends
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from tumen.cluster.engines.engine import (
    JobSpec,
    JobStatus,
    Node,
    ended,
    prepared,
    said_in,
    stands_by,
)
from tumen.core import lifetime
from tumen.core.artifact import write_text
from tumen.core.errors import disk

# oneDNN compiles a kernel for each matmul shape and forgets all but 1,024 of them; a mixture of experts has more. Twice the
# speed of a step, but only when it is set before torch is loaded (docs/log.md, 2026-11-22).
# OpenMP's threads wait by spinning: on a machine that is not all ours a step took up to 16 times longer. Sleeping at once costs
# half the speed of a machine that is; spinning briefly keeps both within a quarter (docs/log.md, 2026-11-22).
DEFAULTS = {
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "20000",
    "GOMP_SPINCOUNT": "10000",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}
GRACE_SECONDS = 5.0
SHELL = "TUMEN_JOB_SHELL"  # pid of the job's shell, for `die_with_parent`


def render(job: JobSpec) -> str:
    """The script of a job. One process: torchrun's variables are set by hand; several get theirs from an agent."""
    alone = (
        {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        if is_alone(job)
        else {}
    )
    variables = {**DEFAULTS, **alone, **job.environment}
    lines = [
        "#!/bin/sh",
        f"# {job.name}: written by tumen's local engine; run it by hand to see it fail",
    ]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    lines += [
        f"export {SHELL}=$$",
        "trap : TERM  # the command is told to stop; this shell stays to write how it ended",
    ]
    lines += [shlex.join(launched(job)), "code=$?"]
    exit_file = shlex.quote(str(job.folder / "exit"))
    return "\n".join(
        [
            *lines,
            f"echo $code > {exit_file}.part && mv {exit_file}.part {exit_file}",
            "exit $code",
            "",
        ]
    )


def is_alone(job: JobSpec) -> bool:
    """Whether a job is one process, which needs no agent."""
    return job.ranks_per_node * job.nodes == 1


def launched(job: JobSpec) -> tuple[str, ...]:
    """The command; under agents when it is to run as several ranks. Nodes are all this machine."""
    if is_alone(job):
        return job.command
    where = (
        "--folder",
        str(job.folder),
        "--nodes",
        str(job.nodes),
        "--ranks-per-node",
        str(job.ranks_per_node),
    )
    standby = ("--standby",) if stands_by(job) else ()
    return (sys.executable, "-m", "tumen.cluster.agents", *where, *standby, "--", *job.command)


def parse(exit_text: str | None, alive: bool) -> JobStatus:
    """Status from the exit file's text (None when there is none) and whether the process lives."""
    if exit_text and (status := ended(exit_text)).state != "lost":
        return status
    return (
        JobStatus("running")
        if alive
        else JobStatus(
            "lost", reason="it ended without an exit code: killed, or the machine restarted"
        )
    )


class LocalEngine:
    """`Engine` on this machine; a job's id is its folder."""

    def __init__(self) -> None:
        self._children: dict[Path, subprocess.Popen[bytes]] = {}

    render = staticmethod(render)

    def submit(self, job: JobSpec) -> str:
        folder = prepared(job, "job.sh", render(job)).parent
        with disk(folder):
            with open(folder / "log", "ab") as log:
                process = self._children[folder] = subprocess.Popen(
                    ["/bin/sh", str(folder / "job.sh")],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            write_text(folder / "pid", f"{process.pid} {_started(process.pid)}")
        return str(folder)

    def status(self, job_id: str) -> JobStatus:
        folder = Path(job_id)
        alive = (
            self._pid(folder) is not None
        )  # asked first: a job that ends in between has written its exit code
        if not (folder / "exit").exists():
            return parse(None, alive)
        if child := self._children.pop(folder, None):
            child.wait()  # its last line was to write this file
        return parse((folder / "exit").read_text(), alive)

    def logs(self, job_id: str) -> str:
        return said_in(Path(job_id), "log")

    def cancel(self, job_id: str) -> None:
        folder = Path(job_id)
        pid = self._pid(folder)
        if pid is None:
            return
        for blow in (signal.SIGTERM, signal.SIGKILL):
            _strike(pid, blow)
            deadline = time.monotonic() + GRACE_SECONDS
            while self._pid(folder) is not None and time.monotonic() < deadline:
                time.sleep(0.02)
        write_text(folder / "exit", "cancelled\n")

    def nodes(self) -> list[Node]:
        return [Node(os.uname().nodename, accelerators=1)]

    def _pid(self, folder: Path) -> int | None:
        """The job's process group if it is alive and really the job."""
        try:
            pid_text, started = (folder / "pid").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        pid = int(pid_text)
        if folder in self._children:
            self._children[folder].poll()
        return pid if _started(pid) == started else None


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot, "" when there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _strike(group: int, blow: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # nobody is left
        os.killpg(group, blow)


def die_with_parent() -> None:
    """End this process when its starter dies. The job's shell and its command both ask for it (core/lifetime.py)."""
    lifetime.die_with_parent()
    shell = os.environ.get(SHELL)
    if shell and not _started(int(shell)):
        os.kill(os.getpid(), signal.SIGKILL)  # it died before we asked; nobody waits for us
