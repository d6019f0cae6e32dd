"""Where the time went, read from the objects' own timestamps and the trainer's stages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tools.demo.kubectl import Namespace, Object, condition


def moment(text: str) -> datetime:
    """A Kubernetes timestamp."""
    return datetime.fromisoformat(text)


def of_job(namespace: Namespace, job: Object, inputs: Sequence[Object]) -> dict[str, float]:
    """Seconds from apply to the training pod, from the pod to the first step, and of each stage of the last attempt.

    Args:
        namespace: Where its pods are.
        job: The FineTuneJob.
        inputs: The Datasets and FineTuneJobs that it had to wait for.
    """
    name = job["metadata"]["name"]
    applied = moment(job["metadata"]["creationTimestamp"])
    complete = max([applied, *(moment(condition(item, "Ready")["lastTransitionTime"]) for item in inputs)])
    pods = namespace.find("pods", f"finetune.dev/name={name},finetune.dev/role=train")
    seconds: dict[str, float] = {}
    stages = {entry["stage"]: entry["seconds"] for entry in job["status"].get("timings", ())}
    if pods:
        pod = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        created = moment(pod["metadata"]["creationTimestamp"])
        complete = min(complete, created)
        seconds["apply to inputs ready"] = (complete - applied).total_seconds()
        seconds["inputs ready to pod"] = (created - complete).total_seconds()
        started = _started(pod)
        if started:
            waited = (started - created).total_seconds()
            seconds["pod to first step"] = waited + stages.get("Loading", 0.0) + stages.get("FirstStep", 0.0)
    seconds["training"] = stages.get("Training", 0.0)
    seconds["evaluation"] = stages.get("Evaluating", 0.0)
    return {stage: round(value, 1) for stage, value in seconds.items()}


def _started(pod: Object) -> datetime | None:
    for status in pod["status"].get("containerStatuses", ()):
        state = status["state"].get("terminated") or status["state"].get("running") or {}
        if state.get("startedAt"):
            return moment(state["startedAt"])
    return None
