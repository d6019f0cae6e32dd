"""What an evaluation asks of its pod: the plan's part, the judge's key, the tasks' files."""

from typing import Any

from finetune_contract.evaluating import BenchmarkPlan, JudgePlan, Metric
from finetune_contract.paths import ENV_JUDGE_KEY, TASKS_MOUNT
from finetune_operator.api.finetunejob import EvaluationSpec
from finetune_operator.manifests.naming import Manifest

_TASKS = "tasks"


def settings(spec: EvaluationSpec) -> dict[str, Any]:
    """The fields of an EvaluationPlan that single metrics need."""
    judge, benchmark = spec.judge, spec.benchmark
    return {
        "pattern": spec.regex.pattern if spec.regex else None,
        "json_schema": spec.json_schema.json_schema if spec.json_schema else None,
        "judge": JudgePlan(**judge.model_dump(exclude={"api_key_secret_ref"})) if judge else None,
        "benchmark": BenchmarkPlan(tasks=tuple(benchmark.tasks), limit=benchmark.limit) if benchmark else None,
    }


def equip(container: Manifest, volumes: list[Manifest], spec: EvaluationSpec) -> None:
    """Give a pod what the evaluation needs and nothing else does."""
    if spec.judge and spec.judge.api_key_secret_ref and Metric.JUDGE_WIN_RATE in spec.metrics:
        secret = spec.judge.api_key_secret_ref
        reference = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
        container.setdefault("env", []).append({"name": ENV_JUDGE_KEY, "valueFrom": reference})
    if spec.benchmark and Metric.BENCHMARK in spec.metrics:
        volumes.append({"name": _TASKS, "configMap": {"name": spec.benchmark.config_map.name}})
        mount = {"name": _TASKS, "mountPath": str(TASKS_MOUNT), "readOnly": True}
        container.setdefault("volumeMounts", []).append(mount)
