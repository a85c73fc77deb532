"""The Kubernetes manifest of a job: a JobSet of one indexed Job, with a pod a node.

Field by field: jobset.sigs.k8s.io/docs/reference, kueue.sigs.k8s.io/docs/tasks/run/jobsets.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from tumen.cluster.engines.engine import JobSpec, supports_standby
from tumen.core.errors import EngineError
from tumen.core.extras import need
from tumen.recipe import fleet_section

GROUP = "jobset.x-k8s.io/v1alpha2"
NAME_LABEL = "jobset.sigs.k8s.io/jobset-name"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
HOSTNAME_LABEL = "kubernetes.io/hostname"
MASTER_PORT = 29500
# What must be true of a node or pod while it is scheduled.
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
DEFAULTS = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
NCCL = {  # a hang leaves a flight record of its collectives behind
    "NCCL_DEBUG": "WARN",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
}
AGENT = """\
epoch=$((RESTARTS + 1))
# Fencing: agents of an older epoch, on a node that the cluster lost, read this file and exit.
if [ "$JOB_COMPLETION_INDEX" = 0 ]; then
  echo "$epoch" > "$FOLDER/epoch.part" && mv "$FOLDER/epoch.part" "$FOLDER/epoch"
fi
exec "$0" -m tumen.cluster.agents --folder "$FOLDER" --epoch "$epoch" --attempt "$epoch" \\
  --node "$NODE" --address "$JOBSET-node-0-$JOB_COMPLETION_INDEX.$JOBSET" --nodes "$NODES" \\
  --node-rank "$JOB_COMPLETION_INDEX" --ranks-per-node "$RANKS_PER_NODE" \\
  --master "$MASTER_ADDR:$MASTER_PORT" {options}-- "$@"
"""
FROM_POD = {  # variables that Kubernetes fills in
    "NODE": "spec.nodeName",
    "RESTARTS": "metadata.annotations['jobset.sigs.k8s.io/restart-attempt']",
}


def render(job: JobSpec, site: fleet_section.Kubernetes | None = None) -> str:
    """Return the manifest of a job as YAML.

    Raises:
        EngineError: there is no image, or the run's folder is in no volume.
    """
    yaml = need("yaml", "the Kubernetes engine", "kubernetes")

    class Dumper(yaml.SafeDumper):  # type: ignore[misc,name-defined]  # a class of its own
        pass

    Dumper.add_representer(str, _represent_text)
    tree = manifest(job, site or fleet_section.Kubernetes())
    text = yaml.dump(tree, Dumper=Dumper, sort_keys=False, width=120)
    about = "written by tumen's kubernetes engine; `kubectl create -f job.yaml` submits it by hand"
    return f"# {job.name}: {about}\n{text}"


def _represent_text(dumper: Any, text: str) -> Any:
    """Write a text of several lines as lines."""
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def manifest(job: JobSpec, site: fleet_section.Kubernetes) -> dict[str, Any]:
    """Return the JobSet.

    When a pod fails, JobSet starts all of them again together; it also makes the headless service
    that names them.

    Raises:
        EngineError: there is no image, or the run's folder is in no volume.
    """
    name = name_of(job)
    labels = _without_none(
        {"kueue.x-k8s.io/queue-name": site.queue, "kueue.x-k8s.io/priority-class": site.priority}
    )
    metadata = {"name": name, "namespace": site.namespace, "labels": labels or None}
    nodes = {"replicas": 1, "template": {"spec": _indexed_job(job, site, name)}}
    return {
        "apiVersion": GROUP,
        "kind": "JobSet",
        "metadata": _without_none(metadata),
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {"maxRestarts": site.restarts, "rules": _failure_rules(job)},
            "replicatedJobs": [{"name": "node", **nodes}],
        },
    }


def _failure_rules(job: JobSpec) -> list[dict[str, Any]]:
    """Return what JobSet does when the job fails, beside counting restarts."""
    rules = []
    if job.limit_seconds:
        rules.append(
            {
                "name": "overtime",
                "action": "FailJobSet",
                "onJobFailureReasons": ["DeadlineExceeded"],
            }
        )
    rules.append(
        {
            "name": "disrupted",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
        }
    )
    return rules


def _indexed_job(job: JobSpec, site: fleet_section.Kubernetes, name: str) -> dict[str, Any]:
    """Return the Job of all nodes, whose index is the rank of a node.

    Args:
        job: that is submitted.
        site: section `fleet.kubernetes` of the recipe.
        name: of the JobSet.
    """
    # A pod that was evicted or preempted, or whose node died: not the program's fault.
    disrupted = {"type": "DisruptionTarget", "status": "True"}
    limit = round(job.limit_seconds) if job.limit_seconds else None
    return _without_none(
        {
            "parallelism": job.nodes,
            "completions": job.nodes,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "activeDeadlineSeconds": limit,
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onPodConditions": [disrupted]}]},
            "template": {"spec": _pod(job, site, name)},
        }
    )


def _pod(job: JobSpec, site: fleet_section.Kubernetes, name: str) -> dict[str, Any]:
    """Return a pod: one agent, which starts the ranks of the node.

    Args:
        job: that is submitted.
        site: section `fleet.kubernetes` of the recipe.
        name: of the JobSet.
    """
    _require_image_and_volume(job, site)
    volumes, mounts = _volumes(site)
    resources = None
    if job.accelerators_per_node:
        resources = {"limits": {site.resource: job.accelerators_per_node}}
    agent = AGENT.replace("{options}", "--standby " if supports_standby(job) else "")
    container = {
        "name": "agent",
        "image": site.image,
        "command": ["/bin/sh", "-c", agent, job.python, *job.command],
        "env": _environment(job, name),
        "resources": resources,
        "volumeMounts": mounts,
    }
    return _without_none(
        {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": round(job.grace_seconds),
            "serviceAccountName": site.service_account,
            "affinity": _affinity(job, name) or None,
            "containers": [_without_none(container)],
            "volumes": volumes,
        }
    )


def _volumes(site: fleet_section.Kubernetes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return (volumes of the pod, where its container has them): the runs, and shared memory."""
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    for number, (path, claim) in enumerate(site.volumes.items()):
        volume = f"run-{number}"
        volumes.append({"name": volume, "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": volume, "mountPath": path})
    # NCCL and data loaders exchange data there; a container has 64 MB by default.
    memory = {"medium": "Memory", "sizeLimit": site.shared_memory}
    volumes.append({"name": "shared-memory", "emptyDir": memory})
    mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
    return volumes, mounts


