"""The Slurm engine: an sbatch script, and what `scontrol` and `sinfo` say. Placement, priority and quota stay Slurm's own.

What Slurm says is read from its line formats, not from `--json`: those have been the same for many releases, while JSON is not
printed by scontrol before 23.02, ignores `--jobs` in 22.05, and writes states as a text there and as a list since 23.11.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tumen.cluster.engines.engine import (
    JobSpec,
    JobStatus,
    Node,
    State,
    ended,
    prepared,
    said_in,
    stands_by,
)
from tumen.core.artifact import write_text
from tumen.core.errors import DiskError, EngineError, disk
from tumen.recipe import recipe

CALL_SECONDS = 60.0  # the longest that slurmctld may take to answer
DEFAULTS = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
NCCL = {  # a hang leaves a flight record of its collectives behind (pytorch.org/tutorials/unstable/flight_recorder_tutorial.html)
    "NCCL_DEBUG": "WARN",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
}

# Ranks follow Slurm's order of nodes, which follows the network's topology: each agent is told its place.
AGENT = """\
agent='export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((SLURM_CPUS_ON_NODE / ranks_per_node > 0 ? SLURM_CPUS_ON_NODE / ranks_per_node : 1))}
exec "$python" -m tumen.cluster.agents --folder "$folder" --epoch "$epoch" --attempt "$attempt" \\
  --node "$SLURMD_NODENAME" --address "$SLURMD_NODENAME" --nodes "$SLURM_JOB_NUM_NODES" --node-rank "$SLURM_NODEID" \\
  --ranks-per-node "$ranks_per_node" --master "$MASTER_ADDR:$MASTER_PORT" {options}-- "$@"'"""
START = """\
attempt=$((${SLURM_RESTART_COUNT:-0} + 1))
epoch=$SLURM_JOB_ID.$attempt  # fencing: agents of an older epoch, on a node that Slurm lost, read this and exit
echo "$epoch" > "$folder/epoch.part" && mv "$folder/epoch.part" "$folder/epoch"
echo "$SLURM_JOB_ID" > "$folder/id.part" && mv "$folder/id.part" "$folder/id"
rm -f "$folder/exit"
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export folder epoch attempt python ranks_per_node MASTER_ADDR MASTER_PORT
echo "tumen: job $SLURM_JOB_ID, start $attempt, on $SLURM_JOB_NODELIST" >&2
"""
STEP = """\
# An agent on each node. One that ends with a failure ends all; one that is killed comes back by itself while the run is watched.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=1 --wait=30 \\
  bash -c "$agent" agent "${command[@]}" &
step=$!
wait "$step"
while kill -0 "$step" 2> /dev/null; do wait "$step"; done  # a trap ends a wait early
wait "$step"
code=$?
"""
AGAIN = """\
again=no
trap 'again=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1  # time is nearly up: tell the ranks, then queue again
"""
LAST = """\
[ "$(cat "$folder/epoch")" = "$epoch" ] || exit "$code"  # Slurm lost this node and started the job elsewhere
"""
QUEUE_AGAIN = """\
# Ranks that wrote a last checkpoint end with 0, too; a training that is done by now ends at once when it starts again.
if [ "$again" = yes ] && scontrol requeue "$SLURM_JOB_ID"; then sleep 60; fi  # Slurm ends this script
"""
END = """\
echo "$code" > "$folder/exit.part" && mv "$folder/exit.part" "$folder/exit"
exit "$code"
"""

