"""The life of a ModelDeployment, step by step."""

import copy
from typing import Any

import pytest

from finetune_contract.failure import Failure, FailureReason
from finetune_contract.proof import ProofState
from finetune_contract.results import ArtifactType
from finetune_operator.reconcile.observed import Reference
from tests import factories
from tests.factories import Object, digest, finished_job
from tests.unit.reconcile.deployments import TWO, proof, roll_out, states, world


def test_an_adapter_without_artifact_is_waited_for() -> None:
    here = world(factories.make_job())
    assert here.says("Ready") == "False AdapterPending: triage: FineTuneJob 'triage' has no artifact yet (Pending)"
    assert states(here) == {"triage": "Pending"}
    assert here.children == {}


def test_a_job_that_does_not_exist_is_named() -> None:
    assert "there is no FineTuneJob 'triage'" in world().says("AdaptersValid")


def test_a_whole_model_is_no_adapter() -> None:
    assert "serve it as spec.baseModel.fineTuneJob" in world(finished_job(type_=ArtifactType.MODEL)).says("Ready")


def test_an_artifact_is_served_on_its_own_base_and_proven() -> None:
    here = world(finished_job())
    assert here.status["base"]["digest"] == digest("b")
    assert states(here) == {"triage": "Loading"}
    assert here.status["url"] == "http://support.team-a.svc:8080/v1"
    assert {kind: len(items) for kind, items in here.children.items()} == {
        "ConfigMap": 1,
        "Deployment": 1,
        "Service": 1,
    }
    roll_out(here)
    assert here.status["phase"] == "Serving"
    assert states(here) == {"triage": "Serving"}
    assert here.says("Available") == "True PodsReady: 1 pod is ready"


def test_a_pass_after_the_roll_out_does_nothing() -> None:
    here = roll_out(world(finished_job()))
    before = here.status
    here.later(3600)
    outcome = here.act()
    assert (outcome.create, outcome.delete, outcome.events, outcome.wake_after) == ((), (), (), None)
    assert here.status == before


def test_a_pending_adapter_does_not_stop_the_others() -> None:
    here = roll_out(world(finished_job(), factories.make_job("reply"), adapters=TWO))
    assert states(here) == {"triage": "Serving", "reply": "Pending"}
    assert here.condition("Available")["status"] == "True"  # type: ignore[index]
    assert here.says("Ready").startswith("False AdapterPending: reply: ")


def test_a_deleted_job_keeps_its_adapter_served() -> None:
    here = roll_out(world(finished_job()))
    here.others.clear()
    here.settle()
    assert here.status["phase"] == "Serving"
    here.others[Reference("FineTuneJob", "triage")] = factories.make_job()
    here.settle()
    assert here.status["phase"] == "Serving"


def test_an_adapter_of_a_deleted_job_is_never_served_on_another_base() -> None:
    here = roll_out(world(finished_job(), finished_job("reply", "c"), adapters=TWO))
    del here.others[Reference("FineTuneJob", "triage")]
    here.others[Reference("FineTuneJob", "reply")] = finished_job("reply", "e", base="f")
    here.settle()
    assert here.says("Stalled").startswith("True BaseMismatch: ")


def test_adapters_of_different_bases_are_refused() -> None:
    here = world(finished_job(), finished_job("reply", base="c"), adapters=TWO)
    assert here.says("Stalled").startswith("True BaseMismatch: the adapters were trained from different base models")
    assert here.children == {}
    here.others[Reference("FineTuneJob", "reply")] = finished_job("reply")
    here.settle()
    assert here.condition("Stalled") is None
    assert here.find("Deployment", "support") is not None


def test_a_new_artifact_rolls_and_the_old_plan_goes_when_it_is_proven() -> None:
    here = roll_out(world(finished_job()))
    old = here.children["ConfigMap"][0]["metadata"]["name"]
    here.others[Reference("FineTuneJob", "triage")] = finished_job(artifact="c")
    here.settle()
    assert states(here) == {"triage": "Loading"}
    assert len(here.children["ConfigMap"]) == 2
    roll_out(here)
    assert states(here) == {"triage": "Serving"}
    assert [item["metadata"]["name"] for item in here.children["ConfigMap"]] != [old]


