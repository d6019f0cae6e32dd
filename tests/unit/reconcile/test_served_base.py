"""The base model of a ModelDeployment: staged once, and never another than the adapters'."""

from finetune_contract.failure import Failure, FailureReason
from finetune_contract.results import ArtifactType, StageResult
from finetune_operator.reconcile.observed import Reference
from tests import factories
from tests.factories import digest, finished_job
from tests.unit.reconcile.deployments import HUB, TWO, roll_out, staged, world


def test_a_base_model_is_staged_once() -> None:
    here = world(baseModel=HUB, adapters=[])
    assert here.says("Ready").startswith("False Staging: ")
    roll_out(staged(here))
    assert here.status["phase"] == "Serving"
    assert here.says("Ready") == "True Serving: 0 adapters proven on 1 pod"
    here.children["Job"] = []
    here.settle()
    assert here.jobs() == []


def test_another_base_model_replaces_the_stage_job() -> None:
    here = roll_out(staged(world(baseModel=HUB, adapters=[])))
    first = here.newest("stage")["metadata"]["name"]
    here.edit(baseModel={"huggingFace": {"repo": "org/other"}})
    here.settle()
    assert here.find("Job", first) is None
    assert here.find("Deployment", "support") is not None
    roll_out(staged(here, "c"))
    assert here.status["base"]["digest"] == digest("c")
    assert here.status["phase"] == "Serving"


def test_a_base_that_the_adapters_were_not_trained_from_is_refused() -> None:
    here = staged(world(finished_job(), baseModel=HUB), "c")
    assert here.says("Stalled").startswith("True BaseMismatch: spec.baseModel is sha256:cc")
    assert here.find("Deployment", "support") is None


def test_the_model_of_a_job_is_served_when_there_is_one() -> None:
    here = world(factories.make_job("domain"), baseModel={"fineTuneJob": {"name": "domain"}}, adapters=[])
    assert here.says("Ready").startswith("False BaseNotReady: spec.baseModel.fineTuneJob.name: FineTuneJob 'domain'")
    here.others[Reference("FineTuneJob", "domain")] = finished_job("domain", "e", type_=ArtifactType.MODEL)
    here.settle()
    roll_out(staged(here, "e"))
    del here.others[Reference("FineTuneJob", "domain")]
    here.settle()
    assert here.status["phase"] == "Serving"


def test_a_base_that_cannot_be_staged_is_said_until_an_edit() -> None:
    here = world(baseModel=HUB, adapters=[])
    failure = Failure(reason=FailureReason.MODEL_ACCESS_DENIED, message="gated")
    here.end(here.newest("stage"), StageResult(failure=failure).to_json(), code=70)
    here.settle()
    assert here.says("Stalled").startswith("True ModelAccessDenied: gated. Accept")
    assert here.status["phase"] == "Failed"
    here.edit(replicas=2)
    here.settle()
    assert len(here.jobs()) == 2
    here.edit(baseModel=None, adapters=TWO[:1])
    here.raw["spec"].pop("baseModel")
    here.settle()
    assert "stageFailure" not in here.status
    assert here.jobs() == []
