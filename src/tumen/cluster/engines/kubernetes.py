"""The Kubernetes engine: submits JobSets, which Kueue admits whole or not at all.

Checked against the published schema and a stand-in of the API server; never run on a cluster
(docs/cluster.md).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tumen.cluster.engines.engine import (
    JobSpec,
    JobStatus,
    Node,
    parse_exit,
    read_or_empty,
    write_submission,
)
from tumen.cluster.engines.kubernetes_api import Api, connection
from tumen.cluster.engines.kubernetes_manifest import (
    GROUP,
    INDEX_LABEL,
    NAME_LABEL,
    manifest,
    name_of,
    render,
)
from tumen.core.artifact import write_text
from tumen.core.errors import DiskError, EngineError, disk
from tumen.recipe import fleet_section

DRAINED = "tumen/drained"  # annotation of a node: why it takes no work
REJECTIONS = {  # what an HTTP status of the API server means to the one who launches
    401: "the cluster does not know you; renew your kubeconfig's credentials",
    403: "the cluster does not permit it",
    404: "the cluster has no such object",
    409: "it is there already; `tumen cancel` removes it",
}


def parse(text: str) -> JobStatus:
    """Return the status of a JobSet.

    Args:
        text: JSON, as the API server writes it.
    """
    found = json.loads(text)
    status = found.get("status", {})
    conditions = {}
    for condition in status.get("conditions", []):
        if condition.get("status") == "True":
            conditions[condition["type"]] = condition
    if "Completed" in conditions:
        return JobStatus("done", 0)
    if "Failed" in conditions:
        reason = conditions["Failed"].get("message", "")
        return JobStatus("failed", 1, reason)  # JobSet tells no exit code
    if "Suspended" in conditions:
        reason = conditions["Suspended"].get("message")
        return JobStatus("waiting", reason=reason or "suspended until its queue admits it")
    return _parse_unfinished(found["spec"], status)


def _parse_unfinished(spec: dict[str, Any], status: dict[str, Any]) -> JobStatus:
    """Return the status of a JobSet that was admitted and has not ended.

    Args:
        spec: of the JobSet.
        status: of the JobSet.
    """
    restarts = ""
    if status.get("restarts"):
        restarts = f"restarted {status['restarts']} times"
    (nodes,) = status.get("replicatedJobsStatus") or [{}]
    if nodes.get("active") or nodes.get("ready"):
        return JobStatus("running", reason=restarts)
    wanted = spec["replicatedJobs"][0]["template"]["spec"]["parallelism"]
    return JobStatus("waiting", reason=restarts or f"no pod of {wanted} runs yet")


def parse_nodes(text: str, resource: str = "nvidia.com/gpu") -> list[Node]:
    """Return the nodes of the API server's NodeList.

    Args:
        text: JSON.
        resource: what the cluster calls an accelerator.
    """
    return [_parse_node(found, resource) for found in json.loads(text)["items"]]


def _parse_node(found: dict[str, Any], resource: str) -> Node:
    """Return a node of a NodeList: ready where it is neither cordoned nor unhealthy.

    Args:
        found: a node, as the API server writes it.
        resource: what the cluster calls an accelerator.
    """
    metadata = found["metadata"]
    status = found.get("status", {})
    accelerators = int(status.get("allocatable", {}).get(resource, 0))
    if found.get("spec", {}).get("unschedulable"):
        annotations = metadata.get("annotations") or {}
        reason = f"cordoned: {annotations.get(DRAINED, 'no reason given')}"
        return Node(metadata["name"], accelerators, False, reason)
    conditions = {}
    for condition in status.get("conditions", []):
        conditions[condition["type"]] = condition["status"]
    if conditions.get("Ready") == "True":
        return Node(metadata["name"], accelerators)
    return Node(metadata["name"], accelerators, False, "not ready")


class KubernetesEngine:
    """`Engine` on a Kubernetes cluster.

    That of the kubeconfig's current context, or the one that this process runs in.

    Args:
        site: section `fleet.kubernetes` of a recipe.
    """

    def __init__(self, site: fleet_section.Kubernetes | None = None) -> None:
        self.site = site or fleet_section.Kubernetes()

    def render(self, job: JobSpec) -> str:
        """Return the manifest."""
        return render(job, self.site)

    def submit(self, job: JobSpec) -> str:
        """Submit a job; returns its id, see `Engine`."""
        text = self.render(job)
        api = connection()
        file = write_submission(job, "job.yaml", text)
        name, path = name_of(job), self._jobsets(api)
        tree = manifest(job, self.site)
        self._ask(api, "POST", path, f"kubernetes refused {job.name}", tree)
        try:
            with disk(file.parent):
                write_text(file.parent / "id", f"{path}/{name}\n")
        except DiskError:
            api.ask("DELETE", f"{path}/{name}")  # without its id nobody would find it again
            raise
        return str(file.parent)

    def status(self, job_id: str) -> JobStatus:
        """Return the status of a job, see `Engine`."""
        path = read_or_empty(Path(job_id), "id").strip()
        exit_text = read_or_empty(Path(job_id), "exit")
        if exit_text:
            return parse_exit(exit_text)
        if not path.startswith(f"/apis/{GROUP}/"):
            return JobStatus("lost", reason=f"{job_id} has no job of kubernetes")
        try:
            code, text = connection().ask("GET", path)
        except EngineError as error:
            return JobStatus("silent", reason=str(error))
        if code == 404:
            return JobStatus("lost", reason="kubernetes has no such JobSet; somebody deleted it")
        if code != 200:
            return JobStatus("silent", reason=_rejection(code, text))
        return parse(text)

    def logs(self, job_id: str) -> str:
        """Return what the first node and those that failed printed."""
        path = read_or_empty(Path(job_id), "id").strip()
        if not path:
            return ""
        api = connection()
        # /apis/GROUP/VERSION/namespaces/NAMESPACE/jobsets/NAME, see `_jobsets`
        parts = path.split("/")
        namespace = parts[5]
        name = parts[-1]
        pods = f"/api/v1/namespaces/{namespace}/pods"
        listing = f"{pods}?labelSelector={NAME_LABEL}%3D{name}"
        text = self._ask(api, "GET", listing, "kubernetes shows no pods")
        worth_reading = [pod for pod in json.loads(text)["items"] if _is_worth_reading(pod)]
        logs = []
        for pod in worth_reading:
            code, log = api.ask("GET", f"{pods}/{pod['metadata']['name']}/log")
            if code == 200:  # a pod that did not start has no log
                logs.append(log)
        return "".join(logs)

    def cancel(self, job_id: str) -> None:
        """Stop a job and everything it started, see `Engine`."""
        path = read_or_empty(Path(job_id), "id").strip()
        if not path or self.status(job_id).ended:
            return
        about = f"kubernetes does not cancel {path.rpartition('/')[2]}"
        options = {"propagationPolicy": "Foreground"}  # pods are gone before the JobSet is
        self._ask(connection(), "DELETE", path, about, options)
        with disk(Path(job_id)):
            write_text(Path(job_id) / "exit", "cancelled\n")

    def nodes(self) -> list[Node]:
        """Return the nodes of the cluster."""
        text = self._ask(connection(), "GET", "/api/v1/nodes", "kubernetes shows no nodes")
        return parse_nodes(text, self.site.resource)

    def drain(self, node: str, why: str) -> None:
        """Cordon a node and write the reason down; its pods continue."""
        change = {"metadata": {"annotations": {DRAINED: why}}, "spec": {"unschedulable": True}}
        about = f"kubernetes does not drain {node}"
        self._ask(connection(), "PATCH", f"/api/v1/nodes/{node}", about, change)

    def _jobsets(self, api: Api) -> str:
        return f"/apis/{GROUP}/namespaces/{self.site.namespace or api.namespace}/jobsets"

    def _ask(
        self, api: Api, method: str, path: str, about: str, body: dict[str, Any] | None = None
    ) -> str:
        """Return the API server's answer.

        Args:
            api: the server.
            method: of HTTP.
            path: of the object.
            about: what failed, for the message.
            body: is sent as JSON.

        Raises:
            EngineError: it rejected the request, and why.
        """
        code, text = api.ask(method, path, body)
        if code == 404 and method == "POST":
            raise EngineError(
                f"{about}: the cluster has no JobSet; "
                "its administrator installs it from jobset.sigs.k8s.io"
            )
        if code >= 300:
            raise EngineError(f"{about}: {_rejection(code, text)}")
        return text


def _is_worth_reading(pod: dict[str, Any]) -> bool:
    """Whether a pod's log shows what happened: that of the first one, or of one that failed."""
    is_first = pod["metadata"].get("labels", {}).get(INDEX_LABEL) == "0"
    return bool(is_first or pod.get("status", {}).get("phase") == "Failed")


def _rejection(code: int, text: str) -> str:
    """Return the API server's rejection as one line.

    Args:
        code: HTTP status.
        text: of the answer; JSON, where the API server itself rejected.
    """
    try:
        message = " ".join(str(json.loads(text)["message"]).split())
    except (ValueError, KeyError, TypeError):
        message = f"HTTP {code}"
    return f"{REJECTIONS[code]} ({message})" if code in REJECTIONS else message
