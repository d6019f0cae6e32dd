"""Jobs, events and answers to take pictures of; always the same, so that a picture changes only with the plugin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_cli.kinds import Shown
from finetune_operator.reconcile.trusted import REMEDY

Object = dict[str, Any]

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def ago(**span: float) -> str:
    """A time before now, as Kubernetes writes it."""
    return (NOW - timedelta(**span)).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, holds: bool, reason: str, message: str = "", minutes: float = 5) -> Object:
    """A condition of a status."""
    return {
        "type": kind,
        "status": str(holds),
        "reason": reason,
        "message": message,
        "lastTransitionTime": ago(minutes=minutes),
    }


def job(name: str, phase: str, hours: float, spec: Object | None = None, **status: Any) -> Object:  # noqa: ANN401
    """A FineTuneJob of the namespace `team-a`."""
    default = {
        "baseModel": {"huggingFace": {"repo": "meta-llama/Llama-3.1-8B-Instruct"}},
        "dataset": {"name": "tickets"},
        "method": "SFT",
        "adapter": {"type": "LoRA", "rank": 16},
        "retries": {"limit": 2},
    }
    return {
        "metadata": {"name": name, "namespace": "team-a", "generation": 1, "creationTimestamp": ago(hours=hours)},
        "spec": {**default, **(spec or {})},
        "status": {
            "observedGeneration": 1,
            "phase": phase,
            "run": {"key": "3f9c1a27e0b4d865", "number": 1, "startedAt": ago(hours=hours)},
            "gpuSecondsTotal": round(3600 * status.get("cost", {}).get("gpuHours", 0)),
            **status,
        },
    }


def training(step: int = 126, loss: float = 0.81) -> Object:
    """In its second attempt, after its node was lost."""
    progress = {
        "phase": "Training",
        "step": step,
        "totalSteps": 300,
        "percent": step * 100 // 300,
        "loss": loss,
        "tokensPerSecond": 5210.4,
        "resumedFromStep": 60,
        "estimatedCompletionTime": (NOW + timedelta(minutes=21)).isoformat(),
    }
    conditions = [condition("Ready", False, "Training"), condition("Running", True, "Running")]
    lost = {"number": 1, "reason": "NodeLost", "step": 64, "seconds": 812, "node": "gpu-3", "message": "node gone"}
    return job(
        "triage",
        "Training",
        1.2,
        progress=progress,
        progressPercent=f"{progress['percent']}%",
        attemptsTotal=1,
        attempts=[lost],
        conditions=conditions,
        cost={"gpuHours": 0.23, "lostGpuHours": 0.01, "amount": 0.58, "currency": "EUR"},
    )


def queued() -> Object:
    """Waits for a GPU."""
    message = "attempt 1: 2nd of 5 in queue team-a: insufficient unused quota for nvidia.com/gpu, 1 more needed"
    return job(
        "reply-writer",
        "Queued",
        0.4,
        {"method": "DPO", "dataset": {"name": "pairs"}, "scheduling": {"queueName": "team-a"}},
        queue={"name": "team-a", "attempt": 1, "position": 2, "waiting": 5},
        conditions=[condition("Ready", False, "Queued", message), condition("Admitted", False, "Pending", message)],
    )


def _score(system: str, metric: str, value: float, low: float, high: float, *lead: float) -> Object:
    """One score; of a baseline the tuned model's lead, too: itself, its interval's ends, and the p-value."""
    names = ("difference", "differenceLow", "differenceHigh", "pValue")
    known = dict(zip(names, lead, strict=False))
    return {"system": system, "metric": metric, "value": value, "low": low, "high": high, "rows": 200, **known}


def gate_failed() -> Object:
    """Trained well, but not better than the examples in a prompt."""
    words = "ExactMatch 0.86 [0.80, 0.91] is not atLeast 0.9"
    rules = [
        {"outcome": "Failed", "message": words},
        {"outcome": "Passed", "message": "ExactMatch 0.86 is betterThan FewShot 0.71: better by 0.15 [0.08, 0.22]"},
        {"outcome": "Skipped", "message": "EvalLoss notWorseThan Previous: there is no previous artifact yet"},
    ]
    return job(
        "router",
        "GateFailed",
        26,
        {"evaluation": {"metrics": ["EvalLoss", "ExactMatch"], "baselines": ["ZeroShot", "FewShot"]}},
        progressPercent="100%",
        progress={"step": 300, "totalSteps": 300, "percent": 100, "loss": 0.34},
        attemptsTotal=1,
        attempts=[{"number": 1, "reason": "Succeeded", "step": 300, "seconds": 4103, "node": "gpu-1"}],
        evaluation=[
            _score("Tuned", "EvalLoss", 0.41, 0.38, 0.44),
            _score("Tuned", "ExactMatch", 0.86, 0.80, 0.91),
            _score("ZeroShot", "EvalLoss", 2.25, 2.10, 2.40, -1.84, -1.97, -1.71, 0.001),
            _score("ZeroShot", "ExactMatch", 0.12, 0.08, 0.17, 0.74, 0.67, 0.80, 1e-40),
            _score("FewShot", "EvalLoss", 1.34, 1.22, 1.46, -0.93, -1.05, -0.82, 0.001),
            _score("FewShot", "ExactMatch", 0.71, 0.64, 0.77, 0.15, 0.08, 0.22, 0.0002),
        ],
        gate={"digest": "sha256:1f0c", "verdict": "Failed", "rules": rules},
        runs=[{"key": "x", "artifact": {"digest": "sha256:1f0c", "uri": "pvc://finetune-artifacts/artifacts/1f0c"}}],
        conditions=[
            condition("Complete", True, "Succeeded", minutes=1440),
            condition("GatePassed", False, "GateFailed", words, minutes=1440),
            condition("Ready", False, "GateFailed", words, minutes=1440),
            condition("Stalled", True, "GateFailed", words, minutes=1440),
        ],
        cost={"gpuHours": 1.14, "lostGpuHours": 0.0, "amount": 2.85, "currency": "EUR"},
    )


def ready() -> Object:
    """Is served."""
    return job(
        "summaries",
        "Succeeded",
        50,
        progressPercent="100%",
        progress={"step": 900, "totalSteps": 900, "percent": 100, "loss": 0.52},
        attemptsTotal=2,
        evaluation=[
            _score("Tuned", "EvalLoss", 0.44, 0.40, 0.48),
            _score("Tuned", "ExactMatch", 0.73, 0.66, 0.79),
            _score("ZeroShot", "EvalLoss", 2.25, 2.10, 2.40, -1.81, -1.95, -1.68, 0.001),
            _score("ZeroShot", "ExactMatch", 0.12, 0.08, 0.17, 0.61, 0.54, 0.68, 1e-30),
            _score("FewShot", "EvalLoss", 1.34, 1.22, 1.46, -0.90, -1.02, -0.78, 0.001),
            _score("FewShot", "ExactMatch", 0.71, 0.64, 0.77, 0.02, -0.05, 0.09, 0.62),
        ],
        conditions=[
            condition("Complete", True, "Succeeded"),
            condition("GatePassed", True, "GatePassed"),
            condition("Ready", True, "Succeeded"),
        ],
        gate={"verdict": "Passed"},
        artifact={"digest": "sha256:9be1c07a44d2", "type": "Adapter", "bytes": 167_772_160},
        cost={"gpuHours": 6.41, "lostGpuHours": 0.22, "amount": 16.03, "currency": "EUR"},
    )


def batch() -> Object:
    """Answers in its second attempt, after its node was lost."""
    progress = {
        "phase": "Answering",
        "rows": 41_216,
        "keptRows": 41_000,
        "totalRows": 120_000,
        "failed": 3,
        "percent": 34,
        "tokensPerSecond": 2815.2,
        "estimatedCompletionTime": (NOW + timedelta(minutes=48)).isoformat(),
    }
    lost = {
        "number": 1, "run": "b81f0d42c7e9", "reason": "NodeLost", "rows": 12_000, "seconds": 611, "node": "gpu-3",
        "message": "node gone",
    }  # fmt: skip
    found = job(
        "label-tickets",
        "Answering",
        0.7,
        progress=progress,
        progressPercent="34%",
        run={"key": "b81f0d42c7e95a36", "attempt": 2, "startedAt": ago(minutes=40)},
        attempts=[lost],
        conditions=[
            condition("Ready", False, "Answering", "attempt 2 is running"),
            condition("Running", True, "Answering", "attempt 2"),
        ],
        cost={"gpuHours": 0.17, "lostGpuHours": 0.0, "amount": 0.43, "currency": "EUR"},
    )
    spec = {
        "model": {"fineTuneJob": {"name": "summaries"}},
        "input": {"dataset": {"name": "tickets", "split": "train"}},
    }
    return {**found, "kind": "BatchInference", "spec": spec}


def deployment() -> Object:
    """Two adapters; the job of one of them has failed its gate."""
    base = {"uri": "pvc://finetune-artifacts/bases/9f8b0d24c1aa", "digest": "sha256:9f8b0d24c1aa" + "7" * 52}
    words = "ExactMatch 0.86 [0.80, 0.91] is not atLeast 0.9"
    refused = f"sha256:1f0c of FineTuneJob 'router' failed its gate ({words}); {REMEDY}"
    adapters = [
        {"name": "router", "state": "Pending", "since": ago(hours=24), "fineTuneJob": "router", "message": refused},
        {
            "name": "summaries", "state": "Serving", "since": ago(hours=26), "fineTuneJob": "summaries",
            "verdict": "Passed", "digest": "sha256:9be1c07a44d2" + "0" * 52,
        },
    ]  # fmt: skip
    return {
        "kind": "ModelDeployment",
        "metadata": {"name": "support", "namespace": "team-a", "generation": 3, "creationTimestamp": ago(hours=30)},
        "spec": {
            "engine": {"type": "VLLM"},
            "adapters": [{"name": each["name"], "fineTuneJob": {"name": each["name"]}} for each in adapters],
        },
        "status": {
            "observedGeneration": 3,
            "phase": "GateFailed",
            "url": "http://support.team-a.svc:8080/v1",
            "base": base,
            "replicas": 2,
            "readyReplicas": 2,
            "adapters": adapters,
            "conditions": [
                condition("Ready", False, "GateFailed", f"router: {refused}", 1440),
                condition("AdaptersValid", False, "GateFailed", f"router: {refused}", 1440),
                condition("Available", True, "Available", "2 of 2 pods are ready", 120),
            ],
        },
    }


def everything() -> dict[Shown, list[Object]]:
    """What a team has."""
    return {Shown.JOB: jobs(), Shown.BATCH: [batch()], Shown.DEPLOYMENT: [deployment()]}


def jobs() -> list[Object]:
    """One of each."""
    return [training(), queued(), gate_failed(), ready()]


def _event(kind: str, name: str, reason: str, message: str, minutes: float, warning: bool = False) -> Object:
    return {
        "involvedObject": {"kind": kind, "name": name},
        "reason": reason,
        "message": message,
        "type": "Warning" if warning else "Normal",
        "lastTimestamp": ago(minutes=minutes),
    }


def events() -> list[Object]:
    """Of the job that trains."""
    return [
        _event("FineTuneJob", "triage", "RunStarted", "run 1 (3f9c1a) of method SFT", 72),
        _event("Job", "triage-stage-8a01d2-1", "Completed", "Job completed", 68),
        _event("Pod", "triage-3f9c1a-1-7kq2x", "Pulled", "Container image is present on the machine", 67),
        _event("FineTuneJob", "triage", "NodeLost", "attempt 1: node gpu-3 is gone; resumes from step 60", 12, True),
        _event("Job", "triage-3f9c1a-2", "SuccessfulCreate", "Created pod: triage-3f9c1a-2-p4n8d", 11),
    ]


BAD_YAML = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: triage}
spec:
  baseModel:
    huggingFace: {repo: org/model, revison: main}
  dataset: {name: ticket}
  method: dpo
  adapter: {rank: 0}
---
apiVersion: finetune.dev/v1alpha1
kind: Dataset
metadata: {name: tickets}
spec:
  source: {inline: {jsonl: "{}"}}
  split: {test: 0.95}
"""
