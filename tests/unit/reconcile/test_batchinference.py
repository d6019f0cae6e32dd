"""BatchInference: what is looked up, what is run, what is kept, and what is not done twice."""

import pytest

from finetune_contract.results import ArtifactType
from tests import factories
from tests.factories import Object, digest, finished_job, make_batch, stage_result, stored
from tests.unit.reconcile.batches import JSONL, plan_of, succeed, world
from tests.unit.reconcile.world import World

# --- inputs


def test_an_adapter_of_a_job_answers_a_datasets_split() -> None:
    here = world()
    plan = plan_of(here)
    assert plan.base == stored("b")
    assert plan.adapter == stored("a", "artifacts")
    assert plan.input.dataset is not None
    assert (plan.input.dataset.revision, plan.input.dataset.split) == (stored("d", "datasets"), "test")
    assert (plan.name, plan.key) == ("triage", here.status["run"]["key"])
    assert here.status["phase"] == "Starting"
    assert [job["metadata"]["name"] for job in here.jobs()] == [f"labels-batch-{plan.key[:6]}-1"]


def test_a_whole_model_of_a_job_answers_as_it_is() -> None:
    here = world(finished_job(type_=ArtifactType.MODEL), factories.ready_dataset())
    assert (plan_of(here).base, plan_of(here).adapter) == (stored("a", "artifacts"), None)


def test_a_model_of_the_hub_is_staged_first() -> None:
    here = world(factories.ready_dataset(), model={"baseModel": {"huggingFace": {"repo": "org/model"}}})
    assert [job["metadata"]["labels"]["finetune.dev/role"] for job in here.jobs()] == ["stage"]
    assert here.says("Ready").startswith("False Staging")
    here.end(here.newest("stage"), stage_result(None).to_json())
    here.settle()
    assert (plan_of(here).base, plan_of(here).name) == (stored("b"), "labels")


WAITS = {
    "no job": ((), {}, "ModelNotFound: spec.model.fineTuneJob.name: there is no FineTuneJob 'triage'"),
    "no artifact": ((factories.make_job(),), {}, "ModelNotReady: FineTuneJob 'triage' has no artifact yet"),
    "no dataset": ((finished_job(),), {}, "DatasetNotFound: spec.input.dataset.name: there is no Dataset 'tickets'"),
    "no revision": (
        (finished_job(), factories.make_dataset()),
        {},
        "DatasetNotReady: Dataset 'tickets' has no revision yet",
    ),
    "no claim": (
        (finished_job(),),
        {"input": {"jsonl": {"persistentVolumeClaim": {"claimName": "raw", "path": "*.jsonl"}}}},
        "SourceNotFound: spec.input.jsonl.persistentVolumeClaim: there is no PersistentVolumeClaim 'raw'",
    ),
    "no config map": (
        (finished_job(),),
        {"input": {"jsonl": {"configMap": {"name": "asks", "key": "a.jsonl"}}}},
        "SourceNotFound: spec.input.jsonl.configMap: there is no ConfigMap 'asks'",
    ),
}


@pytest.mark.parametrize(("others", "spec", "words"), WAITS.values(), ids=WAITS)
def test_it_waits_for_what_is_not_there(others: tuple[Object, ...], spec: Object, words: str) -> None:
    here = World(make_batch(**spec), *others)
    here.settle()
    assert here.says("Reconciling").startswith(f"True {words}")
    assert here.jobs() == []


def test_a_split_without_rows_is_refused_with_those_there_are() -> None:
    dataset = factories.ready_dataset()
    dataset["status"]["revision"]["splits"] = [{"name": "train", "rows": 8}, {"name": "test", "rows": 1}]
    here = world(finished_job(), dataset, input={"dataset": {"name": "tickets", "split": "validation"}})
    assert here.says("Stalled").startswith(
        "True SplitNotFound: spec.input.dataset.split: Dataset 'tickets' has no vali"
    )
    assert "it has train, test" in here.says("Stalled")


def test_an_artifact_whose_gate_failed_is_refused_unless_the_spec_says_otherwise() -> None:
    bad = finished_job()
    bad["status"]["artifact"]["verdict"] = "Failed"
    here = world(bad, factories.ready_dataset())
    assert here.says("Stalled").startswith("True GateFailed: spec.model.fineTuneJob.name: sha256:aaa")
    assert (here.status["phase"], here.jobs()) == ("GateFailed", [])
    here.edit(ignoreGate=True)
    here.settle()
    assert here.status["run"]["gateIgnored"]
    assert here.says("GateIgnored").startswith("True IgnoreGate")
    assert [event.reason for event in here.events] == ["GateFailed", "GateIgnored"]
    assert len(here.jobs()) == 1


def test_files_of_a_volume_are_mounted_and_their_pattern_is_in_the_plan() -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "raw"}, "spec": {}}
    source = {"persistentVolumeClaim": {"claimName": "raw", "path": "asks/*.jsonl"}}
    here = world(finished_job(), claim, input={"jsonl": source})
    jsonl = plan_of(here).input.jsonl
    assert jsonl is not None
    assert jsonl.files == "asks/*.jsonl"
    pod = next(item for item in here.made if item["kind"] == "Job")["spec"]["template"]["spec"]
    assert {"name": "source", "mountPath": "/source", "readOnly": True} in pod["containers"][0]["volumeMounts"]


# --- what is looked up is latched


def test_a_newer_artifact_or_revision_starts_nothing_by_itself() -> None:
    here = succeed(world())
    for reference in list(here.others):
        if reference.kind in ("FineTuneJob", "Dataset"):
            del here.others[reference]
    here.settle()
    assert (here.status["phase"], len(here.created)) == ("Succeeded", 3)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"sampling": {"maxTokens": 9}}, id="sampling"),
        pytest.param({"input": JSONL}, id="input"),
        pytest.param({"model": {"fineTuneJob": {"name": "triage"}, "name": "other"}}, id="model"),
    ],
)
def test_an_edit_of_what_decides_the_answers_is_another_run(edit: Object) -> None:
    here = succeed(world())
    key = here.status["run"]["key"]
    here.edit(**edit)
    here.settle()
    assert here.status["run"]["key"] != key
    assert here.status["phase"] == "Starting"
    assert here.status["output"]["run"] == key
    succeed(here, letter="e")
    assert here.status["output"]["digest"] == digest("e")


@pytest.mark.parametrize(
    "edit", [{"resources": {"requests": {"cpu": "2"}}}, {"maxErrorShare": 0.5}, {"rerun": "again"}, {"limits": {}}]
)
def test_no_other_edit_asks_again(edit: Object) -> None:
    here = succeed(world())
    made = len(here.created)
    here.edit(**edit)
    here.settle()
    assert (here.status["phase"], len(here.created)) == ("Succeeded", made)


def test_a_new_word_in_rerun_reads_files_again() -> None:
    here = succeed(world(input=JSONL))
    here.edit(rerun="2026-11-22")
    here.settle()
    assert len(here.jobs("batch")) == 1
    assert here.status["phase"] == "Starting"
    here.edit(rerun=None)
    key = here.status["run"]["key"]
    here.settle()
    assert here.status["run"]["key"] == key
