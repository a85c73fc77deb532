"""The Kubernetes engine: a JobSet of one indexed Job, a pod a node, that Kueue admits whole or not at all.

Checked against the published schema and a stand-in of the API server; never run on a cluster (docs/cluster.md). Field by field:
jobset.sigs.k8s.io/docs/reference, kueue.sigs.k8s.io/docs/tasks/run/jobsets.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from tumen.cluster.engines.engine import (
    JobSpec,
    JobStatus,
    Node,
    ended,
    prepared,
    said_in,
    stands_by,
)
from tumen.cluster.engines.kubernetes_api import Api, connection
from tumen.core.artifact import write_text
from tumen.core.errors import DiskError, EngineError, disk
from tumen.core.extras import need
from tumen.recipe import recipe

GROUP = "jobset.x-k8s.io/v1alpha2"
NAME_LABEL, INDEX_LABEL = (
    "jobset.sigs.k8s.io/jobset-name",
    "batch.kubernetes.io/job-completion-index",
)
WHY = "tumen/drained"  # annotation of a node: why it takes no work
PORT = 29500
DEFAULTS = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
NCCL = {
    "NCCL_DEBUG": "WARN",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
}
AGENT = """\
epoch=$((RESTARTS + 1))  # fencing: agents of an older epoch, on a node that the cluster lost, read this and exit
if [ "$JOB_COMPLETION_INDEX" = 0 ]; then echo "$epoch" > "$FOLDER/epoch.part" && mv "$FOLDER/epoch.part" "$FOLDER/epoch"; fi
exec "$0" -m tumen.cluster.agents --folder "$FOLDER" --epoch "$epoch" --attempt "$epoch" \\
  --node "$NODE" --address "$JOBSET-node-0-$JOB_COMPLETION_INDEX.$JOBSET" --nodes "$NODES" --node-rank "$JOB_COMPLETION_INDEX" \\
  --ranks-per-node "$RANKS_PER_NODE" --master "$MASTER_ADDR:$MASTER_PORT" {options}-- "$@"
