"""adapterMode: Merged: one Job makes the whole model, and only then is anything rolled."""

import copy
from typing import Any

import pytest

from finetune_contract.exporting import ExportResult
from finetune_contract.failure import Failure, FailureReason
from finetune_contract.proof import ProofState
from finetune_contract.serving import ServingPlan
from finetune_operator.reconcile.observed import Reference
from tests import factories
from tests.factories import Object, digest, finished_job, stored
from tests.unit.reconcile.deployments import proof, roll_out, states, world
from tests.unit.reconcile.world import World

TRIAGE = Reference("FineTuneJob", "triage")


def merged_world(*others: Object, **spec: Any) -> World:
    return world(*others, adapterMode="Merged", **spec)


def merge(here: World, letter: str = "d") -> World:
    """The Job leaves a merged model."""
    result = ExportResult(**stored(letter, "exports").model_dump(), bytes=10, difference=0.001)
    here.end(here.newest("merge"), result.to_json())
    here.settle()
    return here


def plans(here: World) -> list[ServingPlan]:
    made = [item for item in here.made if item["metadata"]["labels"]["finetune.dev/role"] == "serve"]
    return [ServingPlan.model_validate_json(item["data"]["plan.json"]) for item in made]


def test_nothing_is_served_before_the_model_is_merged() -> None:
    here = merged_world(finished_job())
    assert here.says("Ready").startswith("False Merging: ")
    assert [job["metadata"]["labels"]["finetune.dev/role"] for job in here.jobs()] == ["merge"]
    assert here.find("Deployment", "support") is None
    merge(here)
    assert here.status["merged"] == {
        "base": digest("b"), "adapter": digest("a"), **stored("d", "exports").model_dump(), "difference": 0.001,
    }  # fmt: skip
    (plan,) = plans(here)
    assert (plan.name, plan.base, plan.adapters) == ("triage", stored("d", "exports"), ())
    assert plan.merged is not None
    assert plan.merged.artifact == stored("a", "artifacts"), "whose probe decides readiness"
    roll_out(here)
    assert here.status["phase"] == "Serving"
    assert states(here) == {"triage": "Serving"}


def test_a_pair_is_merged_once() -> None:
    here = roll_out(merge(merged_world(finished_job())))
    here.children["Job"] = []
    here.edit(replicas=2)
    here.settle()
    roll_out(here)
    assert here.jobs() == []
    assert here.status["phase"] == "Serving"


def test_a_new_artifact_is_merged_while_the_old_one_serves() -> None:
    here = roll_out(merge(merged_world(finished_job())))
    before = copy.deepcopy(here.find("Deployment", "support"))
    here.others[TRIAGE] = finished_job(artifact="e")
    here.settle()
    assert here.find("Deployment", "support") == before
    assert here.condition("Available")["status"] == "True"  # type: ignore[index]
    merge(here, "f")
    roll_out(here)
    assert here.status["merged"]["adapter"] == digest("e")
    assert len(here.jobs("merge")) == 1, "the earlier Job goes"


def test_a_failed_merge_says_why_and_leaves_the_old_pods() -> None:
    here = roll_out(merge(merged_world(finished_job())))
    before = copy.deepcopy(here.find("Deployment", "support"))
    here.others[TRIAGE] = finished_job(artifact="e")
    here.settle()
    failure = Failure(reason=FailureReason.EXPORT_FAILED, message="spec.adapterMode: the merged model differs")
    here.end(here.newest("merge"), ExportResult(failure=failure).to_json(), code=86)
    here.settle()
    assert here.says("Stalled").startswith("True ExportFailed: spec.adapterMode: the merged model differs. ")
    assert here.status["mergeFailure"]["reason"] == "ExportFailed"
    assert here.find("Deployment", "support") == before
    here.edit(adapterMode="Static")
    here.settle()
    assert "mergeFailure" not in here.status
    assert here.jobs() == []


def test_a_merged_model_that_answers_like_the_base_is_inert() -> None:
    here = merge(merged_world(finished_job()))
    proof(here, ProofState.INERT, "it answers like the base")
    assert states(here) == {"triage": "Inert"}
    assert here.says("Stalled").startswith("True AdapterInert")


QWEN2 = {"family": "qwen2"}


def test_merged_is_the_remedy_that_tgi_names_for_qwen2() -> None:
    here = world(finished_job(facts=QWEN2), engine={"type": "TGI"})
    assert "ignores q_proj, v_proj of qwen2" in here.says("AdaptersValid")
    assert "adapterMode: Merged" in here.says("AdaptersValid")
    here.edit(adapterMode="Merged")
    here.settle()
    roll_out(merge(here))
    assert here.status["phase"] == "Serving"
    item = here.find("Deployment", "support")
    assert item is not None
    command = item["applied"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert not [word for word in command if word.startswith(("--lora-adapters", "--cuda-graphs"))]
    assert f"--model-id=/store/exports/{'d' * 64}" in command


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"quantization": "gptq"}, "its base is stored in gptq"),
        ({"features": ["ChangedBase"]}, "convert it to a plain LoRA"),
    ],
)
def test_what_cannot_be_merged_is_refused_without_a_job(facts: Object, words: str) -> None:
    here = merged_world(finished_job(facts=facts))
    assert words in here.says("AdaptersValid")
    assert here.children == {}


def test_dora_can_be_merged() -> None:
    here = merged_world(finished_job(facts={"features": ["DoRA", "WholeModules"]}), engine={"type": "VLLM"})
    assert here.jobs("merge")


def test_without_an_artifact_the_base_is_not_served_in_its_place() -> None:
    here = merged_world(factories.make_job(), baseModel={"huggingFace": {"repo": "org/model"}})
    here.end(here.newest("stage"), factories.stage_result(None).to_json())
    here.settle()
    assert here.says("Ready").startswith("False AdapterPending: triage: ")
    assert here.find("Deployment", "support") is None