STATES: dict[
    str, State
] = {  # slurm.schedmd.com/job_state_codes.html; what is not here and not over is running
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
TAKES_WORK = ("idle", "mixed", "allocated", "completing", "planned", "reserved")


def render(job: JobSpec, site: recipe.Slurm | None = None) -> str:
    """The batch script of a job."""
    site = site or recipe.Slurm()
    about = f"# {job.name}: written by tumen's slurm engine; `sbatch job.sh` submits it by hand"
    heads = [f"#SBATCH --{line}" for line in _directives(job, site)]
    variables = {**DEFAULTS, **(NCCL if job.accelerators_per_node else {}), **job.environment}
    says = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    given = [
        f"folder={shlex.quote(str(job.folder))}",
        f"python={shlex.quote(job.python)}",
        f"ranks_per_node={job.ranks_per_node}",
    ]
    given += [
        f"command=({' '.join(map(shlex.quote, job.command))})",
        AGENT.replace("{options}", "--standby " if stands_by(job) else ""),
    ]
    limited = job.limit_seconds is not None
    body = START + (AGAIN if limited else "") + STEP + LAST + (QUEUE_AGAIN if limited else "") + END
    return "\n".join(["#!/bin/bash", about, *heads, "", *site.setup, *says, *given, "", body])


def _directives(job: JobSpec, site: recipe.Slurm) -> Iterator[str]:
    """What sbatch is asked, in the order people read it: who, where, how much, how long, what then."""
    yield f"job-name={job.name}"
    for name in ("account", "partition", "qos", "reservation", "constraint"):
        if value := getattr(site, name):
            yield f"{name}={value}"
    yield f"nodes={job.nodes}"
    yield "ntasks-per-node=1"
    if job.accelerators_per_node:
        yield (
            f"gres={site.gres}:{job.accelerators_per_node}"
            if site.gres
            else f"gpus-per-node={job.accelerators_per_node}"
        )
    if job.exclusive:
        yield from ("exclusive", "mem=0")
    if job.avoid:
        yield f"exclude={','.join(job.avoid)}"
    if job.limit_seconds is not None:
        yield f"time={show_limit(job.limit_seconds)}"
        yield f"signal=B:USR1@{min(65535, round(job.grace_seconds))}"
    yield from ("requeue", "open-mode=append", f"output={_escaped(job.folder / 'log')}")


def show_limit(seconds: float) -> str:
    """A time limit as Slurm writes it, days-hours:minutes:seconds."""
    whole = max(60, round(seconds))
    return f"{whole // 86400}-{whole // 3600 % 24:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _escaped(path: Path) -> str:
    """A path in a directive: sbatch reads it as a shell word, and then % as a pattern."""
    return shlex.quote(str(path).replace("%", "%%"))


def parse(text: str) -> JobStatus:
    """Status from `scontrol show job ID --oneliner`."""
    found = dict(re.findall(r"(?:^|\s)(JobState|Reason|ExitCode|Restarts|NodeList)=(\S+)", text))
    if "JobState" not in found:
        return JobStatus("lost", reason="slurm knows no such job")
    name = found["JobState"].split("+")[0]
    state = STATES.get(name, "running")
    code, _, signal = found.get("ExitCode", "0:0").partition(":")
    if state in ("done", "failed"):
        killed = 128 + int(signal) if signal not in ("", "0") else 0
        number = int(code) or killed or (1 if state == "failed" else 0)
        return JobStatus(state, number, "" if name in ("COMPLETED", "FAILED") else name)
    restarts = int(found.get("Restarts", "0"))
    reason = found.get("Reason", "None")
    told = {
        "waiting": "" if reason == "None" else reason,
        "running": found.get("NodeList", ""),
    }.get(state, "")
    return JobStatus(
        state,
        reason=", ".join(
            part for part in (told, f"restarted {restarts} times" if restarts else "") if part
        ),
    )


def parse_accounting(text: str) -> JobStatus | None:
    """Status from `sacct --parsable2 --noheader --allocations --format=State,ExitCode`, None when it has no such job."""
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 1]
    if not rows:
        return None
    state, code = rows[-1]  # a requeued job has a row for each start
    return parse(f"JobState={state.split()[0]} ExitCode={code}") if state else None


def parse_nodes(text: str) -> list[Node]:
    """Nodes from `sinfo --noheader --Node --format=%N|%T|%G|%E`; a node of several partitions stands there once for each."""
    nodes = {}
    for name, state, gres, reason in (
        line.split("|", 3) for line in text.splitlines() if line.count("|") >= 3
    ):
        cards = sum(map(int, re.findall(r"(?:^|,)gpu(?::[^:,(]+)?:(\d+)", gres)))
        word = state.rstrip("*~#!%$@^-+")
        ready = word in TAKES_WORK and not state.endswith("*")  # *: it does not answer
        why = (
            "" if ready else f"{state}: {reason}" if reason not in ("", "none", "(null)") else state
        )
        nodes[name] = Node(name, cards, ready, why)
    return list(nodes.values())


