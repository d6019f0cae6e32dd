"""spec.exports: what is made of an artifact, by which Jobs, and what becomes of the job when that fails."""

import json
from typing import Any

import pytest

from finetune_contract.exporting import ExportPlan, ExportResult, ExportSettings
from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.results import ArtifactType
from tests import factories
from tests.factories import digest, stage_result, stored, training_result
from tests.unit.reconcile.world import World

KEY = "1" * 64
MERGED = {"type": "MergedModel"}
GGUF = {"type": "GGUF", "quantization": "Q8_0"}
LORA = {"type": "GGUFAdapter"}
HUB = {"type": "Hub", "hub": {"repo": "org/tuned", "tokenSecretRef": {"name": "hub", "key": "token"}}}


def trained(type_: ArtifactType = ArtifactType.ADAPTER, **spec: Any) -> World:
    """A job whose run has succeeded."""
    here = World(factories.make_job(**spec), factories.ready_dataset())
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY).to_json())
    here.settle()
    result = training_result(KEY)
    assert result.artifact is not None
    artifact = result.artifact.model_copy(update={"type": type_})
    here.end(here.newest("train"), result.model_copy(update={"artifact": artifact}).to_json())
    here.settle()
    return here


def exported(letter: str = "e", **more: Any) -> str:
    return ExportResult(**{**stored(letter, "exports").model_dump(), "bytes": 10, **more}).to_json()


def finish(here: World, letter: str = "e", **more: Any) -> None:
    here.end(here.newest("export"), exported(letter, **more))
    here.settle()


def fail(here: World, reason: FailureReason) -> None:
    failure = Failure(reason=reason, message="spec.exports: it did not work")
    here.end(here.newest("export"), ExportResult(failure=failure).to_json(), code=policy_of(reason).exit_code or 1)
    here.settle()


def exports(here: World) -> list[str]:
    made = [manifest["metadata"]["name"] for manifest in here.made if manifest["kind"] == "Job"]
    return [name for name in made if "-export-" in name]


def states(here: World) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in here.status["exports"]}


def plan_of(here: World, name: str) -> ExportPlan:
    (found,) = [m for m in here.made if m["kind"] == "ConfigMap" and m["metadata"]["name"] == name]
    return ExportPlan.model_validate(json.loads(found["data"]["plan.json"]))


def test_exports_are_made_one_after_the_other_while_the_job_is_ready() -> None:
    here = trained(exports=[MERGED, GGUF])
    assert states(here) == {"MergedModel": "Exporting", "GGUF Q8_0": "Waiting"}
    assert (here.status["phase"], here.says("Ready")[:4]) == ("Succeeded", "True")
    assert here.says("Exported").startswith("False ")
    finish(here, "e", difference=0.001)
    assert states(here) == {"MergedModel": "Done", "GGUF Q8_0": "Exporting"}
    finish(here, "f")
    assert here.says("Exported") == "True Exported: MergedModel, GGUF Q8_0"
    merged, gguf = here.status["exports"]
    assert (merged["digest"], merged["uri"], merged["bytes"]) == (digest("e"), stored("e", "exports").uri, 10)
    assert merged["difference"] == 0.001
    assert gguf["digest"] == digest("f")
    assert here.jobs("export") == []
    assert len(exports(here)) == 2


def test_a_job_without_exports_says_nothing_of_them() -> None:
    here = trained()
    assert here.condition("Exported") is None
    assert exports(here) == []


def test_an_edit_of_exports_makes_only_what_is_new() -> None:
    here = trained(exports=[MERGED])
    finish(here)
    attempts, run = here.status["attempts"], here.status["run"]["key"]
    here.edit(exports=[GGUF, MERGED])
    here.settle()
    assert states(here) == {"GGUF Q8_0": "Exporting", "MergedModel": "Done"}
    finish(here, "f")
    assert len(exports(here)) == 2
    assert (here.status["attempts"], here.status["run"]["key"]) == (attempts, run)
    assert len([name for name in here.created if name.startswith("triage-111111-")]) == 2
    here.edit(exports=[])
    here.settle()
    assert here.status.get("exports", []) == []
    assert here.condition("Exported") is None


def test_an_edit_stops_an_export_that_is_wanted_no_more() -> None:
    here = trained(exports=[MERGED])
    here.pod(here.newest("export"))
    here.edit(exports=[])
    here.settle()
    assert here.jobs("export") == []


def test_a_failed_export_fails_nothing_else_and_is_tried_again_after_an_edit() -> None:
    here = trained(exports=[MERGED, GGUF])
    fail(here, FailureReason.EXPORT_FAILED)
    assert states(here) == {"MergedModel": "Failed", "GGUF Q8_0": "Exporting"}
    finish(here, "f")
    assert here.says("Exported").startswith("False ExportFailed: spec.exports[0] (MergedModel): spec.exports: it did")
    assert here.says("Ready").startswith("True ")
    assert here.condition("Failed") is None
    assert here.condition("Stalled") is None
    assert len(exports(here)) == 2
    here.edit(resources={"limits": {"memory": "64Gi"}})
    here.settle()
    assert len(exports(here)) == 3
    finish(here)
    assert here.says("Exported").startswith("True ")


