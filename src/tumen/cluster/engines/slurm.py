"""The Slurm engine: submits an sbatch script, and reads what `scontrol` and `sinfo` say.

What Slurm says is read from its line formats, not from `--json`: those have been the same for many
releases, while scontrol does not print JSON before 23.02, squeue ignores `--jobs` with it in 22.05,
and states became a list in 23.11.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tumen.cluster.engines.engine import (
    JobSpec,
    JobState,
    JobStatus,
    Node,
    parse_exit,
    read_or_empty,
    write_submission,
)
from tumen.cluster.engines.slurm_script import render
from tumen.core.artifact import write_text
from tumen.core.errors import DiskError, EngineError, disk
from tumen.recipe import fleet_section

CALL_SECONDS = 60.0  # the longest that slurmctld may take to answer

# slurm.schedmd.com/job_state_codes.html. A state that is not listed is "running".
STATES: dict[str, JobState] = {
    "PENDING": "waiting",
    "CONFIGURING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_HOLD": "waiting",
    "SPECIAL_EXIT": "waiting",
    "RESV_DEL_HOLD": "waiting",
    "SUSPENDED": "waiting",
    "COMPLETED": "done",
    "CANCELLED": "cancelled",
    "BOOT_FAIL": "failed",
    "DEADLINE": "failed",
    "FAILED": "failed",
    "NODE_FAIL": "failed",
    "OUT_OF_MEMORY": "failed",
    "PREEMPTED": "failed",
    "TIMEOUT": "failed",
    "REVOKED": "lost",
}
ORDINARY_ENDS = ("COMPLETED", "FAILED")  # they need no reason beside the exit code
READY_STATES = ("idle", "mixed", "allocated", "completing", "planned", "reserved")
NODE_FORMAT = "%N|%T|%G|%E"  # of sinfo: name, state, gres, reason
ACCOUNTING = ("--parsable2", "--noheader", "--allocations", "--format=State,ExitCode")


def parse(text: str) -> JobStatus:
    """Return the status of a job.

    Args:
        text: of `scontrol show job ID --oneliner`.
    """
    fields = dict(re.findall(r"(?:^|\s)(JobState|Reason|ExitCode|Restarts|NodeList)=(\S+)", text))
    if "JobState" not in fields:
        return JobStatus("lost", reason="slurm knows no such job")
    name = fields["JobState"].split("+")[0]  # COMPLETING and others may follow
    state = STATES.get(name, "running")
    if state in ("done", "failed"):
        code = _exit_code(fields.get("ExitCode", "0:0"), state)
        reason = "" if name in ORDINARY_ENDS else name
        return JobStatus(state, code, reason)
    return JobStatus(state, reason=_details(state, fields))


def _details(state: JobState, fields: Mapping[str, str]) -> str:
    """Return why a job waits, or where it runs, and how often it was restarted.

    Args:
        state: of the job, which has not ended.
        fields: of `scontrol show job`.
    """
    details = []
    if state == "waiting" and fields.get("Reason", "None") != "None":
        details.append(fields["Reason"])
    if state == "running" and fields.get("NodeList"):
        details.append(fields["NodeList"])
    restarts = int(fields.get("Restarts", "0"))
    if restarts:
        details.append(f"restarted {restarts} times")
    return ", ".join(details)


def _exit_code(text: str, state: JobState) -> int:
    """Return the exit code of `CODE:SIGNAL`; a job that failed has one above 0.

    Args:
        text: the field ExitCode.
        state: of the job, which has ended.
    """
    code, _, signal = text.partition(":")
    if int(code):
        return int(code)
    if signal not in ("", "0"):
        return 128 + int(signal)
    return 1 if state == "failed" else 0


def parse_accounting(text: str) -> JobStatus | None:
    """Return the status of a job, None where the accounting has no such job.

    Args:
        text: of sacct with the options ACCOUNTING.
    """
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 1]
    if not rows:
        return None
    state, code = rows[-1]  # a requeued job has a row for each start
    if not state:
        return None
    return parse(f"JobState={state.split()[0]} ExitCode={code}")


def parse_nodes(text: str) -> list[Node]:
    """Return the nodes from `sinfo --noheader --Node --format=` NODE_FORMAT.

    A node of several partitions has a line for each.
    """
    nodes = {}
    for line in text.splitlines():
        if line.count("|") >= 3:
            node = _parse_node(line)
            nodes[node.name] = node
    return list(nodes.values())


def _parse_node(line: str) -> Node:
    """Return the node of a line in NODE_FORMAT."""
    name, state, gres, reason = line.split("|", 3)
    # gpu:8, or gpu:h100:8 with the kind of the GPU
    counts = re.findall(r"(?:^|,)gpu(?::[^:,(]+)?:(\d+)", gres)
    accelerators = sum(int(count) for count in counts)
    answers = not state.endswith("*")
    # The other signs say what a node does beside: powering up, booting, reserved, ...
    plain_state = state.rstrip("*~#!%$@^-+")
    if answers and plain_state in READY_STATES:
        return Node(name, accelerators)
    why = state
    if reason not in ("", "none", "(null)"):
        why = f"{state}: {reason}"
    return Node(name, accelerators, False, why)


class SlurmEngine:
    """`Engine` on a Slurm cluster.

    Its commands are on the path, and its nodes see the run's folder.

    Args:
        site: section `fleet.slurm` of a recipe.
    """

    def __init__(self, site: fleet_section.Slurm | None = None) -> None:
        self.site = site or fleet_section.Slurm()

    def render(self, job: JobSpec) -> str:
        """Return the batch script."""
        return render(job, self.site)

    def submit(self, job: JobSpec) -> str:
        """Submit a job; returns its id, see `Engine`."""
        # Slurm would accept it, and let it wait for ever.
        self._reject_too_large(job)
        script = write_submission(job, "job.sh", self.render(job))
        answer = call("sbatch", "--parsable", str(script), about=f"slurm refused {job.name}")
        number = answer.split(";")[0].strip()  # the cluster's name may follow
        if not number.isdigit():
            raise EngineError(
                f"slurm accepted {job.name} but gave no number: {number[:80]!r}; "
                "`squeue --me` shows whether it is there"
            )
        try:
            with disk(script.parent):
                write_text(script.parent / "id", number + "\n")
        except DiskError:
            call("scancel", number, may_fail=True)  # without its id nobody would find it again
            raise
        return str(script.parent)

    def status(self, job_id: str) -> JobStatus:
        """Return the status of a job, see `Engine`."""
        folder = Path(job_id)
        number = read_or_empty(folder, "id").strip()
        if not number.isdigit():
            return JobStatus("lost", reason=f"{folder} has no job of slurm")
        command = ("scontrol", "show", "job", number, "--oneliner")
        try:
            status = parse(call(*command, about="slurm does not answer"))
        except EngineError as error:
            if "Invalid job id" not in str(error):
                return JobStatus("silent", reason=str(error))
            status = parse("")
        # Lost: slurmctld does not know it (any more).
        if status.state != "lost":
            return status
        # Slurm forgets a job some minutes after its end; its folder and the accounting do not.
        exit_text = read_or_empty(folder, "exit")
        if exit_text:
            return parse_exit(exit_text)
        accounted = call("sacct", "--jobs", number, *ACCOUNTING, may_fail=True)
        return parse_accounting(accounted) or status

    def logs(self, job_id: str) -> str:
        """Return what a job printed."""
        return read_or_empty(Path(job_id), "log")

    def cancel(self, job_id: str) -> None:
        """Stop a job and everything it started, see `Engine`."""
        number = read_or_empty(Path(job_id), "id").strip()
        if not number.isdigit() or self.status(job_id).ended:
            return
        call("scancel", number, about=f"slurm does not cancel job {number}")
        with disk(Path(job_id)):
            write_text(Path(job_id) / "exit", "cancelled\n")

    def nodes(self) -> list[Node]:
        """Return the nodes of the partition, or of the cluster."""
        command = ["sinfo", "--noheader", "--Node", f"--format={NODE_FORMAT}"]
        if self.site.partition:
            command += ["--partition", self.site.partition]
        return parse_nodes(call(*command, about="slurm does not answer"))

    def drain(self, node: str, why: str) -> None:
        """Give a node no new work; what runs on it continues. Needs an operator's rights."""
        command = ("scontrol", "update", f"nodename={node}", "state=drain", f"reason={why}")
        call(*command, about=f"slurm does not drain {node}")

    def requeue(self, job_id: str) -> None:
        """Stop a job and put it back into the queue, under its own number and with its own log."""
        number = read_or_empty(Path(job_id), "id").strip()
        call("scontrol", "requeue", number, about=f"slurm does not requeue job {number or job_id}")

    def _reject_too_large(self, job: JobSpec) -> None:
        """Reject a job that Slurm would let wait for ever: more nodes than there are.

        Raises:
            EngineError: how many there are.
        """
        place = f"partition {self.site.partition}" if self.site.partition else "the cluster"
        nodes = [node for node in self.nodes() if node.name not in job.avoid]
        if self.site.partition and not nodes and not job.avoid:
            raise EngineError(
                f"slurm has no {place}, or it is empty; it has {', '.join(_partitions())}: "
                "set fleet.slurm.partition"
            )
        if len(nodes) < job.nodes:
            raise EngineError(
                f"{job.name} asks for {job.nodes} nodes, "
                f"{place} has {len(nodes)} besides those it avoids"
            )


