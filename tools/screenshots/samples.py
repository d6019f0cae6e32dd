"""Jobs, events and answers to take pictures of; always the same, so that a picture changes only with the plugin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

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


def _score(system: str, metric: str, value: float, low: float, high: float) -> Object:
    return {"system": system, "metric": metric, "value": value, "low": low, "high": high, "rows": 200}


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
            _score("ZeroShot", "EvalLoss", 2.25, 2.10, 2.40),
            _score("ZeroShot", "ExactMatch", 0.12, 0.08, 0.17),
            _score("FewShot", "EvalLoss", 1.34, 1.22, 1.46),
            _score("FewShot", "ExactMatch", 0.71, 0.64, 0.77),
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
        conditions=[condition("Complete", True, "Succeeded"), condition("Ready", True, "Succeeded")],
        gate={"verdict": "Passed"},
        artifact={"digest": "sha256:9be1c07a44d2", "type": "Adapter", "bytes": 167_772_160},
        cost={"gpuHours": 6.41, "lostGpuHours": 0.22, "amount": 16.03, "currency": "EUR"},
    )


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