def _require_image_and_volume(job: JobSpec, site: fleet_section.Kubernetes) -> None:
    if not site.image:
        raise EngineError(
            f"{job.name}: set fleet.kubernetes.image to a container image with tumen[train] in it"
        )
    if not any(Path(path) in job.folder.parents for path in site.volumes):
        known = ", ".join(site.volumes) or "none"
        raise EngineError(
            f"{job.folder} is in no volume of fleet.kubernetes.volumes (there: {known}); "
            "pods would not see the run"
        )


def _environment(job: JobSpec, name: str) -> list[dict[str, Any]]:
    """Return the variables of the agent. Ranks meet at pod 0.

    Args:
        job: that is submitted.
        name: of the JobSet, which is also that of its headless service.
    """
    variables = {
        "MASTER_ADDR": f"{name}-node-0-0.{name}",
        "MASTER_PORT": str(MASTER_PORT),
        "NODES": str(job.nodes),
        "RANKS_PER_NODE": str(job.ranks_per_node),
        "FOLDER": str(job.folder),
        "JOBSET": name,
        **DEFAULTS,
        **(NCCL if job.accelerators_per_node else {}),
        **job.environment,
    }
    rows: list[dict[str, Any]] = []
    for variable, value in variables.items():
        rows.append({"name": variable, "value": value})
    for variable, path in FROM_POD.items():
        rows.append({"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}})
    return rows


def _affinity(job: JobSpec, name: str) -> dict[str, Any]:
    """Return where pods may run: not on nodes to avoid, and each on a node of its own.

    Accelerators keep the pods of whole nodes apart; without them a rule must.
    """
    found: dict[str, Any] = {}
    if job.avoid:
        other = {"key": HOSTNAME_LABEL, "operator": "NotIn", "values": list(job.avoid)}
        terms = [{"matchExpressions": [other]}]
        found["nodeAffinity"] = {REQUIRED: {"nodeSelectorTerms": terms}}
    if job.nodes > 1 and not job.accelerators_per_node:
        own = {"matchLabels": {NAME_LABEL: name}}
        apart = [{"labelSelector": own, "topologyKey": HOSTNAME_LABEL}]
        found["podAntiAffinity"] = {REQUIRED: apart}
    return found


def _without_none(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if value is not None}


def name_of(job: JobSpec) -> str:
    """Return a job's name on the cluster: a DNS label, the same for the same folder.

    So nothing is submitted twice.
    """
    # Short, because JobSet appends to it and a label has 63 characters.
    readable = re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-")[:36].rstrip("-")
    return f"{readable}-{hashlib.sha256(str(job.folder).encode()).hexdigest()[:6]}"
