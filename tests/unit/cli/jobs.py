"""FineTuneJobs as the API server sends them: a training one by default, one thing changed by keyword."""

from datetime import UTC, datetime
from typing import Any

from finetune_cli.facts import Object

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def condition(kind: str, status: bool = True, reason: str = "Because", message: str = "") -> Object:
    return {
        "type": kind,
        "status": str(status),
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T11:00:00Z",
    }


def score(system: str, metric: str, value: float, low: float | None = None, high: float | None = None) -> Object:
    return {"system": system, "metric": metric, "value": value, "low": low, "high": high, "rows": 24}


SCORES = [
    score("Tuned", "EvalLoss", 0.5, 0.4, 0.6),
    score("Tuned", "ExactMatch", 0.75, 0.6, 0.9),
    score("ZeroShot", "EvalLoss", 2.25, 2.1, 2.4),
    score("ZeroShot", "ExactMatch", 0.0),
]
ARTIFACT = {
    "type": "Adapter",
    "bytes": 159321,
    "digest": "sha256:460046",
    "uri": "pvc://claim/artifacts/460046",
    "run": "key",
}


def progress(step: int = 126, loss: float | None = 0.412, **changes: Any) -> Object:
    default = {
        "phase": "Training",
        "step": step,
        "totalSteps": 300,
        "percent": step * 100 // 300,
        "loss": loss,
        "tokensPerSecond": 12345.6,
        "estimatedCompletionTime": "2026-01-01T12:03:20Z",
    }
    return {**default, **changes}


def make_job(name: str = "namer", generation: int = 1, **status: Any) -> Object:
    training = {
        "observedGeneration": 1,
        "phase": "Training",
        "progressPercent": "42%",
        "progress": progress(),
        "attemptsTotal": 0,
        "run": {"key": "key", "number": 1, "startedAt": "2026-01-01T11:30:00Z"},
        "conditions": [condition("Ready", status=False, reason="Training"), condition("Running")],
    }
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "generation": generation,
            "creationTimestamp": "2026-01-01T10:00:00Z",
        },
        "spec": {
            "method": "SFT",
            "dataset": {"name": "colours"},
            "adapter": {"type": "LoRA", "rank": 16},
            "retries": {"limit": 2},
        },
        "status": {**training, **status},
    }


def new_job(name: str = "namer") -> Object:
    """Applied a moment ago: the operator has not seen it."""
    return {"metadata": {"name": name, "namespace": "team", "generation": 1}, "spec": {}}


def ready_job(**status: Any) -> Object:
    done = {
        "phase": "Succeeded",
        "progress": progress(300, percent=100, phase="Done"),
        "progressPercent": "100%",
        "attemptsTotal": 1,
        "attempts": [{"number": 1, "reason": "Succeeded", "seconds": 200, "step": 300, "node": "gpu-1"}],
        "evaluation": SCORES,
        "artifact": ARTIFACT,
        "conditions": [condition("Complete"), condition("Ready"), condition("Running", status=False)],
    }
    return make_job(**{**done, **status})


RULES = [
    {"outcome": "Failed", "message": "ExactMatch 0.75 [0.6, 0.9] is not atLeast 0.9"},
    {"outcome": "Passed", "message": "EvalLoss 0.5 [0.4, 0.6] is atMost 1"},
    {"outcome": "Skipped", "message": "EvalLoss notWorseThan Previous: there is no previous artifact yet"},
]


def gate_failed_job(**status: Any) -> Object:
    """Its run has succeeded; the artifact of an earlier one stays."""
    message = RULES[0]["message"]
    done = {
        "phase": "GateFailed",
        "runs": [
            {"key": "key", "outcome": "Succeeded", "artifact": {**ARTIFACT, "digest": "sha256:bad", "uri": "pvc://bad"}}
        ],
        "artifact": {**ARTIFACT, "run": "earlier"},
        "gate": {"digest": "sha256:bad", "verdict": "Failed", "key": "k", "rules": RULES},
        "conditions": [
            condition("Complete"),
            condition("GatePassed", status=False, reason="GateFailed", message=message),
            condition("Ready", status=False, reason="GateFailed", message=message),
            condition("Stalled", reason="GateFailed", message=message),
        ],
    }
    return ready_job(**{**done, **status})


TRACEBACK = '  File "train.py", line 1\nValueError: no rows left'


def failed_job(**status: Any) -> Object:
    ended = {
        "phase": "Failed",
        "attemptsTotal": 1,
        "attempts": [{"number": 1, "reason": "TrainerCrashed", "seconds": 7, "step": 0, "message": TRACEBACK}],
        "conditions": [
            condition("Ready", status=False, reason="TrainerCrashed", message=TRACEBACK),
            condition("Failed", reason="TrainerCrashed", message=TRACEBACK),
            condition("Stalled", reason="TrainerCrashed", message=TRACEBACK),
        ],
    }
    return make_job(**{**ended, **status})
