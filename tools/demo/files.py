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
READER = "read-held-out"
STORE_CLAIM = "finetune-artifacts"
USER = 65532
LIMIT_SECONDS = 300

READ_ROWS = """
import json, sys
import pyarrow.parquet as parquet
for row in parquet.read_table(sys.argv[1]).to_pylist():
    print(json.dumps(row))
"""


def make_files(namespace: Namespace) -> None:
    """Put docstrings.jsonl, modules.jsonl and base/ into the claim `demo-files`; a second time does nothing."""
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    script = {"make_base.py": SCRIPT.read_text()}
    namespace.apply_objects(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": claim},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": JOB}, "data": script},
    )
    _start(namespace, _job(JOB, ["python", "/script/make_base.py", "/files"], CLAIM, script=JOB))
    for line in _output(namespace, JOB, "making docstrings and a random base model").splitlines():
        say(f"  {line}")


def held_out_rows(namespace: Namespace, revision: Object) -> list[Object]:
    """The test split of a dataset revision, read by a pod from the store's claim."""
    path = "/files/" + revision["uri"].removeprefix(f"pvc://{STORE_CLAIM}/") + "/test.parquet"
    name = f"{READER}-{revision['digest'].removeprefix('sha256:')[:8]}"
    _start(namespace, _job(name, ["python", "-c", READ_ROWS, path], STORE_CLAIM))
    return [json.loads(line) for line in _output(namespace, name, "reading the held-out rows").splitlines()]


def _start(namespace: Namespace, job: Object) -> None:
    """Begin a Job, unless an earlier demo has; one that failed is begun anew.

    A Job's pod template cannot be changed, so one of an earlier image stays as it is.
    """
    name = job["metadata"]["name"]
    found = namespace.get("job", name)
    if found and (found.get("status") or {}).get("failed"):
        namespace.kubectl("delete", "job", name, "--wait=true")
        found = None
    if found is None:
        namespace.apply_objects(job)


def _output(namespace: Namespace, job: str, what: str) -> str:
    """What a Job has written, once it has succeeded."""

    def finished() -> Object | None:
        item = namespace.get("job", job)
        status = (item or {}).get("status") or {}
        if status.get("failed"):
            raise StepError(f"Job {job} failed\n{namespace.last_words(f'job-name={job}')}")
        return item if status.get("succeeded") else None

    wait(what, finished, LIMIT_SECONDS)
    return namespace.kubectl("logs", f"job/{job}", "--tail=-1")


def _job(name: str, command: list[str], claim: str, script: str = "") -> Object:
    spec = {"backoffLimit": 0, "template": {"spec": _pod(command, claim, script)}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def _pod(command: list[str], claim: str, script: str) -> Object:
    volumes: list[Object] = [
        {"name": "files", "persistentVolumeClaim": {"claimName": claim}},
        {"name": "scratch", "emptyDir": {}},
    ]
    if script:
        volumes.append({"name": "script", "configMap": {"name": script}})
    container: Object = {
        "name": "run",
        "image": json.loads(IMAGES_FILE.read_text())["trainer"],
        "imagePullPolicy": "IfNotPresent",
        "command": command,
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
