"""The sbatch script of a job. Placement, priority and quota stay Slurm's own."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from tumen.cluster.engines.engine import JobSpec, supports_standby
from tumen.recipe import fleet_section

DEFAULTS = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
# A hang leaves a flight record of its collectives behind
# (pytorch.org/tutorials/unstable/flight_recorder_tutorial.html).
NCCL = {
    "NCCL_DEBUG": "WARN",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
}
MOST_GRACE_SECONDS = 65535  # of --signal
LEAST_LIMIT_SECONDS = 60

# Ranks follow Slurm's order of nodes, which follows the network's topology: each agent gets its
# place (SLURM_NODEID).
AGENT = """\
agent='cores=$((SLURM_CPUS_ON_NODE / ranks_per_node))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > 0 ? cores : 1))}
exec "$python" -m tumen.cluster.agents --folder "$folder" --epoch "$epoch" --attempt "$attempt" \\
  --node "$SLURMD_NODENAME" --address "$SLURMD_NODENAME" --nodes "$SLURM_JOB_NUM_NODES" \\
  --node-rank "$SLURM_NODEID" --ranks-per-node "$ranks_per_node" \\
  --master "$MASTER_ADDR:$MASTER_PORT" {options}-- "$@"'
"""
BEGIN = """\
attempt=$((${SLURM_RESTART_COUNT:-0} + 1))
# Fencing: agents of an older epoch, on a node that Slurm lost, read this file and exit.
epoch=$SLURM_JOB_ID.$attempt
echo "$epoch" > "$folder/epoch.part" && mv "$folder/epoch.part" "$folder/epoch"
echo "$SLURM_JOB_ID" > "$folder/id.part" && mv "$folder/id.part" "$folder/id"
rm -f "$folder/exit"
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export folder epoch attempt python ranks_per_node MASTER_ADDR MASTER_PORT
echo "tumen: job $SLURM_JOB_ID, start $attempt, on $SLURM_JOB_NODELIST" >&2
"""
ON_TIME_LIMIT = """\
# Shortly before the time limit: tell the ranks, then queue the job again.
again=no
trap 'again=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
"""
RUN_AGENTS = """\
# An agent on each node. One that fails ends all; one that is killed is restarted by its starter
# while the run is watched.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=1 \\
  --wait=30 bash -c "$agent" agent "${command[@]}" &
step=$!
wait "$step"
while kill -0 "$step" 2> /dev/null; do wait "$step"; done  # a trap ends a wait early
wait "$step"
code=$?
"""
FENCE = """\
# Slurm lost this node and started the job elsewhere: its exit code is not ours to write.
[ "$(cat "$folder/epoch")" = "$epoch" ] || exit "$code"
"""
REQUEUE = """\
# Ranks that wrote a last checkpoint end with 0, too. A training that is done by now ends at once
# when it starts again.
if [ "$again" = yes ] && scontrol requeue "$SLURM_JOB_ID"; then
  sleep 60  # Slurm ends this script
fi
"""
END = """\
echo "$code" > "$folder/exit.part" && mv "$folder/exit.part" "$folder/exit"
exit "$code"
"""


def render(job: JobSpec, site: fleet_section.Slurm | None = None) -> str:
    """Return the batch script of a job."""
    site = site or fleet_section.Slurm()
    lines = [
        "#!/bin/bash",
        f"# {job.name}: written by tumen's slurm engine; `sbatch job.sh` submits it by hand",
    ]
    lines += [f"#SBATCH --{line}" for line in _directives(job, site)]
    lines += ["", *site.setup]
    lines += _variables(job)
    body = BEGIN + RUN_AGENTS + FENCE + END
    if job.limit_seconds is not None:
        body = BEGIN + ON_TIME_LIMIT + RUN_AGENTS + FENCE + REQUEUE + END
    return "\n".join([*lines, body])


def _variables(job: JobSpec) -> Iterator[str]:
    """Yield the variables of the script: the ranks' environment, then what the agents need."""
    nccl = NCCL if job.accelerators_per_node else {}
    environment = {**DEFAULTS, **nccl, **job.environment}
    for name, value in sorted(environment.items()):
        yield f"export {name}={shlex.quote(value)}"
    yield f"folder={shlex.quote(str(job.folder))}"
    yield f"python={shlex.quote(job.python)}"
    yield f"ranks_per_node={job.ranks_per_node}"
    yield f"command=({shlex.join(job.command)})"
    options = "--standby " if supports_standby(job) else ""
    yield AGENT.replace("{options}", options)


def _directives(job: JobSpec, site: fleet_section.Slurm) -> Iterator[str]:
    """Yield the options of sbatch in the order people read them.

    Who, where, how much, how long, what then.
    """
    yield f"job-name={job.name}"
    for name in ("account", "partition", "qos", "reservation", "constraint"):
        value = getattr(site, name)
        if value:
            yield f"{name}={value}"
    yield from _resources(job, site)
    if job.limit_seconds is not None:
        grace_seconds = min(MOST_GRACE_SECONDS, round(job.grace_seconds))
        yield f"time={format_limit(job.limit_seconds)}"
        yield f"signal=B:USR1@{grace_seconds}"
    yield "requeue"
    yield "open-mode=append"  # a requeued job continues the log
    yield f"output={_escape(job.folder / 'log')}"


def _resources(job: JobSpec, site: fleet_section.Slurm) -> Iterator[str]:
    """Yield the options of sbatch about nodes and what the job gets of them."""
    yield f"nodes={job.nodes}"
    yield "ntasks-per-node=1"  # the agent, which starts the ranks
    accelerators = job.accelerators_per_node
    if accelerators and site.gres:
        yield f"gres={site.gres}:{accelerators}"
    elif accelerators:
        yield f"gpus-per-node={accelerators}"
    if job.exclusive:
        yield "exclusive"
        yield "mem=0"  # all of a node's memory
    if job.avoid:
        yield f"exclude={','.join(job.avoid)}"


def format_limit(seconds: float) -> str:
    """Return a time limit as Slurm writes it, days-hours:minutes:seconds; at least a minute."""
    minutes, seconds = divmod(max(LEAST_LIMIT_SECONDS, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02d}:{minutes:02d}:{seconds:02d}"


def _escape(path: Path) -> str:
    """Return a path for a directive: sbatch reads it as a shell word, and then % as a pattern."""
    return shlex.quote(str(path).replace("%", "%%"))
