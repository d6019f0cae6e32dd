"""Resources and children as the API server has them: valid by default; a keyword changes one thing."""

import copy
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from finetune_contract.base import StoredReference
from finetune_contract.batching import BatchCounts, BatchResult, ErrorCount
from finetune_contract.datasets import DatasetResult, Dropped, DropReason, RowFormat, Split
from finetune_contract.evaluating import TUNED, Baseline, Metric, Score
from finetune_contract.failure import Failure, FailureReason
from finetune_contract.results import Artifact, ArtifactType, StageResult, Timing, TrainingResult

Object = dict[str, Any]

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
NAMESPACE = "team-a"
_uids = count(1)


def digest(letter: str) -> str:
    """A digest that is easy to tell from others."""
    return "sha256:" + letter * 64


def stored(letter: str, folder: str = "models") -> StoredReference:
    return StoredReference(digest=digest(letter), uri=f"pvc://finetune-artifacts/{folder}/{letter * 64}")


def stamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _resource(kind: str, name: str, spec: Object, metadata: Object | None, status: Object | None) -> Object:
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{kind.lower()}-{name}",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": stamp(NOW),
            **(metadata or {}),
        },
        "spec": copy.deepcopy(spec),
        **({"status": status} if status is not None else {}),
    }


def make_dataset(
    name: str = "tickets", *, metadata: Object | None = None, status: Object | None = None, **spec: Any
) -> Object:
    return _resource("Dataset", name, {"source": {"inline": {"jsonl": '{"text": "a"}\n'}}, **spec}, metadata, status)


def make_job(
    name: str = "triage", *, metadata: Object | None = None, status: Object | None = None, **spec: Any
) -> Object:
    default = {"baseModel": {"huggingFace": {"repo": "org/model"}}, "dataset": {"name": "tickets"}}
    return _resource("FineTuneJob", name, {**default, **spec}, metadata, status)


def make_batch(
    name: str = "labels", *, metadata: Object | None = None, status: Object | None = None, **spec: Any
) -> Object:
    default = {
        "model": {"fineTuneJob": {"name": "triage"}},
        "input": {"dataset": {"name": "tickets", "split": "test"}},
    }
    return _resource("BatchInference", name, {**default, **spec}, metadata, status)


def make_deployment(
    name: str = "support", *, metadata: Object | None = None, status: Object | None = None, **spec: Any
) -> Object:
    default = {"adapters": [{"name": "triage", "fineTuneJob": {"name": "triage"}}]}
    return _resource("ModelDeployment", name, {**default, **spec}, metadata, status)


def ready_dataset(name: str = "tickets", letter: str = "d") -> Object:
    """A Dataset that has a revision."""
    revision = {
        "digest": digest(letter),
        "key": "k" * 32,
        "uri": stored(letter, "datasets").uri,
        "createdAt": stamp(NOW),
        "format": "Messages",
        "rows": {"read": 10, "kept": 9},
    }
    return make_dataset(name, status={"observedGeneration": 1, "phase": "Ready", "revision": revision})


def finished_job(
    name: str = "triage",
    artifact: str = "a",
    base: str = "b",
    type_: ArtifactType = ArtifactType.ADAPTER,
    facts: Object | None = None,
) -> Object:
    """A FineTuneJob that has an artifact."""
    reference = stored(artifact, "artifacts")
    status = {
        "phase": "Succeeded",
        "artifact": {
            **reference.model_dump(),
            "type": type_.value,
            "bytes": 1000,
            "base": stored(base).model_dump(),
            "adapter": {"rank": 16, "targets": ["q_proj", "v_proj"], "family": "llama", **(facts or {})},
            "run": "r" * 64,
        },
    }
    return make_job(name, status=status)


# --- what pods leave


def dataset_result(letter: str = "d", **more: Any) -> DatasetResult:
    return DatasetResult(
        **{
            "revision": stored(letter, "datasets"),
            "format": RowFormat.TEXT,
            "rows_read": 10,
            "rows_kept": 9,
            "dropped": (Dropped(reason=DropReason.EXACT_DUPLICATE, rows=1),),
            "splits": (Split(name="train", rows=8), Split(name="test", rows=1)),
            **more,
        }
    )


def stage_result(run_key: str | None, base: str = "b", **more: Any) -> StageResult:
    return StageResult(**{"base": stored(base), "revision": "c0ffee", "run_key": run_key, **more})