"""
OF_POD = {
    "NODE": "spec.nodeName",
    "RESTARTS": "metadata.annotations['jobset.sigs.k8s.io/restart-attempt']",
}
MEANT = {  # what an HTTP status of the API server means to the one who launches
    401: "the cluster does not know you; renew your kubeconfig's credentials",
    403: "the cluster does not let you",
    404: "the cluster has no such thing",
    409: "it is there already; `tumen cancel` removes it",
}


def render(job: JobSpec, site: recipe.Kubernetes | None = None) -> str:
    """The manifest of a job, as YAML.

    Raises:
        EngineError: no image, or a run folder that no volume holds.
    """
    yaml = need("yaml", "the Kubernetes engine", "kubernetes")
    tree = manifest(job, site or recipe.Kubernetes())

    class Dumper(yaml.SafeDumper):  # type: ignore[misc, name-defined]  # representers belong to a class
        pass

    Dumper.add_representer(str, _shown)
    text = yaml.dump(tree, Dumper=Dumper, sort_keys=False, width=120)
    return f"# {job.name}: written by tumen's kubernetes engine; `kubectl create -f job.yaml` submits it by hand\n{text}"


def _shown(dumper: Any, text: str) -> Any:
    """A text of several lines as lines."""
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    )


def manifest(job: JobSpec, site: recipe.Kubernetes) -> dict[str, Any]:
    """The JobSet: when a pod fails, all are started again together; JobSet makes the headless service that names them."""
    name = named(job)
    labels = {
        "kueue.x-k8s.io/queue-name": site.queue,
        "kueue.x-k8s.io/priority-class": site.priority,
    }
    metadata = {"name": name, "namespace": site.namespace, "labels": _set(labels) or None}
    rules = [
        {
            "name": "disrupted",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
        }
    ]
    if job.limit_seconds:
        rules.insert(
            0,
            {
                "name": "overtime",
                "action": "FailJobSet",
                "onJobFailureReasons": ["DeadlineExceeded"],
            },
        )
    gang = {
        "parallelism": job.nodes,
        "completions": job.nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "activeDeadlineSeconds": round(job.limit_seconds) if job.limit_seconds else None,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                }
            ]
        },
        "template": {"spec": _pod(job, site, name)},
    }
    spec = {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "failurePolicy": {"maxRestarts": site.restarts, "rules": rules},
        "replicatedJobs": [{"name": "node", "replicas": 1, "template": {"spec": _set(gang)}}],
    }
    return {"apiVersion": GROUP, "kind": "JobSet", "metadata": _set(metadata), "spec": spec}


def _pod(job: JobSpec, site: recipe.Kubernetes, name: str) -> dict[str, Any]:
    """A pod: one agent that starts the node's ranks."""
    if not site.image:
        raise EngineError(
            f"{job.name}: set fleet.kubernetes.image to a container image with tumen[train] in it"
        )
    mounts = [Path(path) for path in site.volumes]
    if not any(mount in job.folder.parents for mount in mounts):
        had = ", ".join(site.volumes) or "none"
        raise EngineError(
            f"{job.folder} is in no volume of fleet.kubernetes.volumes (there: {had}); pods would not see the run"
        )
    volumes = [
        {"name": f"run-{i}", "persistentVolumeClaim": {"claimName": c}}
        for i, c in enumerate(site.volumes.values())
    ]
    volumes.append(
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": site.shared_memory}}
    )
    places = [{"name": f"run-{i}", "mountPath": path} for i, path in enumerate(site.volumes)]
    told: list[dict[str, Any]] = [
        {"name": key, "value": value} for key, value in _environment(job, name).items()
    ]
    told += [
        {"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for key, path in OF_POD.items()
    ]
    agent = AGENT.replace("{options}", "--standby " if stands_by(job) else "")
    container = {
        "name": "agent",
        "image": site.image,
        "command": ["/bin/sh", "-c", agent, job.python, *job.command],
        "env": told,
        "resources": {"limits": {site.resource: job.accelerators_per_node}}
        if job.accelerators_per_node
        else None,
        "volumeMounts": [*places, {"name": "shared-memory", "mountPath": "/dev/shm"}],
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": round(job.grace_seconds),
        "serviceAccountName": site.service_account,
        "affinity": _affinity(job, name) or None,
        "containers": [_set(container)],
        "volumes": volumes,
    }
    return _set(pod)


def _environment(job: JobSpec, name: str) -> dict[str, str]:
    """Variables of the agent; pod 0 is where ranks meet."""
    meeting = {"MASTER_ADDR": f"{name}-node-0-0.{name}", "MASTER_PORT": str(PORT)}
    told = {
        "NODES": str(job.nodes),
        "RANKS_PER_NODE": str(job.ranks_per_node),
        "FOLDER": str(job.folder),
        "JOBSET": name,
    }
    return {
        **meeting,
        **told,
        **DEFAULTS,
        **(NCCL if job.accelerators_per_node else {}),
        **job.environment,
    }


def _affinity(job: JobSpec, name: str) -> dict[str, Any]:
    """Not on the nodes to avoid. Whole nodes keep pods apart by their cards; without cards the pods themselves must."""
    found: dict[str, Any] = {}
    if job.avoid:
        term = {
            "matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": list(job.avoid)}
            ]
        }
        found["nodeAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}
        }
    if job.nodes > 1 and not job.accelerators_per_node:
        mine = {
            "labelSelector": {"matchLabels": {NAME_LABEL: name}},
            "topologyKey": "kubernetes.io/hostname",
        }
        found["podAntiAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": [mine]}
    return found


def _set(tree: dict[str, Any]) -> dict[str, Any]:
    """Without what is not set."""
    return {key: value for key, value in tree.items() if value is not None}


def named(job: JobSpec) -> str:
    """A job's name on the cluster: a DNS label, the same for the same folder, so that nothing is submitted twice."""
    readable = re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-")[:36].rstrip("-")
    return f"{readable}-{hashlib.sha256(str(job.folder).encode()).hexdigest()[:6]}"


def parse(text: str) -> JobStatus:
    """Status from a JobSet as the API server gives it."""
    found = json.loads(text)
    status = found.get("status", {})
    now = {one["type"]: one for one in status.get("conditions", []) if one.get("status") == "True"}
    if "Completed" in now:
        return JobStatus("done", 0)
    if failed := now.get("Failed"):
        return JobStatus("failed", 1, failed.get("message", ""))  # JobSet tells no exit code
    if suspended := now.get("Suspended"):
        return JobStatus(
            "waiting", reason=suspended.get("message") or "suspended until its queue admits it"
        )
    restarts = f"restarted {status['restarts']} times" if status.get("restarts") else ""
    (job,) = status.get("replicatedJobsStatus") or [{}]
    wanted = found["spec"]["replicatedJobs"][0]["template"]["spec"]["parallelism"]
    if not job.get("active") and not job.get("ready"):
        return JobStatus("waiting", reason=restarts or f"no pod of {wanted} runs yet")
    return JobStatus("running", reason=restarts)


def parse_nodes(text: str, resource: str = "nvidia.com/gpu") -> list[Node]:
    """Nodes from the API server's NodeList."""
    return [_node(one, resource) for one in json.loads(text)["items"]]


