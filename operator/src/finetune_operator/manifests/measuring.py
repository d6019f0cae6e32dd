"""What an evaluation asks of its pod: the plan's part, the judge's key, the tasks' files."""

from collections.abc import Sequence
from typing import Any

from finetune_contract.base import StoredReference
from finetune_contract.evaluating import BenchmarkPlan, EndpointPlan, JudgePlan, Metric, NamedBaseline
from finetune_contract.paths import ENV_BASELINE_KEY, ENV_JUDGE_KEY, TASKS_MOUNT
from finetune_operator.api.base import SecretKeyReference
from finetune_operator.api.evaluating import EndpointSetting, EvaluationSpec
from finetune_operator.api.finetunejobstatus import MeasuringInput
from finetune_operator.manifests import pods
from finetune_operator.manifests.naming import Manifest

REWARD_MODEL = "reward-model"
"""The part of RewardScore's model in an evaluation."""

_TASKS = "tasks"
_OFFLINE = pods.OFFLINE_VARIABLE


def baseline_part(name: str) -> str:
    """The part of a named baseline's artifact."""
    return f"baseline-{name}"


def jobs_of(spec: EvaluationSpec) -> dict[str, tuple[str, str]]:
    """Jobs whose artifacts the evaluation uses: part -> (path in the YAML, name)."""
    found = {
        baseline_part(each.name): (f"namedBaselines[{at}].fineTuneJob.name", each.fine_tune_job.name)
        for at, each in enumerate(spec.named_baselines)
        if each.fine_tune_job
    }
    if spec.reward_model and Metric.REWARD_SCORE in spec.metrics:
        found[REWARD_MODEL] = ("rewardModel.fineTuneJob.name", spec.reward_model.fine_tune_job.name)
    return found


def artifacts(spec: EvaluationSpec, known: Sequence[MeasuringInput]) -> dict[str, MeasuringInput]:
    """By part: what of those jobs is known, as far as the spec still asks for it."""
    wanted = jobs_of(spec)
    return {each.part: each for each in known if wanted.get(each.part, ("", ""))[1] == each.job}


def others(spec: EvaluationSpec, known: Sequence[MeasuringInput]) -> dict[str, Any]:
    """The fields of an EvaluationPlan that name artifacts of other jobs; one that is not known yet is left out."""
    found = artifacts(spec, known)
    baselines = []
    for at, each in enumerate(spec.named_baselines):
        if each.endpoint:
            baselines.append(NamedBaseline(name=each.name, endpoint=_endpoint(each.endpoint, at)))
        elif made := found.get(baseline_part(each.name)):
            base = StoredReference(digest=made.base.digest, uri=made.base.uri) if made.base else None
            baselines.append(NamedBaseline(name=each.name, artifact=_reference(made), base=base))
    reward = found.get(REWARD_MODEL)
    return {"named_baselines": tuple(baselines), "reward_model": _reference(reward) if reward else None}


def _reference(made: MeasuringInput) -> StoredReference:
    return StoredReference(digest=made.digest, uri=made.uri)


def _endpoint(setting: EndpointSetting, at: int) -> EndpointPlan:
    variable = f"{ENV_BASELINE_KEY}{at}" if setting.api_key_secret_ref else None
    return EndpointPlan(**setting.model_dump(exclude={"api_key_secret_ref"}), key_variable=variable)


def settings(spec: EvaluationSpec) -> dict[str, Any]:
    """The fields of an EvaluationPlan that single metrics need."""
    judge, benchmark = spec.judge, spec.benchmark
    return {
        "pattern": spec.regex.pattern if spec.regex else None,
        "json_schema": spec.json_schema.json_schema if spec.json_schema else None,
        "judge": JudgePlan(**judge.model_dump(exclude={"api_key_secret_ref"})) if judge else None,
        "benchmark": (
            BenchmarkPlan(tasks=tuple(benchmark.tasks), limit=benchmark.limit, download=benchmark.download)
            if benchmark
            else None
        ),
    }


def equip(container: Manifest, volumes: list[Manifest], spec: EvaluationSpec) -> None:
    """Give a pod what the evaluation needs and nothing else does."""
    env = container.setdefault("env", [])
    if spec.judge and spec.judge.api_key_secret_ref and Metric.JUDGE_WIN_RATE in spec.metrics:
        env.append(_from_secret(ENV_JUDGE_KEY, spec.judge.api_key_secret_ref))
    for at, each in enumerate(spec.named_baselines):
        if each.endpoint and each.endpoint.api_key_secret_ref:
            env.append(_from_secret(f"{ENV_BASELINE_KEY}{at}", each.endpoint.api_key_secret_ref))
    if not spec.benchmark or Metric.BENCHMARK not in spec.metrics:
        return
    if spec.benchmark.download:
        # Said, not left out: the trainer is offline where nobody says otherwise.
        container["env"] = [*(each for each in env if each["name"] != _OFFLINE), {"name": _OFFLINE, "value": "0"}]
    if spec.benchmark.config_map:
        volumes.append({"name": _TASKS, "configMap": {"name": spec.benchmark.config_map.name}})
        mount = {"name": _TASKS, "mountPath": str(TASKS_MOUNT), "readOnly": True}
        container.setdefault("volumeMounts", []).append(mount)


def _from_secret(variable: str, secret: SecretKeyReference) -> Manifest:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}