def test_an_edit_is_not_ready_before_it_is_rolled_out() -> None:
    here = roll_out(world(finished_job()))
    here.edit(resources={"requests": {"cpu": "2"}})
    outcome = here.act()
    assert outcome.status is not None
    assert outcome.status["phase"] != "Serving"
    here.settle()
    assert here.says("Ready").startswith("False Proving: ")
    roll_out(here)
    assert here.status["phase"] == "Serving"


def test_a_pod_that_starts_is_no_hindrance_of_a_roll_out() -> None:
    here = roll_out(world(finished_job()))
    here.edit(resources={"requests": {"cpu": "2"}})
    here.settle()
    before = here.says("Ready")
    serving = here.children["Deployment"][0]
    here.pod(serving, phase="Pending", containerStatuses=[])
    here.settle()
    assert here.says("Ready") == before, "the reason would go back and forth: old pods run while new ones start"
    here.children["Pod"][-1]["status"] = factories.unschedulable()
    here.settle()
    assert here.says("Ready").startswith("False Unschedulable: ")


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        ({"exitCode": 137, "reason": "Error"}, "False ServerCrashed: pod {pod}: container main ended: exit code 137"),
        (
            {"exitCode": 1, "reason": "Error", "message": "boom"},
            "False ServerCrashed: pod {pod}: container main ended: boom",
        ),
        (
            {"exitCode": 137, "reason": "OOMKilled"},
            "False HostOutOfMemory: pod {pod}: container main ended: the container exceeded its memory limit",
        ),
        (
            {"exitCode": 96, "message": Failure(reason=FailureReason.SERVER_CRASHED, message="see the log").to_json()},
            "False ServerCrashed: pod {pod}: container main ended: see the log",
        ),
    ],
    ids=["SIGKILL", "an error", "over its memory limit", "its own word"],
)
def test_a_server_that_was_killed_is_no_trainer(ended: Object, said: str) -> None:
    here = roll_out(world(finished_job()))
    container = {"name": "main", "ready": False, "restartCount": 1, "state": {"running": {}}}
    serving = here.children["Deployment"][0]
    here.pod(serving, phase="Running", containerStatuses=[container | {"lastState": {"terminated": ended}}])
    roll_out(here, ready=0)
    pod = here.children["Pod"][-1]["metadata"]["name"]
    assert here.says("Ready").startswith(said.format(pod=pod))


def test_some_pods_ready_is_available_but_not_ready() -> None:
    here = roll_out(world(finished_job(), replicas=3), ready=2)
    assert here.says("Available") == "True PodsReady: 2 pods are ready"
    assert here.says("Ready").startswith("False Proving")
    assert (here.status["replicas"], here.status["readyReplicas"]) == (3, 2)


def test_nothing_is_serving_without_pods() -> None:
    here = roll_out(world(finished_job(), replicas=0))
    assert states(here) == {"triage": "Loading"}
    assert here.says("Available").startswith("False ")


def test_what_keeps_a_pod_from_running_is_said() -> None:
    here = world(finished_job())
    item = here.find("Deployment", "support")
    assert item is not None
    here.pod(item, **factories.image_pull_error())
    here.settle()
    assert here.says("Ready").startswith("False ImagePullFailed: pod support-")


def test_a_refusal_is_said() -> None:
    here = world(finished_job())
    here.denials = {"support": "exceeded quota: pods"}
    here.settle()
    assert here.says("Ready").startswith("False QuotaExceeded: ")


def test_a_name_that_somebody_else_has_is_said_in_our_own_words() -> None:
    here = world(finished_job())
    here.denials = {"support": "the name is taken: the Service of this name was not made by the operator"}
    here.settle()
    assert here.says("Ready") == f"False NameTaken: support: {here.denials['support']}"


