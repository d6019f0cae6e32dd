"""What a Dataset's cleaning, split and tokenizer mean for its pods and its status."""

import json
from typing import Any

import pytest

from finetune_contract.cleaning import (
    Changed,
    ChangeReason,
    Found,
    PersonalDataKind,
    PersonalDataPolicy,
    TokenCounts,
    Truncation,
)
from finetune_contract.datasets import DatasetPlan, Split
from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.results import StageResult
from tests import factories
from tests.factories import dataset_result, digest, stage_result, stored
from tests.unit.reconcile.world import World

BASE = {"huggingFace": {"repo": "org/model"}}


def world(**spec: Any) -> World:
    here = World(factories.make_dataset(**spec))
    here.settle()
    return here


def plan_json(here: World, role: str) -> str:
    name = here.newest(role)["metadata"]["name"]
    made = [item for item in here.made if item["kind"] == "ConfigMap" and item["metadata"]["name"] == name]
    return str(made[-1]["data"]["plan.json"])


def plan_of(here: World) -> DatasetPlan:
    return DatasetPlan.model_validate_json(plan_json(here, "prepare"))


def test_the_plan_says_how_rows_are_cleaned() -> None:
    prepare = {
        "stripInstructions": True,
        "filters": {"minWords": 3, "quality": "Gopher"},
        "personalData": "Redact",
        "personalDataRegions": ["DE"],
        "decontaminate": {},
    }
    cleaning = plan_of(world(prepare=prepare)).cleaning
    assert json.loads(cleaning.to_json()) == {
        "stripInstructions": True,
        "filters": {"minWords": 3, "quality": "Gopher"},
        "personalData": "Redact",
        "regions": ["DE"],
        "decontaminateNgram": 13,
    }
    assert plan_of(world()).cleaning.personal_data is PersonalDataPolicy.REPORT


def test_a_number_of_rows_is_a_fraction_from_the_first_revision_on() -> None:
    here = world(split={"test": 500, "validation": 0.1})
    split = plan_of(here).split
    assert (split.test_rows, split.test, split.validation_rows, split.validation) == (500, 0.0, None, 0.1)
    splits = (Split(name="train", rows=8), Split(name="test", rows=1, fraction=0.0625))
    here.end(here.newest("prepare"), dataset_result(splits=splits).to_json())
    here.settle()
    assert here.status["revision"]["splits"][1] == {"name": "test", "rows": 1, "requested": 500, "fraction": 0.0625}
    here.edit(rerun="again")
    here.settle()
    split = plan_of(here).split
    assert (split.test_rows, split.test) == (None, 0.0625)
    again = (Split(name="train", rows=8), Split(name="test", rows=2))
    here.end(here.newest("prepare"), dataset_result("e", splits=again).to_json())
    here.settle()
    assert here.status["revision"]["splits"][1]["fraction"] == 0.0625
    here.edit(split={"test": 400})
    here.settle()
    assert plan_of(here).split.test_rows == 400


def test_what_was_found_is_in_the_status() -> None:
    here = world()
    counts = TokenCounts(total=90, p50=9, p95=19, p99=20, max=21, supervised=30)
    result = dataset_result(
        changed=(Changed(reason=ChangeReason.PERSONAL_DATA_REDACTED, rows=2),),
        personal_data=(Found(kind=PersonalDataKind.EMAIL, rows=2, count=3),),
        splits=(Split(name="train", rows=8, tokens=counts),),
        truncation=(Truncation(max_length=512, rows=1, tokens=7, padding_share=0.5),),
        report=stored("c", "reports"),
    )
    here.end(here.newest("prepare"), result.to_json())
    here.settle()
    revision = here.status["revision"]
    assert revision["changed"] == [{"reason": "PersonalDataRedacted", "rows": 2}]
    assert revision["personalData"] == [{"kind": "Email", "rows": 2, "count": 3}]
    assert revision["splits"][0]["tokens"]["p95"] == 19
    assert revision["truncation"] == [{"maxLength": 512, "rows": 1, "tokens": 7, "paddingShare": 0.5}]
    assert revision["report"]["digest"] == digest("c")


# --- tokenizer ---


def test_the_tokenizer_is_staged_first_and_once() -> None:
    here = world(tokenizer=BASE)
    assert not here.jobs("prepare")
    assert here.says("Ready").startswith("False Staging: ")
    here.end(here.newest("stage"), stage_result(None).to_json())
    here.settle()
    assert plan_of(here).tokenizer == stored("b", "models")
    here.end(here.newest("prepare"), dataset_result().to_json())
    here.settle()
    assert here.status["tokenizer"]["digest"] == here.status["revision"]["tokenizer"] == digest("b")
    here.edit(rerun="again")
    here.settle()
    assert len(here.jobs("stage")) == 1
    assert plan_of(here).tokenizer == stored("b", "models")
    before = here.status
    here.settle()
    assert here.status == before


def test_another_tokenizer_is_staged_anew() -> None:
    here = world(tokenizer=BASE)
    here.end(here.newest("stage"), stage_result(None).to_json())
    here.settle()
    here.edit(tokenizer={"huggingFace": {"repo": "org/other"}})
    here.settle()
    here.end(here.newest("stage"), stage_result(None, "c").to_json())
    here.settle()
    assert plan_of(here).tokenizer == stored("c", "models")


def test_a_tokenizer_that_cannot_be_had_is_named() -> None:
    here = world(tokenizer=BASE)
    reason = FailureReason.MODEL_NOT_FOUND
    result = StageResult(failure=Failure(reason=reason, message="org/model: there is no such repository"))
    here.end(here.newest("stage"), result.to_json(), code=policy_of(reason).exit_code or 1)
    here.settle()
    assert "False ModelNotFound: spec.tokenizer: org/model: there is no such repository" in here.says("Ready")
    assert here.status["phase"] == "Failed"


@pytest.mark.parametrize(
    ("job", "base"), [(None, None), (factories.finished_job(base="b"), "b")], ids=["none", "adapter"]
)
def test_the_base_of_another_job(job: dict[str, Any] | None, base: str | None) -> None:
    dataset = factories.make_dataset(tokenizer={"fineTuneJob": {"name": "triage"}})
    here = World(dataset, *([job] if job else []))
    here.settle()
    if base is None:
        assert here.says("Ready").startswith("False TokenizerNotReady: spec.tokenizer.fineTuneJob.name: FineTuneJob")
        return
    assert json.loads(plan_json(here, "stage"))["source"]["stored"]["digest"] == digest(base)