def _node(found: dict[str, Any], resource: str) -> Node:
    name, notes = found["metadata"]["name"], found["metadata"].get("annotations") or {}
    cards = int(found.get("status", {}).get("allocatable", {}).get(resource, 0))
    healthy = any(
        c["type"] == "Ready" and c["status"] == "True"
        for c in found.get("status", {}).get("conditions", [])
    )
    if found.get("spec", {}).get("unschedulable"):
        return Node(name, cards, False, f"cordoned: {notes.get(WHY, 'no reason given')}")
    return Node(name, cards, healthy, "" if healthy else "not ready")


class KubernetesEngine:
    """`Engine` on the cluster of the kubeconfig's current context, or on the one this process runs in."""

    def __init__(self, site: recipe.Kubernetes | None = None) -> None:
        self.site = site or recipe.Kubernetes()

    def render(self, job: JobSpec) -> str:
        """The manifest."""
        return render(job, self.site)

    def submit(self, job: JobSpec) -> str:
        text, api = self.render(job), connection()
        file = prepared(job, "job.yaml", text)
        name, path = named(job), self._jobsets(api)
        self._ask(api, "POST", path, f"kubernetes refused {job.name}", manifest(job, self.site))
        try:
            with disk(file.parent):
                write_text(file.parent / "id", f"{path}/{name}\n")
        except DiskError:
            api.ask("DELETE", f"{path}/{name}")  # nobody would find it again
            raise
        return str(file.parent)

    def status(self, job_id: str) -> JobStatus:
        path = said_in(Path(job_id), "id").strip()
        if text := said_in(Path(job_id), "exit"):
            return ended(text)
        if not path.startswith(f"/apis/{GROUP}/"):
            return JobStatus("lost", reason=f"{job_id} has no job of kubernetes")
        try:
            code, text = connection().ask("GET", path)
        except EngineError as error:
            return JobStatus("silent", reason=str(error))
        if code == 404:
            return JobStatus("lost", reason="kubernetes has no such JobSet; somebody deleted it")
        return parse(text) if code == 200 else JobStatus("silent", reason=_why(code, text))

    def logs(self, job_id: str) -> str:
        """What the first node and those that failed printed."""
        path = said_in(Path(job_id), "id").strip()
        if not path:
            return ""
        api, place = connection(), path.split("/")
        pods = f"/api/v1/namespaces/{place[5]}/pods"
        listed = json.loads(
            self._ask(
                api,
                "GET",
                f"{pods}?labelSelector={NAME_LABEL}%3D{place[-1]}",
                "kubernetes shows no pods",
            )
        )
        wanted = [pod["metadata"]["name"] for pod in listed["items"] if _tells(pod)]
        return "".join(
            text
            for code, text in (api.ask("GET", f"{pods}/{name}/log") for name in wanted)
            if code == 200
        )

    def cancel(self, job_id: str) -> None:
        path = said_in(Path(job_id), "id").strip()
        if not path or self.status(job_id).ended:
            return
        about = f"kubernetes does not cancel {path.rpartition('/')[2]}"
        self._ask(connection(), "DELETE", path, about, {"propagationPolicy": "Foreground"})
        with disk(Path(job_id)):
            write_text(Path(job_id) / "exit", "cancelled\n")

    def nodes(self) -> list[Node]:
        return parse_nodes(
            self._ask(connection(), "GET", "/api/v1/nodes", "kubernetes shows no nodes"),
            self.site.resource,
        )

    def drain(self, node: str, why: str) -> None:
        """Cordon a node and write why; its pods go on."""
        change = {"metadata": {"annotations": {WHY: why}}, "spec": {"unschedulable": True}}
        self._ask(
            connection(),
            "PATCH",
            f"/api/v1/nodes/{node}",
            f"kubernetes does not drain {node}",
            change,
        )

    def _jobsets(self, api: Api) -> str:
        return f"/apis/{GROUP}/namespaces/{self.site.namespace or api.namespace}/jobsets"

    def _ask(
        self, api: Api, method: str, path: str, about: str, body: dict[str, Any] | None = None
    ) -> str:
        """The API server's answer.

        Raises:
            EngineError: it refused, and why.
        """
        code, text = api.ask(method, path, body)
        if code == 404 and method == "POST":
            raise EngineError(
                f"{about}: the cluster has no JobSet; its administrator installs it from jobset.sigs.k8s.io"
            )
        if code >= 300:
            raise EngineError(f"{about}: {_why(code, text)}")
        return text


def _tells(pod: dict[str, Any]) -> bool:
    """Whether a pod's log says what happened: the first one's, and that of one that failed."""
    first: bool = pod["metadata"].get("labels", {}).get(INDEX_LABEL) == "0"
    return first or bool(pod.get("status", {}).get("phase") == "Failed")


def _why(code: int, text: str) -> str:
    """The API server's refusal as one line."""
    try:
        said = " ".join(str(json.loads(text)["message"]).split())
    except (ValueError, KeyError, TypeError):
        said = f"HTTP {code}"
    return f"{MEANT[code]} ({said})" if code in MEANT else said
