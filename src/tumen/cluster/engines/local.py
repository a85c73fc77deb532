"""The local engine: processes of this machine.

A job is a shell script in its folder, and ends with the process that started it. The file `pid`
has the process group and its start time, so that another process with the same id is not mistaken
for the job.
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
    parse_exit,
    read_or_empty,
    supports_standby,
    write_submission,
)
from tumen.core import lifetime
from tumen.core.artifact import write_text
from tumen.core.errors import disk

# oneDNN compiles a kernel for each matmul shape and forgets all but 1,024 of them; a mixture of
# experts has more. Twice the speed of a step, but only when it is set before torch is loaded
# (docs/log.md, 2026-11-22).
# OpenMP's threads wait by spinning: on a machine that is not all ours a step took up to 16 times
# longer. Sleeping at once costs half the speed of a machine that is; spinning briefly keeps both
# within a quarter (docs/log.md, 2026-11-22).
DEFAULTS = {
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "20000",
    "GOMP_SPINCOUNT": "10000",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}
SINGLE_RANK = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
GRACE_SECONDS = 5.0  # after SIGTERM, and after SIGKILL
SHELL_ENV = "TUMEN_JOB_SHELL"  # process id of the job's shell, for `die_with_parent`


def render(job: JobSpec) -> str:
    """Return the script of a job.

    A single rank gets torchrun's variables here, several get theirs from an agent.
    """
    of_rank = SINGLE_RANK if is_single(job) else {}
    variables = {**DEFAULTS, **of_rank, **job.environment}
    exit_file = shlex.quote(str(job.folder / "exit"))
    lines = [
        "#!/bin/sh",
        f"# {job.name}: written by tumen's local engine; run it by hand to see it fail",
    ]
    for name, value in sorted(variables.items()):
        lines.append(f"export {name}={shlex.quote(value)}")
    lines += [
        f"export {SHELL_ENV}=$$",
        "trap : TERM  # the command is told to stop; this shell stays to write how it ended",
        shlex.join(command_of(job)),
        "code=$?",
        f"echo $code > {exit_file}.part && mv {exit_file}.part {exit_file}",
        "exit $code",
        "",
    ]
    return "\n".join(lines)


def is_single(job: JobSpec) -> bool:
    """Whether a job is one process, which needs no agent."""
    return job.ranks_per_node * job.nodes == 1


def command_of(job: JobSpec) -> tuple[str, ...]:
    """Return the command of the script: that of a single rank, or agents which start several.

    All nodes are this machine.
    """
    if is_single(job):
        return job.command
    agents = [sys.executable, "-m", "tumen.cluster.agents", "--folder", str(job.folder)]
    agents += ["--nodes", str(job.nodes), "--ranks-per-node", str(job.ranks_per_node)]
    if supports_standby(job):
        agents.append("--standby")
    return (*agents, "--", *job.command)


def parse(exit_text: str | None, alive: bool) -> JobStatus:
    """Return the status of a job.

    Args:
        exit_text: of its exit file, None where there is none.
        alive: whether its process lives.
    """
    if exit_text:
        status = parse_exit(exit_text)
        if status.state != "lost":
            return status
    if alive:
        return JobStatus("running")
    reason = "it ended without an exit code: killed, or the machine restarted"
    return JobStatus("lost", reason=reason)


class LocalEngine:
    """`Engine` on this machine."""

    def __init__(self) -> None:
        self._children: dict[Path, subprocess.Popen[bytes]] = {}

    render = staticmethod(render)

    def submit(self, job: JobSpec) -> str:
        """Start a job; returns its id, see `Engine`."""
        folder = write_submission(job, "job.sh", render(job)).parent
        with disk(folder):
            with open(folder / "log", "ab") as log:
                process = subprocess.Popen(
                    ["/bin/sh", str(folder / "job.sh")],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            self._children[folder] = process
            write_text(folder / "pid", f"{process.pid} {_start_time(process.pid)}")
        return str(folder)

    def status(self, job_id: str) -> JobStatus:
        """Return the status of a job, see `Engine`."""
        folder = Path(job_id)
        # In this order: a job that ends in between has written its exit code.
        alive = self._pid(folder) is not None
        if not (folder / "exit").exists():
            return parse(None, alive)
        child = self._children.pop(folder, None)
        if child:
            child.wait()  # the last thing that it did was to write this file
        return parse((folder / "exit").read_text(), alive)

    def logs(self, job_id: str) -> str:
        """Return what a job printed."""
        return read_or_empty(Path(job_id), "log")

    def cancel(self, job_id: str) -> None:
        """Stop a job and everything it started, see `Engine`."""
        folder = Path(job_id)
        pid = self._pid(folder)
        if pid is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
            deadline = time.monotonic() + GRACE_SECONDS
            while self._pid(folder) is not None and time.monotonic() < deadline:
                time.sleep(0.02)
        write_text(folder / "exit", "cancelled\n")

    def nodes(self) -> list[Node]:
        """Return this machine."""
        return [Node(os.uname().nodename, accelerators=1)]

    def _pid(self, folder: Path) -> int | None:
        """Return the process group of a job, if it is alive and is really the job."""
        try:
            pid_text, start_time = (folder / "pid").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        pid = int(pid_text)
        if folder in self._children:
            self._children[folder].poll()
        return pid if _start_time(pid) == start_time else None


def _start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; "" where it is gone or a zombie."""
    fields = lifetime.stat_fields(pid)
    if not fields or fields[0] == "Z":
        return ""
    return fields[19]


def die_with_parent() -> None:
    """End this process when its starter dies (core/lifetime.py).

    The job's shell and its command both call it.
    """
    lifetime.die_with_parent()
    shell = os.environ.get(SHELL_ENV)
    if shell and not _start_time(int(shell)):
        # The shell died before this call, so the kernel will not tell.
        os.kill(os.getpid(), signal.SIGKILL)
