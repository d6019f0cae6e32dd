"""A method's settings as the trainer's plan has them."""

from typing import Any

from finetune_contract.base import StoredReference
from finetune_contract.methods import (
    DistillationPlan,
    DpoPlan,
    KtoPlan,
    Method,
    OnlinePlan,
    OrpoPlan,
    RewardFunction,
    RewardPlan,
    SimpoPlan,
)
from finetune_operator.api.finetunejob import FineTuneJobSpec
from finetune_operator.api.finetunejobstatus import ResolvedInputs
from finetune_operator.api.methods import (
    DpoSettings,
    GrpoSettings,
    KtoSettings,
    OrpoSettings,
    RewardSource,
    SimpoSettings,
)

ADAPTER = "adapter"
"""The part of an earlier job's adapter in a run."""

TEACHER = "teacher"
TEACHER_ADAPTER = "teacher-adapter"


def reward_part(number: int) -> str:
    """The part of the n-th reward's model in a run, counted from 0."""
    return f"reward-{number}"


def settings(spec: FineTuneJobSpec, inputs: ResolvedInputs) -> dict[str, Any]:
    """The fields of a TrainingPlan that depend on the method, and the adapter to go on from."""
    others = {other.part: StoredReference(digest=other.digest, uri=other.uri) for other in inputs.others}
    fields: dict[str, Any] = {"start": others.get(ADAPTER)}
    match spec.method:
        case Method.DPO:
            dpo = spec.dpo or DpoSettings()
            fields["dpo"] = DpoPlan(beta=dpo.beta, loss=dpo.loss.value, label_smoothing=dpo.label_smoothing)
        case Method.ORPO:
            fields["orpo"] = OrpoPlan(beta=(spec.orpo or OrpoSettings()).beta)
        case Method.SIMPO:
            simpo = spec.simpo or SimpoSettings()
            fields["simpo"] = SimpoPlan(beta=simpo.beta, gamma=simpo.gamma)
        case Method.KTO:
            kto = spec.kto or KtoSettings()
            fields["kto"] = KtoPlan(
                beta=kto.beta, desirable_weight=kto.desirable_weight, undesirable_weight=kto.undesirable_weight
            )
        case Method.GRPO | Method.RLOO:
            online = spec.grpo if spec.method is Method.GRPO else spec.rloo
            assert online is not None, "a CEL rule demands it"
            fields["online"] = _online(online, others)
        case Method.DISTILLATION:
            assert spec.distillation is not None, "a CEL rule demands it"
            fields["distillation"] = DistillationPlan(
                teacher=others[TEACHER],
                teacher_adapter=others.get(TEACHER_ADAPTER),
                temperature=spec.distillation.temperature,
                beta=spec.distillation.beta,
                max_completion_length=spec.distillation.max_completion_length,
            )
    return fields


def _online(online: GrpoSettings, others: dict[str, StoredReference]) -> OnlinePlan:
    return OnlinePlan(
        rewards=tuple(_reward(source, others.get(reward_part(at))) for at, source in enumerate(online.rewards)),
        generations=online.generations,
        beta=online.beta,
        temperature=online.temperature,
        max_completion_length=online.max_completion_length,
    )


def _reward(source: RewardSource, model: StoredReference | None) -> RewardPlan:
    if source.regex:
        return RewardPlan(weight=source.weight, function=RewardFunction.REGEX, pattern=source.regex.pattern)
    if source.json_schema:
        schema = source.json_schema.json_schema
        return RewardPlan(weight=source.weight, function=RewardFunction.JSON_SCHEMA, json_schema=schema)
    if source.length:
        low, high = source.length.min_tokens, source.length.max_tokens
        return RewardPlan(weight=source.weight, function=RewardFunction.LENGTH, min_tokens=low, max_tokens=high)
    if source.exact_match:
        return RewardPlan(weight=source.weight, function=RewardFunction.EXACT_MATCH)
    return RewardPlan(weight=source.weight, model=model)
