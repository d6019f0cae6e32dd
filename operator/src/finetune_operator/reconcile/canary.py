"""`spec.rollout.canary`: a new revision is tried by pods of its own, and takes over or is given up; never by an edit.

What has been served whole and proven is the stable revision, kept in status, so that it is served on whatever the spec
says meanwhile. One that was given up is remembered by its key and not tried again. Taking the canary out of the spec
forgets both.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_operator.api.base import seconds_of
from finetune_operator.api.rollout import Canary, CanaryStatus, Revision, RolledBack, RolloutStatus
from finetune_operator.manifests import serving
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile import revisions, rollout
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.servedbase import Pass

CANARY = "Canary"
ROLLED_BACK = "RolledBack"
PROMOTED = "Promoted"

REMEMBERED = 10
"""Revisions that were given up, in status."""


@dataclass(frozen=True)
class Course:
    """What is to be served now."""

    main: Revision
    canary: Revision | None = None
    given_up: RolledBack | None = None
    """Why the wanted revision is not tried."""


def course_of(this: Pass, wanted: Revision) -> Course:
    """Decide between going on, taking over and going back; sets `this.rollout`."""
    canary = this.deployment.spec.rollout.canary
    if canary is None:
        this.rollout = None
        return Course(wanted)
    before = this.deployment.status.rollout or RolloutStatus()
    this.rollout = before.model_copy(update={"canary": None})
    if before.stable is None or before.stable.key == wanted.key:
        return Course(wanted)
    if given_up := next((each for each in before.rolled_back if each.key == wanted.key), None):
        return Course(before.stable, given_up=given_up)
    known = before.canary if before.canary and before.canary.key == wanted.key else CanaryStatus(key=wanted.key)
    return _try(this, before.stable, wanted, _measured(this, wanted, known), canary)


def latch(this: Pass, served: Revision) -> None:
    """All pods there are serve this, proven: it is what is gone back to."""
    if this.rollout is not None:
        this.rollout = this.rollout.model_copy(update={"stable": served})


def _measured(this: Pass, wanted: Revision, known: CanaryStatus) -> CanaryStatus:
    """What the canary pods say now."""
    observed = this.observed
    counted = [
        observed.traffic[pod["metadata"]["uid"]]
        for pod in rollout.pods_of(observed, serving.CANARY)
        if pod["metadata"]["uid"] in observed.traffic
    ]
    proven_at = known.proven_at
    if proven_at is None and _is_done(this, wanted):
        proven_at = this.now.replace(microsecond=0)
    if proven_at is None:
        # Pods of the canary before this one may still be there.
        return CanaryStatus(key=known.key)
    return CanaryStatus(
        key=known.key,
        proven_at=proven_at,
        requests=sum(each.requests for each in counted),
        errors=sum(each.errors for each in counted),
    )


def _is_done(this: Pass, wanted: Revision) -> bool:
    name = revisions.plan_name(this.deployment, wanted, this.observed.settings)
    item = rollout.child_of(this.deployment, this.observed, serving.CANARY)
    return rollout.is_done(item, name, this.deployment, serving.CANARY)


def _try(this: Pass, stable: Revision, wanted: Revision, status: CanaryStatus, limits: Canary) -> Course:
    """The first that holds: it has failed, its time is not over, it may take over."""
    assert this.rollout is not None
    if fault := _fault(this, wanted, status, limits):
        return _give_up(this, stable, *fault, key=wanted.key)
    going_on = Course(stable, wanted)
    this.rollout = this.rollout.model_copy(update={"canary": status})
    if status.proven_at is None:
        return going_on
    left = status.proven_at + timedelta(seconds=seconds_of(limits.interval)) - this.now
    if left > timedelta(0):
        this.wake_after = left.total_seconds()
        return going_on
    # Without a count nobody can say that the rate is below the limit.
    if not _is_done(this, wanted) or not _counts(this):
        return going_on
    if status.errors > limits.max_error_rate * status.requests:
        return _give_up(this, stable, "ErrorRate", _rate(status, limits), key=wanted.key)
    said = f"{_words(stable, wanted)}: {status.errors} of {status.requests} requests failed in {limits.interval}"
    this.events.append(Event("Normal", PROMOTED, said[:1000]))
    this.rollout = this.rollout.model_copy(update={"stable": wanted, "canary": None})
    return Course(wanted)


def _counts(this: Pass) -> bool:
    pods = rollout.pods_of(this.observed, serving.CANARY)
    return bool(pods) and all(pod["metadata"]["uid"] in this.observed.traffic for pod in pods)


def _fault(this: Pass, wanted: Revision, status: CanaryStatus, limits: Canary) -> tuple[str, str] | None:
    """Why the canary is given up before its time is over."""
    digests = {(each.name, each.digest) for each in wanted.adapters}
    for key, proof in rollout.unproven(this.observed, serving.CANARY).items():
        if key in digests:
            return f"Adapter{proof.state.value}", f"adapter {proof.name} is {proof.state.value}: {proof.message}"
    pods = rollout.pods_of(this.observed, serving.CANARY)
    for pod in pods:
        if status.proven_at and _has_ended_since(pod, status.proven_at):
            return "CanaryCrashed", f"the engine of pod {pod['metadata']['name']} has ended and was started again"
    item = rollout.child_of(this.deployment, this.observed, serving.CANARY)
    if (
        status.proven_at is None
        and item
        and _is_late(item, revisions.plan_name(this.deployment, wanted, this.observed.settings))
    ):
        return "CanaryNotReady", "its pods were not ready in spec.startupTimeout"
    if status.requests >= limits.min_requests and status.errors > limits.max_error_rate * status.requests:
        return "ErrorRate", _rate(status, limits)
    return None


def _has_ended_since(pod: Manifest, proven_at: datetime) -> bool:
    """Whether the engine has ended after its proof; before it, it may have waited for something."""
    for each in (pod.get("status") or {}).get("containerStatuses") or ():
        states = ((each.get(name) or {}).get("terminated") or {} for name in ("state", "lastState"))
        ends = [str(state["finishedAt"]) for state in states if state.get("finishedAt")]
        if each.get("name") == "engine" and any(datetime.fromisoformat(end) >= proven_at for end in ends):
            return True
    return False


def _is_late(item: Manifest, plan: str) -> bool:
    """Whether the Deployment controller has given up waiting for the pods of this plan."""
    status = item.get("status") or {}
    is_current = item["metadata"].get("labels", {}).get(serving.LABEL_PLAN) == plan[-8:]
    is_seen = status.get("observedGeneration", 0) >= item["metadata"].get("generation", 1)
    return (
        is_current
        and is_seen
        and any(
            each["type"] == "Progressing" and each.get("reason") == "ProgressDeadlineExceeded"
            for each in status.get("conditions") or ()
        )
    )


def _rate(status: CanaryStatus, limits: Canary) -> str:
    return (
        f"{status.errors} of {status.requests} requests failed; spec.rollout.canary.maxErrorRate allows "
        f"{limits.max_error_rate:g}"
    )


def _give_up(this: Pass, stable: Revision, reason: str, message: str, *, key: str) -> Course:
    assert this.rollout is not None
    given_up = RolledBack(key=key, reason=reason, message=message[:1024], time=this.now.replace(microsecond=0))
    listed = [*this.rollout.rolled_back, given_up][-REMEMBERED:]
    this.rollout = this.rollout.model_copy(update={"canary": None, "rolled_back": listed})
    this.events.append(Event("Warning", ROLLED_BACK, f"{reason}: {message}"[:1000]))
    return Course(stable, given_up=given_up)


def _words(stable: Revision, wanted: Revision) -> str:
    """What is new."""
    old = {(each.name, each.digest) for each in stable.adapters}
    new = [f"{each.name} {each.digest}" for each in wanted.adapters if (each.name, each.digest) not in old]
    return ", ".join(new) or "the engine"


def say(this: Pass, course: Course) -> bool:
    """Let the conditions tell of the canary; answers whether there is something to tell."""
    if course.given_up:
        message = (
            f"{course.given_up.reason}: {course.given_up.message}; what was served before is served on. Give it "
            "another artifact or engine, or take out spec.rollout.canary to roll it out regardless"
        )
        this.conditions.stalled(ROLLED_BACK, message)
        return True
    if course.canary is None or this.rollout is None or this.rollout.canary is None:
        return False
    status, what = this.rollout.canary, _words(course.main, course.canary)
    if status.proven_at is None:
        hindrance = rollout.hindrance(this.observed)
        this.conditions.waiting(CANARY, f"{what}: {hindrance.reason}: {hindrance.message}")
    else:
        words = f"{what}: proven; {status.errors} of {status.requests} requests have failed so far"
        this.conditions.waiting(CANARY, words)
    return True
