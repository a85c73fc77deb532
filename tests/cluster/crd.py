"""The part of JobSet's published schema that our manifests use, written down by hand from

    github.com/kubernetes-sigs/jobset, config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml (v0.9.1 and main of 2026-08)

A field that is not here is a fault: the API server would drop it silently. Set TUMEN_JOBSET_CRD to the published file to check
against all of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

TEXT, WHOLE, YES_NO = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
TEXTS = {"type": "array", "items": TEXT}


def a(required: str = "", **fields: Any) -> dict[str, Any]:
    """An object with these fields alone."""
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


def many(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def one_of(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


LABELS = {"type": "object", "additionalProperties": TEXT}
TERM = a("key operator", key=TEXT, operator=TEXT, values=TEXTS)
AFFINITY = a(
    nodeAffinity=a(
        requiredDuringSchedulingIgnoredDuringExecution=a(
            "nodeSelectorTerms", nodeSelectorTerms=many(a(matchExpressions=many(TERM)))
        )
    ),
    podAntiAffinity=a(
        requiredDuringSchedulingIgnoredDuringExecution=many(
            a("topologyKey", labelSelector=a(matchLabels=LABELS), topologyKey=TEXT)
        )
    ),
)
CONTAINER = a(
    "name",
    name=TEXT,
    image=TEXT,
    command=TEXTS,
    env=many(
        a("name", name=TEXT, value=TEXT, valueFrom=a(fieldRef=a("fieldPath", fieldPath=TEXT)))
    ),
    resources=a(limits={"type": "object", "additionalProperties": {"anyOf": [WHOLE, TEXT]}}),
    volumeMounts=many(a("mountPath name", name=TEXT, mountPath=TEXT)),
)
POD = a(
    "containers",
    restartPolicy=TEXT,
    terminationGracePeriodSeconds=WHOLE,
    serviceAccountName=TEXT,
    affinity=AFFINITY,
    containers=many(CONTAINER),
    volumes=many(
        a(
            "name",
            name=TEXT,
            persistentVolumeClaim=a("claimName", claimName=TEXT),
            emptyDir=a(medium=TEXT, sizeLimit=TEXT),
        )
    ),
)
JOB = a(
    "template",
    parallelism=WHOLE,
    completions=WHOLE,
    completionMode=TEXT,
    backoffLimit=WHOLE,
    activeDeadlineSeconds=WHOLE,
    podFailurePolicy=a(
        "rules",
        rules=many(
            a("action", action=TEXT, onPodConditions=many(a("type", type=TEXT, status=TEXT)))
        ),
    ),
    template=a(spec=POD),
)
REASONS = one_of(
    "BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded", "PodFailurePolicy"
)  # fmt: skip
RULE = a(
    "action name",
    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    action=one_of("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
    onJobFailureReasons=many(REASONS),
)
JOBSET = a(
    "apiVersion kind metadata spec",
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=a(
        "name",
        name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"},
        namespace=TEXT,
        labels=LABELS,
    ),
    spec=a(
        network=a(enableDNSHostnames=YES_NO, publishNotReadyAddresses=YES_NO),
        failurePolicy=a(maxRestarts=WHOLE, rules=many(RULE)),
        replicatedJobs=many(a("name template", name=TEXT, replicas=WHOLE, template=a(spec=JOB))),
    ),
)


def published() -> dict[str, Any] | None:
    """The published schema, strict: a field it does not know is a fault. None when its file is not named."""
    import yaml

    path = os.environ.get("TUMEN_JOBSET_CRD")
    if not path:
        return None
    versions = yaml.safe_load(Path(path).read_text("utf-8"))["spec"]["versions"]
    schema = next(one for one in versions if one["name"] == "v1alpha2")["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = JOBSET["properties"]["metadata"]
    return _strict(schema)


def _strict(schema: Any) -> Any:
    """Close every object; an int-or-string is either."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [WHOLE, TEXT]}
    closed = {key: _strict(value) for key, value in schema.items()}
    if (
        isinstance(schema.get("properties"), dict)
        and schema.get("type") == "object"
        and "additionalProperties" not in schema
    ):
        closed["additionalProperties"] = False
    return closed
