"""The lives of jobs and batches: what people apply, and how it must end."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.factories import make_batch, make_dataset, make_deployment, make_job
from tests.faults.api import Object

DATASET, JOB, DEPLOYMENT, BATCH = "tickets", "triage", "support", "labels"
TIMES = (
    "createdAt", "startedAt", "lastTransitionTime", "updatedAt", "finishedAt", "since", "provenAt", "time",
)  # fmt: skip
EDIT = {"spec": {"hyperparameters": {"epochs": 5}}}
"""An edit of a Train field: another run."""
LONGER = {"spec": {"sampling": {"maxTokens": 32}}}
"""An edit of what decides a batch's answers: another run."""


def dataset(namespace: str, **spec: Any) -> Object:
    return _applied(make_dataset(DATASET, **spec), namespace)


def job(namespace: str, **spec: Any) -> Object:
    return _applied(make_job(JOB, **spec), namespace)


def deployment(namespace: str, **spec: Any) -> Object:
    return _applied(make_deployment(DEPLOYMENT, **spec), namespace)


def batch(namespace: str, **spec: Any) -> Object:
    return _applied(make_batch(BATCH, **spec), namespace)


def _applied(item: Object, namespace: str) -> Object:
    """As a person applies it: without what the API server adds."""
    metadata = {"name": item["metadata"]["name"], "namespace": namespace}
    return {**{key: item[key] for key in ("apiVersion", "kind", "spec")}, "metadata": metadata}


def phase(item: Object) -> str:
    return str((item.get("status") or {}).get("phase", ""))


def condition(item: Object, type_: str) -> Object:
    found = [c for c in (item.get("status") or {}).get("conditions") or () if c["type"] == type_]
    return dict(found[0]) if found else {}


def is_done(item: Object, generation: int | None = None) -> bool:
    """Whether a resource is Ready for its present spec."""
    wanted = generation or item.get("metadata", {}).get("generation")
    ready = condition(item, "Ready")
    return ready.get("status") == "True" and ready.get("observedGeneration") == wanted


def final_state(objects: dict[tuple[str, str], Object], namespace: str) -> Object:
    """What two runs of the same life must have in common: everything but times, uids and versions."""
    shown = {}
    for (kind, name), item in objects.items():
        if kind == "Pod" or (kind == "ConfigMap" and name == "kube-root-ca.crt"):
            continue
        kept = {key: item[key] for key in ("data",) if key in item}
        kept["labels"] = item["metadata"].get("labels", {})
        if kind in ("Dataset", "FineTuneJob", "ModelDeployment", "BatchInference"):
            kept = {"spec": item["spec"], "status": item.get("status")}
        elif kind == "Job":
            kept["ended"] = [c["type"] for c in item["status"].get("conditions") or () if c["status"] == "True"]
        shown[f"{kind}/{name}"] = kept
    text = json.dumps(shown, sort_keys=True).replace(namespace, "NAMESPACE")
    for (kind, name), item in objects.items():
        text = text.replace(item["metadata"]["uid"], f"UID of {kind}/{name}")
    # The hash in a serving plan's name covers the namespace.
    text = re.sub(r"(support-serve-|finetune.dev/plan\": \")[0-9a-f]{8}", r"\1HASH", text)
    return dict(_without_times(json.loads(text)))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        # Who waited longest and how often is what a fault may change; what came of it is not.
        return {key: _without_times(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [_without_times(item) for item in value]
    return value


def differences(expected: Any, found: Any, path: str = "") -> list[str]:
    """Where two states differ, one line each."""
    if isinstance(expected, dict) and isinstance(found, dict):
        lines = []
        for key in sorted(set(expected) | set(found)):
            lines += differences(expected.get(key), found.get(key), f"{path}.{key}")
        return lines
    return [] if expected == found else [f"{path}: expected {expected!r}, found {found!r}"]
