"""A file of the store for somebody who cannot mount its volume: a short pod prints it, and is deleted.

The pod is a copy of one that the job has had before, with another command and without its GPU: the same image, volumes
and secrets, admitted by the same rules.
"""

import base64
import binascii
import copy
import secrets
from typing import Any, Protocol

from finetune_cli.errors import CliError
from finetune_cli.facts import Object, items, part
from finetune_contract.paths import FILE_BEGIN, FILE_END, STORE_MOUNT

COMMAND = ["python", "-m", "finetune_store", "show"]
RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
SECONDS = 120
"""How long the pod may live in all."""


class Pods(Protocol):
    """What is needed of a cluster."""

    def job_children(self, name: str) -> list[Object]:
        """The Jobs that a FineTuneJob has."""

    def run_pod(self, pod: Object, seconds: float) -> str:
        """Run a pod to its end, delete it, and answer its log."""


def fetch(cluster: Pods, name: str, path: str) -> bytes:
    """A file of the store.

    Args:
        cluster: Where the FineTuneJob is.
        name: The FineTuneJob whose pods know the store.
        path: Of the file, in the store.

    Raises:
        CliError: there is no pod to copy, it may not run, or there is no such file.
    """
    jobs = [job for job in cluster.job_children(name) if part(job, "metadata", "labels").get("finetune.dev/role")]
    with_store = [job for job in jobs if any(str(STORE_MOUNT) in _mounts(each) for each in _containers(job))]
    if not with_store:
        raise CliError(
            f"{name} has no Job left whose pod knows the store (spec.ttlAfterFinished deletes them); "
            f"mount the store's volume and read {path}"
        )
    newest = max(with_store, key=lambda job: str(part(job, "metadata").get("creationTimestamp")))
    return content(cluster.run_pod(pod_for(newest, path), SECONDS), path)


def pod_for(job: Object, path: str) -> Object:
    """The pod that prints a file, from a Job of ours."""
    spec = copy.deepcopy(part(job, "spec", "template", "spec"))
    container: dict[str, Any] = spec["containers"][0]
    for field in ("ports", "readinessProbe", "livenessProbe", "startupProbe", "terminationMessagePolicy"):
        container.pop(field, None)
    container |= {"name": "show", "command": [*COMMAND, path], "args": [], "resources": RESOURCES}
    spec |= {"containers": [container], "restartPolicy": "Never", "activeDeadlineSeconds": SECONDS}
    metadata = part(job, "metadata")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{str(metadata.get('name'))[:50]}-show-{secrets.token_hex(3)}",
            "annotations": part(job, "spec", "template", "metadata", "annotations"),
        },
        "spec": spec,
    }


def content(log: str, path: str) -> bytes:
    """The file in a pod's log.

    Raises:
        CliError: the pod has printed something else: its last words.
    """
    _, begun, rest = log.partition(f"{FILE_BEGIN}\n")
    body, ended, _ = rest.partition(FILE_END)
    if begun and ended:
        try:
            return base64.b64decode("".join(body.split()), validate=True)
        except binascii.Error:
            pass
    last = log.strip().splitlines()[-1:] or ["it printed nothing"]
    raise CliError(f"{path} could not be fetched: {last[0]}")


def _containers(job: Object) -> list[Object]:
    return items(job, "spec", "template", "spec", "containers")


def _mounts(container: Object) -> set[str]:
    return {str(mount.get("mountPath")) for mount in items(container, "volumeMounts")}
