"""Files of the store for people: a pod that lives for seconds prints one into its log.

The CLI cannot reach a claim or bucket itself, and nothing else of ours should serve files. So it creates, with the
user's own rights, a copy of the pod that wrote them: the same image, volumes and credentials, the store read-only, no
API token, nothing that makes the operator take it for its own.
"""

import base64
import binascii
import gzip
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from finetune_cli.errors import CliError, NotStoredError
from finetune_cli.facts import Object, items, part
from finetune_cli.kinds import GROUP, VERSION
from finetune_contract.paths import (
    LOG_FILE,
    PLAN_DIRECTORY,
    SCRATCH_MOUNT,
    SHOWN_BEGIN,
    SHOWN_END,
    STORE_MOUNT,
    evaluation_path,
)

if TYPE_CHECKING:
    from finetune_cli.cluster import Cluster

REPORT = "report.html"

_ABSENT = "--file: there is no"
"""What the pod says of a file that is not there."""

_LIFETIME = 300
"""Seconds after which the kubelet ends the pod of a CLI that was killed."""
_PAUSE = 0.5

_POD_FIELDS = (
    "affinity", "automountServiceAccountToken", "enableServiceLinks", "imagePullSecrets", "nodeSelector",
    "securityContext", "serviceAccountName", "tolerations",
)  # fmt: skip
_MOUNTS = (str(STORE_MOUNT), str(SCRATCH_MOUNT), str(PLAN_DIRECTORY))
"""The plan says where the store is."""
_CONTAINER_FIELDS = ("image", "imagePullPolicy", "env", "envFrom", "securityContext", "terminationMessagePolicy")


def fetch(cluster: "Cluster", resource: Object, file: str) -> bytes:
    """A file beside a resource's report.

    Raises:
        CliError: there is no report yet, or the pod could not read it.
    """
    where = _reference(resource)
    folder = _evaluation_folder(resource, where)
    if folder:
        with suppress(NotStoredError):  # what an older release has measured lies with the run
            return _read(cluster, resource, where, f"{folder}/{file}")
    return _read(cluster, resource, where, file)


def has_log(job: Object, attempt: int | None) -> bool:
    """Whether an attempt of a FineTuneJob's present run has ended; None: the last one."""
    wanted = attempt or part(job, "status", "run").get("attempt")
    return any(entry.get("number") == wanted for entry in items(job, "status", "attempts"))


def fetch_log(cluster: "Cluster", job: Object, attempt: int | None) -> bytes:
    """The log that an attempt which has ended has left in the store.

    Raises:
        CliError: the pod could not read it.
    """
    run = part(job, "status", "run")
    number = attempt or run["attempt"]
    where = {"run": run["key"], "uri": part(run, "inputs").get("baseUri", "")}
    return _read(cluster, job, where, f"attempts/{number}/{LOG_FILE}")


def _evaluation_folder(resource: Object, where: Object) -> str | None:
    key = part(resource, "status").get("evaluationKey")
    if resource["kind"] != "FineTuneJob" or not key:
        return None
    return evaluation_path(str(where["digest"]), str(key))


def _read(cluster: "Cluster", resource: Object, where: Object, file: str) -> bytes:
    pod = cluster.create_pod(reader(resource, _like(cluster.jobs_of_operator(), resource), where, file))
    try:
        _wait(cluster, pod)
        log = b"".join(cluster.log(pod)).decode(errors="replace")
    finally:
        cluster.delete_pod(pod)
    return unpacked(log)


def reader(resource: Object, like: Object, where: Object, file: str) -> Object:
    """The pod that prints a file, made like one of a Job's.

    Args:
        resource: Whose report it is: the pod goes with it.
        like: A Job whose pod has the store.
        where: The `digest` and `uri` of a stored directory, or of a job's artifact with its `run`.
        file: Which of its files.
    """
    pod = like["spec"]["template"]["spec"]
    container = pod["containers"][0]
    metadata = resource["metadata"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = [
        # A claim is only read; in place of one, copies of what is in S3 need room.
        mount | ({"readOnly": True} if "persistentVolumeClaim" in volumes[mount["name"]] else {})
        for mount in container["volumeMounts"]
        if mount["mountPath"] in _MOUNTS
    ]
    names = {mount["name"] for mount in mounts}
    # A job's report is of its run: it is made anew when only the evaluation changes, and the artifact is not.
    which = f"--run={where['run']}" if resource["kind"] == "FineTuneJob" else f"--digest={where['digest']}"
    owner = {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": resource["kind"], "name": metadata["name"], "uid": metadata["uid"],
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{metadata['name'][:40]}-report-",
            "labels": {"app.kubernetes.io/managed-by": "kubectl-finetune"},
            "ownerReferences": [owner],
        },
        "spec": {
            **{field: pod[field] for field in _POD_FIELDS if field in pod},
            "activeDeadlineSeconds": _LIFETIME,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "volumes": [volume for name, volume in volumes.items() if name in names],
            "containers": [
                {
                    **{field: container[field] for field in _CONTAINER_FIELDS if field in container},
                    "name": "show",
                    "command": [
                        "python", "-m", "finetune_store", "show", f"--uri={where['uri']}",
                        which, f"--file={file}",
                    ],
                    "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
                    "volumeMounts": mounts,
                }
            ],
        },
    }  # fmt: skip


def unpacked(log: str) -> bytes:
    """The file in a reader's log.

    Raises:
        CliError: the log has none: its last line says why.
    """
    _, begin, rest = log.partition(SHOWN_BEGIN)
    text, end, _ = rest.partition(SHOWN_END)
    if not begin or not end:
        last = log.strip().splitlines()[-1:] or ["it left no word"]
        error = NotStoredError if _ABSENT in last[0] else CliError
        raise error(f"the report could not be read: {last[0]}")
    try:
        return gzip.decompress(base64.b64decode("".join(text.split())))
    except (binascii.Error, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise CliError("the report came broken; try again") from error


def _reference(resource: Object) -> Object:
    name, kind = resource["metadata"]["name"], resource["kind"]
    found = part(part(part(resource, "status"), "revision"), "report") if kind == "Dataset" else {}
    found = found or part(part(resource, "status"), "artifact")
    if not found:
        said = "it has no revision with a report" if kind == "Dataset" else "it has no artifact"
        raise CliError(f"{kind} {name!r} has no report yet: {said}; `kubectl describe {kind.lower()} {name}` says why")
    return found


def _like(jobs: Sequence[Object], resource: Object) -> Object:
    """The newest Job whose pods have the store, one of the resource's own if there is any."""
    own = [job for job in jobs if part(job["metadata"], "labels").get(f"{GROUP}/name") == resource["metadata"]["name"]]
    for job in (*reversed(own), *reversed(jobs)):
        containers: list[Any] = job["spec"]["template"]["spec"]["containers"]
        if any(mount["mountPath"] == str(STORE_MOUNT) for mount in containers[0].get("volumeMounts", ())):
            return job
    raise CliError(
        "no Job of the operator is left in this namespace to take image and volumes from; give spec.rerun a new word, "
        "which reads the source again"
    )


def _wait(cluster: "Cluster", pod: str) -> None:
    """Until the pod has ended."""
    deadline = time.monotonic() + _LIFETIME
    while time.monotonic() < deadline:
        status = part(cluster.pod(pod), "status")
        if status.get("phase") in ("Succeeded", "Failed"):
            return
        time.sleep(_PAUSE)
    raise CliError(
        f"pod {pod} did not run within {_LIFETIME} s; `kubectl get events` says why, for example that its node is full"
    )