def vllm(*args: str) -> dict[str, Any]:
    return {"engine": {"type": "VLLM", "args": list(args)}}


def test_an_adapter_that_the_engine_cannot_serve_starts_nothing() -> None:
    here = world(finished_job(facts={"features": ["DoRA"]}), **vllm())
    assert here.says("AdaptersValid").startswith("False UnsupportedByEngine: triage: vLLM does not serve DoRA")
    assert here.says("Ready").startswith("False UnsupportedByEngine")
    assert here.status["phase"] == "Failed"
    assert states(here) == {"triage": "Invalid"}
    assert here.children == {}


def test_a_bad_artifact_leaves_the_old_pods_as_they_are() -> None:
    here = roll_out(world(finished_job(), **vllm()))
    before = copy.deepcopy(here.find("Deployment", "support"))
    here.others[Reference("FineTuneJob", "triage")] = finished_job(artifact="e", facts={"rank": 1024})
    here.settle()
    assert "its rank is 1024" in here.says("AdaptersValid")
    assert here.find("Deployment", "support") == before
    assert len(here.children["ConfigMap"]) == 1
    here.others[Reference("FineTuneJob", "triage")] = finished_job(artifact="f", facts={"rank": 64})
    roll_out(here)
    assert here.says("AdaptersValid").startswith("True")
    after = here.find("Deployment", "support")
    assert after is not None
    assert "--max-lora-rank=64" in after["applied"]["spec"]["template"]["spec"]["containers"][0]["command"]


@pytest.mark.parametrize("argument", ["--lora-modules", "--port=1", "--trust-remote-code", "--model /elsewhere"])
def test_arguments_that_are_the_operators_are_refused(argument: str) -> None:
    here = world(finished_job(), **vllm("--enforce-eager", argument))
    assert (
        here.says("Accepted")
        == f"False InvalidSpec: spec.engine.args: {argument!r} is the operator's to set; remove it"
    )
    assert here.children == {}


def test_further_arguments_come_last() -> None:
    here = world(finished_job(), **vllm("--enforce-eager"))
    item = here.find("Deployment", "support")
    assert item is not None
    assert item["applied"]["spec"]["template"]["spec"]["containers"][0]["command"][-1] == "--enforce-eager"


@pytest.mark.parametrize("state", [ProofState.INERT, ProofState.INVALID])
def test_a_failed_proof_names_the_adapter_and_the_others_wait(state: ProofState) -> None:
    here = world(*(finished_job(name) for name in ("triage", "reply")), adapters=TWO)
    proof(here, state, "it answers like something else")
    assert states(here) == {"triage": state.value, "reply": "Loading"}
    assert here.says("AdaptersValid") == (
        f"False Adapter{state}: adapter triage is {state}: it answers like something else"
    )
    assert here.says("Stalled").startswith(f"True Adapter{state}")


def test_a_failed_proof_of_a_new_artifact_leaves_the_old_one_serving() -> None:
    here = roll_out(world(finished_job()))
    here.others[Reference("FineTuneJob", "triage")] = finished_job(artifact="e")
    here.settle()
    proof(here, ProofState.INERT, "training changed nothing")
    assert here.says("Available").startswith("True")
    assert here.status["phase"] == "Updating" or here.status["phase"] == "Failed"
    # The pods of another artifact say nothing about the next one.
    here.others[Reference("FineTuneJob", "triage")] = finished_job(artifact="f")
    here.settle()
    assert states(here) == {"triage": "Loading"}
    here.proofs = {}
    roll_out(here)
    assert states(here) == {"triage": "Serving"}
    assert here.condition("Stalled") is None


def test_an_engine_that_still_loads_is_no_failed_proof() -> None:
    here = world(finished_job())
    proof(here, ProofState.LOADING, "waiting for the engine")
    assert states(here) == {"triage": "Loading"}
    assert here.says("Ready").startswith("False Proving")
