"""What a FineTuneJob takes from others: a base or an adapter to go on from, reward models, a teacher."""

from typing import Any

import pytest

from finetune_contract.results import ArtifactType
from finetune_contract.staging import StagePlan
from finetune_contract.training import TrainingPlan
from finetune_operator.reconcile.lineage import named_in
from finetune_operator.reconcile.observed import Reference
from tests import factories
from tests.factories import Object, digest, finished_job, stage_result
from tests.unit.reconcile.world import World

KEY = "1" * 64
GRPO = {"method": "GRPO", "grpo": {"rewards": [{"exactMatch": {}}, {"fineTuneJob": {"name": "judge"}, "weight": 0.5}]}}
DISTILLATION = {"method": "Distillation", "distillation": {"teacher": {"fineTuneJob": {"name": "large"}}}}


def world(*upstream: Object, **spec: Any) -> World:
    here = World(factories.make_job(**spec))
    here.others[Reference("Dataset", "tickets")] = factories.ready_dataset()
    for job in upstream:
        here.others[Reference("FineTuneJob", job["metadata"]["name"])] = job
    return here


def plan_of(here: World, kind: type[StagePlan] | type[TrainingPlan]) -> Any:
    """The plan that the next pass would create, having created it."""
    (manifest,) = [item for item in here.decide().create if "plan.json" in item.get("data", {})]
    here.settle()
    return kind.model_validate_json(manifest["data"]["plan.json"])


def trained(here: World) -> TrainingPlan:
    """The plan of the first attempt, once the base is staged."""
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY).to_json())
    plan: TrainingPlan = plan_of(here, TrainingPlan)
    return plan


def test_an_adapter_is_tuned_further_on_its_own_base() -> None:
    here = world(finished_job("first", artifact="a", base="b"), baseModel={"fineTuneJob": {"name": "first"}})
    stage: StagePlan = plan_of(here, StagePlan)
    assert stage.source.stored is not None
    assert stage.source.stored.digest == digest("b")
    assert stage.run is not None
    assert {part: other.digest for part, other in stage.run.inputs.items()} == {"adapter": digest("a")}
    plan = trained(here)
    assert plan.base.digest == digest("b")
    assert plan.start is not None
    assert plan.start.digest == digest("a")
    assert [other["part"] for other in here.status["run"]["inputs"]["others"]] == ["adapter"]


def test_reward_models_come_from_their_jobs_by_place() -> None:
    here = world(finished_job("judge", artifact="c", type_=ArtifactType.REWARD_MODEL), **GRPO)
    plan = trained(here)
    assert plan.online is not None
    exact, judge = plan.online.rewards
    assert (exact.function, exact.weight) == ("ExactMatch", 1.0)
    assert judge.model is not None
    assert (judge.model.digest, judge.weight) == (digest("c"), 0.5)


@pytest.mark.parametrize(
    ("type_", "teacher", "adapter"),
    [(ArtifactType.MODEL, "a", None), (ArtifactType.ADAPTER, "b", "a")],
    ids=["a whole model", "an adapter on its base"],
)
def test_a_teacher_is_a_model_or_an_adapter(type_: ArtifactType, teacher: str, adapter: str | None) -> None:
    plan = trained(world(finished_job("large", artifact="a", base="b", type_=type_), **DISTILLATION))
    assert plan.distillation is not None
    assert plan.distillation.teacher.digest == digest(teacher)
    found = plan.distillation.teacher_adapter
    assert (found and found.digest) == (adapter and digest(adapter))


@pytest.mark.parametrize(
    ("spec", "upstream", "says"),
    [
        pytest.param(GRPO, None, "False RewardNotFound: spec.grpo.rewards[1].fineTuneJob.name", id="no judge"),
        pytest.param(GRPO, factories.make_job("judge"), "False RewardNotReady", id="judge not finished"),
        pytest.param(GRPO, finished_job("judge"), "False RewardNotAModel", id="judge writes answers"),
        pytest.param(DISTILLATION, None, "False TeacherNotFound", id="no teacher"),
        pytest.param(
            DISTILLATION, finished_job("large", type_=ArtifactType.REWARD_MODEL), "False TeacherNotAModel",
            id="teacher scores",
        ),
    ],
)  # fmt: skip
def test_a_job_waits_or_says_what_is_wrong(spec: dict[str, Any], upstream: Object | None, says: str) -> None:
    here = world(*([upstream] if upstream else []), **spec)
    here.settle()
    assert here.says("Ready").startswith(says)
    assert here.jobs() == []


def test_another_artifact_of_a_reward_job_is_another_resolution() -> None:
    names = []
    for artifact in "cd":
        here = world(finished_job("judge", artifact=artifact, type_=ArtifactType.REWARD_MODEL), **GRPO)
        here.settle()
        names.append(here.newest("stage")["metadata"]["name"])
    assert names[0] != names[1]


def test_rows_of_another_method_are_refused_before_anything_is_staged() -> None:
    here = world(method="DPO")
    here.settle()
    assert here.says("Ready").startswith(
        "False DatasetInvalid: spec.method: DPO needs Preference rows; the dataset has Messages rows: use method SFT"
    )
    assert here.condition("Stalled") is not None
    assert here.jobs() == []


def test_every_job_that_a_spec_names_is_watched() -> None:
    spec = {**GRPO, **DISTILLATION, "baseModel": {"fineTuneJob": {"name": "first"}}}
    assert sorted(named_in(spec)) == ["first", "judge", "large"]
    assert list(named_in({"grpo": None, "baseModel": {}})) == []
