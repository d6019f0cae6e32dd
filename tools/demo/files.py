"""The demo's raw material: a random base model and docstrings, made by an ordinary Job in the trainer image."""

from __future__ import annotations

import json
from pathlib import Path

from tools.console import StepError, say
from tools.demo.kubectl import Namespace, Object, wait
from tools.paths import IMAGES_FILE

SCRIPT = Path(__file__).with_name("make_base.py")
CLAIM = "demo-files"
JOB = "make-demo-files"
USER = 65532
LIMIT_SECONDS = 300


def make_files(namespace: Namespace) -> None:
    """Put docstrings.jsonl, modules.jsonl and base/ into the claim `demo-files`; a second time does nothing."""
    image = json.loads(IMAGES_FILE.read_text())["trainer"]
    namespace.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": _objects(image)}))

    def finished() -> Object | None:
        job = namespace.get("job", JOB)
        status = (job or {}).get("status") or {}
        if status.get("failed"):
            raise StepError(f"Job {JOB} failed\n{namespace.last_words(f'job-name={JOB}')}")
        return job if status.get("succeeded") else None

    wait("making docstrings and a random base model", finished, LIMIT_SECONDS)
    for line in namespace.last_words(f"job-name={JOB}").splitlines():
        say(f"  {line}")


def _objects(image: str) -> list[Object]:
    script = {"make_base.py": SCRIPT.read_text()}
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": claim},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": JOB}, "data": script},
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": JOB},
            "spec": {"backoffLimit": 0, "template": {"spec": _pod(image)}},
        },
    ]


def _pod(image: str) -> Object:
    volumes: list[Object] = [
        {"name": "files", "persistentVolumeClaim": {"claimName": CLAIM}},
        {"name": "script", "configMap": {"name": JOB}},
        {"name": "scratch", "emptyDir": {}},
    ]
    container: Object = {
        "name": "make",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "/script/make_base.py", "/files"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes],
        "env": [{"name": "TMPDIR", "value": "/scratch"}, {"name": "HOME", "value": "/scratch"}],
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