def training_result(run_key: str, attempt: int = 1, artifact: str = "a", **more: Any) -> TrainingResult:
    return TrainingResult(
        **{
            "run_key": run_key,
            "attempt": attempt,
            "artifact": Artifact(
                **stored(artifact, "artifacts").model_dump(), type=ArtifactType.ADAPTER, bytes=1000, base=stored("b")
            ),
            "step": 30,
            "total_steps": 30,
            "train_loss": 1.25,
            "checkpoint_step": 30,
            "evaluation": tuple(
                Score(metric=Metric.EXACT_MATCH, system=system, value=0.5, low=0.25, high=0.75, rows=100)
                for system in (TUNED, Baseline.ZERO_SHOT)
            ),
            "timings": (Timing(stage="Training", seconds=12.5),),
            **more,
        }
    )


def batch_result(rows: int = 10, failed: int = 0, letter: str = "f", **more: Any) -> BatchResult:
    counts = BatchCounts(
        rows=rows, succeeded=rows - failed, failed=failed, prompt_tokens=300, generated_tokens=50, seconds=5
    )
    fields = {
        "output": stored(letter, "batches"), "total_rows": rows, "counts": counts, "input_digest": digest("d"),
        "errors": (ErrorCount(code="invalid_json_line", rows=failed),) if failed else (), "device": "cpu", **more,
    }  # fmt: skip
    return BatchResult(**fields)


def failed_training(run_key: str, attempt: int, reason: FailureReason, **more: Any) -> TrainingResult:
    failure = Failure(reason=reason, message=f"it failed: {reason.value}")
    return TrainingResult(run_key=run_key, attempt=attempt, failure=failure, **more)


# --- children


def as_child(manifest: Object, now: datetime = NOW) -> Object:
    """A built object as the API server answers it and the cache keeps it."""
    child = copy.deepcopy(manifest)
    child["metadata"] |= {
        "uid": f"uid-{next(_uids)}",
        "resourceVersion": str(next(_uids)),
        "creationTimestamp": stamp(now),
        "generation": 1,
    }
    kept = {"nodeName", "suspend", "parallelism", "backoffLimit", "replicas", "accessModes"}
    if "spec" in child:
        child["spec"] = {name: value for name, value in child["spec"].items() if name in kept}
    child.pop("data", None)
    return child


def make_pod(job: Object, *, now: datetime = NOW, **status: Any) -> Object:
    """A pod of a Job; running by default."""
    number = next(_uids)
    metadata = job["metadata"]
    running = {"name": "main", "state": {"running": {"startedAt": stamp(now)}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name']}-{number}",
            "namespace": metadata["namespace"],
            "uid": f"uid-{number}",
            "labels": dict(metadata["labels"]),
            "creationTimestamp": stamp(now),
            "ownerReferences": [{"kind": "Job", "name": metadata["name"], "uid": metadata["uid"], "controller": True}],
        },
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Running", "containerStatuses": [running], **status},
    }


def terminated(message: str = "", *, code: int = 0, now: datetime = NOW, reason: str = "") -> Object:
    """Fields of a pod's status whose container has ended."""
    state = {
        "exitCode": code,
        "reason": reason or ("Error" if code else "Completed"),
        "message": message,
        "startedAt": stamp(now - timedelta(seconds=40)),
        "finishedAt": stamp(now),
    }
    phase = "Failed" if code else "Succeeded"
    return {"phase": phase, "containerStatuses": [{"name": "main", "state": {"terminated": state}}]}


def oom_killed() -> Object:
    return terminated(code=137, reason="OOMKilled")


def evicted(message: str = "The node was low on memory.") -> Object:
    return {"phase": "Failed", "reason": "Evicted", "message": message, "containerStatuses": []}


def disrupted(reason: str, *, code: int = 143) -> Object:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "going away"}
    return {**terminated(code=code), "conditions": [condition]}


def image_pull_error() -> Object:
    words = 'Back-off pulling image "nope": ErrImagePull: failed to pull image "nope": not found'
    waiting = {"reason": "ImagePullBackOff", "message": words}
    return {"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": waiting}}]}


def unschedulable() -> Object:
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "containerStatuses": [], "conditions": [condition]}


def ended(job: Object, *, complete: bool, now: datetime = NOW) -> None:
    """Give a Job its final condition."""
    kind = "Complete" if complete else "Failed"
    job["status"] = {"conditions": [{"type": kind, "status": "True", "lastTransitionTime": stamp(now)}]}


def event(regarding: Object, reason: str, note: str, *, at: datetime = NOW, seen: datetime | None = None) -> Object:
    """An Event as a controller posts it through client-go."""
    metadata = regarding["metadata"]
    return {
        "metadata": {"name": f"{metadata['name']}.{next(_uids)}", "creationTimestamp": stamp(at)},
        "eventTime": None,
        "deprecatedLastTimestamp": stamp(seen or at),
        "type": "Warning",
        "reason": reason,
        "note": note,
        "regarding": {"kind": regarding["kind"], "name": metadata["name"], "uid": metadata["uid"]},
    }