def _partitions() -> list[str]:
    """Return the names of the cluster's partitions."""
    listed = call("sinfo", "--noheader", "--format=%R", about="slurm does not answer")
    return sorted(set(listed.split()))


def call(*command: str, about: str = "", may_fail: bool = False) -> str:
    """Return what a command of Slurm prints.

    Args:
        command: with its arguments.
        about: what failed, for the message.
        may_fail: return "" where the command fails.

    Raises:
        EngineError: it is not installed, does not answer, or failed, in Slurm's own words.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CALL_SECONDS, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise EngineError(
            f"{command[0]} is not on the path; run this on a login node of the Slurm cluster"
        ) from None
    except subprocess.TimeoutExpired:
        raise EngineError(
            f"{command[0]} did not answer for {CALL_SECONDS:.0f} s; is slurmctld up? "
            "`scontrol ping` shows that"
        ) from None
    if done.returncode == 0:
        return done.stdout
    if may_fail:
        return ""
    raise EngineError(f"{about}: {complaint(done.stderr or done.stdout)}")


def complaint(text: str) -> str:
    """Return Slurm's complaint as one line.

    Its last line says what failed, the one before may say which.
    """
    lines = []
    for line in text.splitlines():
        if line.strip():
            line = re.sub(r"^\w+: (?:(?:error|fatal): )?", "", line).strip()
            lines.append(re.sub(r"^Batch job submission failed: ", "", line))
    return "; ".join(reversed(lines[-2:])) or "it gave no reason"
