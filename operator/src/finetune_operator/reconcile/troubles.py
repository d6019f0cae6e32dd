"""What keeps a pod from running, with a name for each cause.

Mostly the pod says it itself. Three causes are only in Events: a Job whose pod is refused (quota, Pod Security), a
volume that cannot be attached or mounted, a claim that is not provisioned. `in_doubt` says whose Events are wanted, the
engine reads those, and `reports_of` translates them.

Messages are the same words as long as the cause is the same, whatever try the kubelet or a controller is at: a
condition that changes with each of them would be written for ever.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from finetune_contract.failure import Failure, FailureReason, policy_of, reason_of, reason_of_exit_code
from finetune_operator.manifests.naming import Manifest

POD_STARTING = "PodStarting"
"""Nothing is wrong with the pod, it only does not run yet."""

_SIGKILL = 137


class Trouble(NamedTuple):
    """What keeps a Job's pod from running, or says that it does not run yet."""

    reason: str
    message: str

    @property
    def advice(self) -> str:
        """The message, with the remedy where the reason has one."""
        reason = reason_of(self.reason)
        return (
            self.message if reason.value != self.reason else f"{self.message.rstrip('.')}. {policy_of(reason).remedy}"
        )


class Doubt(NamedTuple):
    """An object that does not get on and does not say why."""

    kind: str
    uid: str
    since: datetime


@dataclass(frozen=True)
class Reports:
    """What Events say about objects in doubt."""

    by_uid: Mapping[str, Trouble] = field(default_factory=dict)
    """Uid of a Job or Pod -> what its newest Event says."""
    claim: Trouble | None = None
    """What is told of a claim that is not bound."""


NO_REPORTS = Reports()

EVENT_REASONS: Mapping[str, tuple[str, ...]] = {
    "Job": ("FailedCreate",),
    "Pod": ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"),
    "PersistentVolumeClaim": ("ProvisioningFailed", "FailedBinding"),
}
"""Reasons of the Events that explain an object of each kind: written by the Job controller, the kubelet, the
attach/detach controller, a volume's provisioner and the claim binder."""


# --- whose Events are wanted


def in_doubt(children: Mapping[str, Iterable[Manifest]], claims: Iterable[Manifest]) -> list[Doubt]:
    """Jobs that lack pods, pods between node and first container, and, for those, claims that are not bound."""
    pods = [pod for pod in children.get("Pod", ()) if not pod["metadata"].get("deletionTimestamp")]
    made = Counter(owner["uid"] for pod in pods for owner in pod["metadata"].get("ownerReferences") or ())
    jobs = [job for job in children.get("Job", ()) if _lacks_pods(job, made)]
    starting = [pod for pod in pods if _is_before_its_containers(pod)]
    unbound = [claim for claim in claims if (claim.get("status") or {}).get("phase") != "Bound"] if starting else []
    return [_doubt(item) for item in (*jobs, *starting, *unbound)]


def _lacks_pods(job: Manifest, made: Counter[str]) -> bool:
    metadata, status, spec = job["metadata"], job.get("status") or {}, job.get("spec") or {}
    is_over = any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in status.get("conditions") or ())
    is_held = bool(spec.get("suspend")) or bool(metadata.get("deletionTimestamp"))
    return not is_over and not is_held and made[metadata["uid"]] < int(spec.get("parallelism") or 1)


def _is_before_its_containers(pod: Manifest) -> bool:
    status = pod.get("status") or {}
    if status.get("phase") not in (None, "Pending") or _condition(pod, "PodReadyToStartContainers") == "True":
        return False
    # A pod that fits on no node says so itself, unless a claim is what it waits for.
    return _condition(pod, "PodScheduled") != "False" or "persistentvolumeclaim" in _words_of_the_scheduler(pod).lower()


def _doubt(item: Manifest) -> Doubt:
    metadata = item["metadata"]
    conditions = (item.get("status") or {}).get("conditions") or ()
    stamps = [c["lastTransitionTime"] for c in conditions if c["type"] == "PodScheduled" and "lastTransitionTime" in c]
    since = max(datetime.fromisoformat(stamp) for stamp in (metadata["creationTimestamp"], *stamps))
    return Doubt(item["kind"], metadata["uid"], since)


# --- what Events say


def reports_of(doubts: Iterable[Doubt], events: Iterable[Manifest]) -> Reports:
    """What the newest Event about each object in doubt says."""
    kinds = {doubt.uid: doubt.kind for doubt in doubts}
    newest: dict[str, Manifest] = {}
    for event in sorted(events, key=_weight):
        uid = event["regarding"].get("uid")
        if uid in kinds and not _PASSING.search(str(event.get("note"))):
            newest[uid] = event
    found = {uid: _report_of(event) for uid, event in newest.items()}
    claim = next((found[uid] for uid in sorted(found) if kinds[uid] == "PersistentVolumeClaim"), None)
    return Reports(found, claim)


