"""Files of the store for people: a pod that lives for seconds prints one into its log.

The CLI cannot reach a claim or bucket itself, and nothing else of ours should serve files. So it creates, with the
user's own rights, a copy of the pod that wrote them: the same volumes and credentials, the newest image of such pods,
the store read-only, no API token, nothing that makes the operator take it for its own.
"""

import base64
import binascii
import copy
import gzip
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from finetune_cli.errors import CliError, NotStoredError
from finetune_cli.facts import Object, items, part
from finetune_cli.kinds import GROUP, VERSION
from finetune_cli.view import clean
from finetune_contract.paths import (
    LOG_FILE,
    PLAN_DIRECTORY,
    SCRATCH_MOUNT,
    SHOWN_BEGIN,
    SHOWN_END,
    STORE_MOUNT,
    attempt_name,
    attempt_path,
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
_QUIET = 5
"""Seconds in which a pod may wait without a word."""
_IMAGE_GONE = (
    "it is the image of the newest of our Jobs in this namespace: push it again, or apply a Dataset, whose Job has the "
    "operator's present one"
)
_NEVER_STARTS = {
    "ImagePullBackOff": _IMAGE_GONE,
    "ErrImageNeverPull": _IMAGE_GONE,
    "InvalidImageName": _IMAGE_GONE,
    "CreateContainerConfigError": "create what is missing and try again",
}
"""What a container waits for in vain, and what to do."""

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


def has_log(resource: Object, attempt: int | None) -> bool:
    """Whether an attempt of a FineTuneJob's or BatchInference's present run has ended; None: the last one."""
    run = part(resource, "status", "run")
    wanted = attempt or run.get("attempt")
    # A batch tells of earlier runs' attempts, too.
    return any(
        entry.get("number") == wanted and str(run.get("key")).startswith(entry.get("run", ""))
        for entry in items(resource, "status", "attempts")
    )


def fetch_log(cluster: "Cluster", resource: Object, attempt: int | None) -> bytes:
    """The log that an attempt which has ended has left in the store.

    Raises:
        CliError: the pod could not read it.
    """
    run = part(resource, "status", "run")
    number = attempt or run["attempt"]
    if resource["kind"] == "BatchInference":
        name, uri = attempt_name(resource["metadata"]["uid"], number), run["base"]["uri"]
    else:
        name, uri = str(number), part(run, "inputs").get("baseUri", "")
    return _read(cluster, resource, {"run": run["key"], "uri": uri}, attempt_path(name, LOG_FILE))


def _evaluation_folder(resource: Object, where: Object) -> str | None:
    key = part(resource, "status").get("evaluationKey")
    if resource["kind"] != "FineTuneJob" or not key:
        return None
    return evaluation_path(str(where["digest"]), str(key))


def _read(cluster: "Cluster", resource: Object, where: Object, file: str) -> bytes:
    like = _like(cluster.jobs_of_operator(), resource)
    pod = cluster.create_pod(reader(resource, like, where, file))
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
    which = f"--run={where['run']}" if "run" in where else f"--digest={where['digest']}"
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
        raise error(f"the stored file could not be read: {last[0]}")
    try:
        return gzip.decompress(base64.b64decode("".join(text.split())))
    except (binascii.Error, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise CliError("the stored file came broken; try again") from error


def _reference(resource: Object) -> Object:
    name, kind = resource["metadata"]["name"], resource["kind"]
    found = part(part(part(resource, "status"), "revision"), "report") if kind == "Dataset" else {}
    found = found or _made(resource) or part(resource, "status", "artifact")
    if not found:
        said = "it has no revision with a report" if kind == "Dataset" else "it has no artifact"
        raise CliError(f"{kind} {name!r} has no report yet: {said}; `kubectl describe {kind.lower()} {name}` says why")
    return found


def _made(job: Object) -> Object:
    """What a FineTuneJob's present run has made, also where its gate does not let that become the job's artifact."""
    key = part(job, "status", "run").get("key")
    return next((part(record, "artifact") for record in items(job, "status", "runs") if record.get("key") == key), {})


def _like(jobs: Sequence[Object], resource: Object) -> Object:
    """The newest Job whose pods have the store, one of the resource's own if there is any, with the newest image.

    Which image that is, the operator's settings say: older ones may be gone from the registry.
    """
    able = [job for job in reversed(jobs) if _has_store(_container(job))]
    own = [job for job in able if part(job["metadata"], "labels").get(f"{GROUP}/name") == resource["metadata"]["name"]]
    for job in (*own, *able):
        found = copy.deepcopy(job)
        _container(found)["image"] = _container(able[0])["image"]
        return found
    raise CliError(
        "no Job of the operator is left in this namespace to take image and volumes from; give spec.rerun a new word, "
        "which reads the source again"
    )


def _container(job: Object) -> Object:
    found: Object = job["spec"]["template"]["spec"]["containers"][0]
    return found


def _has_store(container: Object) -> bool:
    return any(mount["mountPath"] == str(STORE_MOUNT) for mount in container.get("volumeMounts", ()))


def _wait(cluster: "Cluster", pod: str) -> None:
    """Until the pod has ended; what it waits for is told, unless that passes at once."""
    began, told = time.monotonic(), ""
    while (waited := time.monotonic() - began) < _LIFETIME:
        status = part(cluster.pod(pod), "status")
        if status.get("phase") in ("Succeeded", "Failed"):
            return
        reason, message = _waits_for(status)
        if reason in _NEVER_STARTS:
            raise CliError(f"pod {pod} cannot start: {reason}: {message}; {_NEVER_STARTS[reason]}")
        if waited > _QUIET and reason and reason != told:
            typer.echo(clean(f"pod {pod} waits: {reason}: {message}"), err=True)
            told = reason
        time.sleep(_PAUSE)
    raise CliError(
        f"pod {pod} did not run within {_LIFETIME} s; `kubectl get events` says why, for example that its node is full"
    )


def _waits_for(status: Object) -> tuple[str, str]:
    """Reason and message of the container that does not start, or of the scheduler; empty while nobody complains."""
    waiting = [part(part(each, "state"), "waiting") for each in items(status, "containerStatuses")]
    refused = [each for each in items(status, "conditions") if each.get("reason") == "Unschedulable"]
    found = next((each for each in (*waiting, *refused) if each.get("message")), {})
    return str(found.get("reason", "")), str(found.get("message", ""))