def test_what_may_pass_is_tried_three_times() -> None:
    here = trained(exports=[HUB])
    for number in (1, 2):
        fail(here, FailureReason.SOURCE_UNAVAILABLE)
        assert len(exports(here)) == number
        here.later(61)
        here.settle()
    fail(here, FailureReason.SOURCE_UNAVAILABLE)
    assert states(here) == {"Hub org/tuned@main": "Failed"}
    here.later(3600)
    here.settle()
    assert len(exports(here)) == 3


def test_a_failed_export_whose_job_is_cleaned_up_stays_failed() -> None:
    here = trained(exports=[MERGED], ttlAfterFinished="1m")
    fail(here, FailureReason.EXPORT_FAILED)
    here.later(120)
    here.settle()
    assert here.jobs("export") == []
    here.later(3600)
    here.settle()
    assert len(exports(here)) == 1
    assert states(here) == {"MergedModel": "Failed"}


def test_a_new_artifact_is_exported_anew_and_the_old_exports_stay_until_then() -> None:
    here = trained(exports=[MERGED])
    finish(here)
    here.edit(adapter={"rank": 8})
    here.settle()
    assert states(here) == {"MergedModel": "Done"}
    other = "2" * 64
    here.end(here.newest("stage"), stage_result(other).to_json())
    here.settle()
    assert states(here) == {"MergedModel": "Done"}
    assert here.condition("Exported") is None
    here.end(here.newest("train"), training_result(other, artifact="c").to_json())
    here.settle()
    assert states(here) == {"MergedModel": "Exporting"}
    assert here.status["exports"][0]["artifact"] == digest("c")


def test_what_the_gate_refuses_is_not_exported() -> None:
    gate = {"rules": [{"metric": "ExactMatch", "atLeast": 0.9}]}
    here = trained(exports=[HUB], gate=gate)
    assert exports(here) == []
    assert here.says("Exported").startswith("False GateFailed: ")
    assert states(here) == {"Hub org/tuned@main": "Waiting"}
    here.edit(gate={"rules": [{"metric": "ExactMatch", "atLeast": 0.1}]})
    here.settle()
    assert len(exports(here)) == 1


def test_exports_wait_while_the_job_is_suspended() -> None:
    here = trained(exports=[MERGED])
    here.edit(suspend=True)
    here.settle()
    assert here.jobs("export") == []
    assert here.says("Exported").startswith("False Suspended: ")
    here.edit(suspend=False)
    here.settle()
    assert len(here.jobs("export")) == 1


def test_what_a_whole_model_needs_no_job_for() -> None:
    here = trained(ArtifactType.MODEL, exports=[MERGED, LORA])
    merged, lora = here.status["exports"]
    assert (merged["state"], merged["digest"]) == ("Done", digest("a"))
    assert (lora["state"], lora["failure"]["reason"]) == ("Failed", "ExportFailed")
    assert exports(here) == []
    assert here.says("Exported").startswith("False ExportFailed: spec.exports[1] (GGUFAdapter F16): ")


def test_equal_entries_are_one_export() -> None:
    here = trained(exports=[MERGED, MERGED, {"type": "GGUF"}, {"type": "GGUF", "quantization": "F16"}])
    assert list(states(here)) == ["MergedModel", "GGUF F16"]


def test_a_lost_status_asks_the_store_again() -> None:
    here = trained(exports=[MERGED])
    finish(here)
    here.wipe()
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY, outcome=training_result(KEY)).to_json())
    here.settle()
    assert states(here) == {"MergedModel": "Exporting"}
    finish(here, "e", reused=True)
    assert here.says("Exported").startswith("True ")


def test_the_pod_gets_no_accelerator_and_only_a_push_the_token() -> None:
    resources = {"requests": {"cpu": "4"}, "limits": {"memory": "32Gi", "nvidia.com/gpu": 2}}
    here = trained(exports=[MERGED, HUB], resources=resources)
    finish(here)
    merged, pushed = (
        manifest["spec"]["template"]["spec"]["containers"][0]
        for manifest in here.made
        if manifest["kind"] == "Job" and "-export-" in manifest["metadata"]["name"]
    )
    assert merged["resources"] == {"requests": {"cpu": "4"}, "limits": {"memory": "32Gi"}}
    variables = [{variable["name"]: variable for variable in container["env"]} for container in (merged, pushed)]
    assert "HF_TOKEN" not in variables[0]
    assert variables[0]["HF_HUB_OFFLINE"]["value"] == "1"
    assert variables[1]["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert "HF_HUB_OFFLINE" not in variables[1]


def test_the_plan_says_what_the_card_needs() -> None:
    here = trained(exports=[GGUF])
    plan = plan_of(here, exports(here)[0])
    assert plan.artifact.digest == digest("a")
    assert plan.export.quantization == "Q8_0"
    assert [score.value for score in plan.evaluation] == [0.5, 0.5]
    assert plan.training.run_key == KEY


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({}, True),
        ({"quantization": "F16"}, False),
        ({"type": "GGUFAdapter"}, False),
    ],
)
def test_a_key_is_of_the_settings_and_the_artifact(change: dict[str, str], is_same: bool) -> None:
    first = ExportSettings.model_validate({"type": "GGUF", "quantization": "Q8_0"})
    second = ExportSettings.model_validate({"type": "GGUF", "quantization": "Q8_0", **change})
    assert (first.key_for(digest("a")) == second.key_for(digest("a"))) is is_same
    assert first.key_for(digest("a")) != first.key_for(digest("b"))