def _weight(event: Manifest) -> tuple[bool, datetime]:
    """Later is better, but the kubelet's summary says less than the error that it sums up."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("deprecatedLastTimestamp"), event.get("eventTime"))
    stamp = next((time for time in times if time), event["metadata"]["creationTimestamp"])
    return "Unable to attach or mount volumes" not in str(event.get("note")), datetime.fromisoformat(stamp)


_PASSING = re.compile("not registered$|failed to sync (configmap|secret) cache")
"""A kubelet that has not yet read what it mounts; its next try, in half a second, has."""


def _report_of(event: Manifest) -> Trouble:
    """What an Event (events.k8s.io/v1) says about the object that it regards."""
    reason, note = str(event.get("reason", "")), stable(str(event.get("note") or ""))
    match reason:
        case "FailedCreate":
            return Trouble(refusal(note), f"the pod was refused: {note}")
        case "ProvisioningFailed" | "FailedBinding":
            claim = event["regarding"].get("name")
            return Trouble(FailureReason.STORAGE_UNAVAILABLE.value, f"claim {claim}: {note}")
        case "FailedAttachVolume":
            return Trouble(FailureReason.STORAGE_UNAVAILABLE.value, note)
        case "FailedMount" if _NOT_STORAGE.search(note) is None:
            return Trouble(FailureReason.STORAGE_UNAVAILABLE.value, note)
        case _:
            return Trouble(reason, note)


_NOT_STORAGE = re.compile(r'(configmap|secret) "')
"""A volume that is an object of the API, and the object is missing."""

TAKEN = "the name is taken"
"""What a refusal says where an object of somebody else has the name of a child."""

NAME_TAKEN = "NameTaken"

_REFUSALS = (
    ("exceeded quota", FailureReason.QUOTA_EXCEEDED.value),
    ("PodSecurity", FailureReason.POD_SECURITY_DENIED.value),
    (TAKEN, NAME_TAKEN),
)
"""What admission plugins of Kubernetes, or we, say -> the reason."""


def refusal(words: str) -> str:
    """The reason of a refusal: quota, Pod Security, a name that is taken, or somebody else's."""
    return next((reason for sign, reason in _REFUSALS if sign in words), "CreationDenied")


_TRIES = (
    # A refused pod has another name at each try.
    (re.compile(r'^(Error creating: )?(pods "[^"]*" is forbidden: )?'), ""),
    # The kubelet tells the error and "Back-off ..., then the error" by turns.
    (re.compile(r'^Back-off pulling image "[^"]*"(: )?'), ""),
    (re.compile(r"^(ErrImagePull|ImagePullBackOff): "), ""),
    # The client's port of a connection that failed.
    (re.compile(r"(\d):\d{4,5}->"), r"\1->"),
)


def stable(words: str) -> str:
    """Words without what changes from try to try."""
    for pattern, instead in _TRIES:
        words = pattern.sub(instead, words)
    return words


# --- what a pod says


def pod_trouble(pod: Manifest, reports: Reports = NO_REPORTS) -> Trouble | None:
    """What keeps a pod from running; None when it runs."""
    status = pod.get("status") or {}
    if _condition(pod, "PodScheduled") == "False":
        return _unscheduled(_words_of_the_scheduler(pod), reports)
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        trouble = _waiting(container) or _crashed(container)
        if trouble:
            return trouble
    if status.get("phase") in (None, "Pending"):
        found = (
            (reports.by_uid.get(pod["metadata"]["uid"]) or reports.claim) if _is_before_its_containers(pod) else None
        )
        return found or Trouble(POD_STARTING, "the pod is starting")
    return None


def _unscheduled(words: str, reports: Reports) -> Trouble:
    if "persistentvolumeclaim" not in words.lower():
        return Trouble(FailureReason.UNSCHEDULABLE.value, words)
    return reports.claim or Trouble(FailureReason.STORAGE_UNAVAILABLE.value, words)


def _waiting(container: dict[str, Any]) -> Trouble | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in _IMAGE_TROUBLE:
        cause = stable(message) or f"image {container.get('image', '')} cannot be pulled"
        return Trouble(FailureReason.IMAGE_PULL_FAILED.value, f"container {container['name']}: {cause}")
    if reason in _CONFIG_TROUBLE:
        return Trouble(reason, f"container {container['name']}: {message}")
    return None


_IMAGE_TROUBLE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_CONFIG_TROUBLE = {"CreateContainerConfigError", "CreateContainerError"}


def _crashed(container: dict[str, Any]) -> Trouble | None:
    """Why a container that is restarted ended last time, until it is ready again."""
    state, last = container.get("state") or {}, container.get("lastState") or {}
    ended = state.get("terminated") or last.get("terminated")
    is_restarted = int(container.get("restartCount") or 0) > 0 or "waiting" in state
    if not ended or container.get("ready") or not is_restarted or int(ended.get("exitCode", 0)) == 0:
        return None
    failure = failure_of_exit(ended)
    return Trouble(failure.reason.value, f"container {container['name']} ended: {failure.message}")


def failure_of_exit(terminated: dict[str, Any]) -> Failure:
    """The name of an exit code that is not 0, with the last words of the container."""
    code, words = int(terminated.get("exitCode", 0)), str(terminated.get("message") or "")
    # A limit that is too small for runc itself ends as StartError, in the words of runc.
    if terminated.get("reason") == "OOMKilled" or "container init was OOM-killed" in words:
        return Failure(reason=FailureReason.HOST_OUT_OF_MEMORY, message="the container exceeded its memory limit")
    try:
        return Failure.model_validate_json(words)
    except ValidationError:
        # The kernel's memory killer is OOMKilled above; whoever else sent the signal, a new attempt can help.
        reason = FailureReason.TRAINER_CRASHED if code == _SIGKILL else reason_of_exit_code(code)
        return Failure(reason=reason, message=(words or f"exit code {code}")[-1000:])


def _condition(pod: Manifest, type_: str) -> str:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((str(condition["status"]) for condition in conditions if condition["type"] == type_), "")


def _words_of_the_scheduler(pod: Manifest) -> str:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((str(item.get("message", "")) for item in conditions if item["type"] == "PodScheduled"), "")