class SlurmEngine:
    """`Engine` on a Slurm cluster whose commands are on the path and whose nodes see the run's folder."""

    def __init__(self, site: recipe.Slurm | None = None) -> None:
        self.site = site or recipe.Slurm()

    def render(self, job: JobSpec) -> str:
        """The batch script."""
        return render(job, self.site)

    def submit(self, job: JobSpec) -> str:
        self._refuse(job)
        script = prepared(job, "job.sh", self.render(job))
        number = (
            _call("sbatch", "--parsable", str(script), about=f"slurm refused {job.name}")
            .split(";")[0]
            .strip()
        )
        if not number.isdigit():
            raise EngineError(
                f"slurm took {job.name} but gave no number: {number[:80]!r}; `squeue --me` shows whether it is there"
            )
        try:
            with disk(script.parent):
                write_text(script.parent / "id", number + "\n")
        except DiskError:
            _call("scancel", number, fails=False)  # nobody would find it again
            raise
        return str(script.parent)

    def status(self, job_id: str) -> JobStatus:
        folder = Path(job_id)
        number = said_in(folder, "id").strip()
        if not number.isdigit():
            return JobStatus("lost", reason=f"{folder} has no job of slurm")
        try:
            live = parse(
                _call(
                    "scontrol", "show", "job", number, "--oneliner", about="slurm does not answer"
                )
            )
        except EngineError as error:
            if "Invalid job id" not in str(error):
                return JobStatus("silent", reason=str(error))
            live = parse("")
        if live.state != "lost":
            return live
        if text := said_in(folder, "exit"):
            return ended(text)
        asked = (
            "--jobs",
            number,
            "--parsable2",
            "--noheader",
            "--allocations",
            "--format=State,ExitCode",
        )
        return parse_accounting(_call("sacct", *asked, fails=False)) or live

    def logs(self, job_id: str) -> str:
        return said_in(Path(job_id), "log")

    def cancel(self, job_id: str) -> None:
        number = said_in(Path(job_id), "id").strip()
        if not number.isdigit() or self.status(job_id).ended:
            return
        _call("scancel", number, about=f"slurm does not cancel job {number}")
        with disk(Path(job_id)):
            write_text(Path(job_id) / "exit", "cancelled\n")

    def nodes(self) -> list[Node]:
        where = ("--partition", self.site.partition) if self.site.partition else ()
        return parse_nodes(
            _call(
                "sinfo",
                "--noheader",
                "--Node",
                "--format=%N|%T|%G|%E",
                *where,
                about="slurm does not answer",
            )
        )

    def drain(self, node: str, why: str) -> None:
        """Give a node no new work; what runs on it goes on. Needs an operator's rights."""
        asked = ("update", f"nodename={node}", "state=drain", f"reason={why}")
        _call("scontrol", *asked, about=f"slurm does not drain {node}")

    def requeue(self, job_id: str) -> None:
        """Stop a job and put it back into the queue, under its own number and into its own log."""
        number = said_in(Path(job_id), "id").strip()
        _call("scontrol", "requeue", number, about=f"slurm does not requeue job {number or job_id}")

    def _refuse(self, job: JobSpec) -> None:
        """Refuse what Slurm would let wait for ever: more nodes than there are.

        Raises:
            EngineError: how many there are.
        """
        place = f"partition {self.site.partition}" if self.site.partition else "the cluster"
        nodes = [node for node in self.nodes() if node.name not in job.avoid]
        if self.site.partition and not nodes and not job.avoid:
            raise EngineError(
                f"slurm has no {place}, or it is empty; it has {', '.join(self._partitions())}: set fleet.slurm.partition"
            )
        if len(nodes) < job.nodes:
            raise EngineError(
                f"{job.name} asks for {job.nodes} nodes, {place} has {len(nodes)} besides those it avoids"
            )

    def _partitions(self) -> list[str]:
        return sorted(
            set(_call("sinfo", "--noheader", "--format=%R", about="slurm does not answer").split())
        )


def _call(*command: str, about: str = "", fails: bool = True) -> str:
    """What a command of Slurm prints. With `fails` false, "" when it refuses.

    Raises:
        EngineError: not installed; or, with `fails`, why it refused, in Slurm's own words.
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
            f"{command[0]} did not answer for {CALL_SECONDS:.0f} s; is slurmctld up? `scontrol ping` says"
        ) from None
    if done.returncode == 0:
        return done.stdout
    if fails:
        raise EngineError(f"{about}: {complaint(done.stderr or done.stdout)}")
    return ""


def complaint(text: str) -> str:
    """Slurm's complaint as one line: the last says what, those before may say which."""
    lines = [
        re.sub(r"^\w+: (?:(?:error|fatal): )?", "", line).strip()
        for line in text.splitlines()
        if line.strip()
    ]
    lines = [re.sub(r"^Batch job submission failed: ", "", line) for line in lines]
    return "; ".join(reversed(lines[-2:])) or "it did not say why"
