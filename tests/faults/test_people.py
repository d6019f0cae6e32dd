"""People edit, delete and re-create at the worst moments."""

from __future__ import annotations

from functools import partial

import pytest

from finetune_operator.manifests.naming import LABEL_ROLE
from tests.faults import life
from tests.faults.actions import meanwhile
from tests.faults.api import Object
from tests.faults.laboratory import Case, Goldens, Laboratory
from tests.faults.plays import labelled, running_operator
from tests.faults.proxy import Rule
from tests.faults.stage import Stage

MORE_MEMORY = {"spec": {"resources": {"requests": {"memory": "3Gi"}}}}
"""An edit of an Operational field."""


# --- edits


async def _edited(label: str, edit: Object, stage: Stage, _goldens: Goldens) -> None:
    """The spec changes between a pass's look and its write."""
    await running_operator(stage)
    deed = partial(stage.edit, "FineTuneJob", life.JOB, edit)
    stage.inject(Rule(labelled(label), meanwhile(deed)))
    await stage.begin()
    await stage.until_injected(1)
    await stage.until("the edited job Ready", lambda: life.is_done(stage.resource("FineTuneJob", life.JOB), 2))
    await stage.verdict(None)
    status = stage.resource("FineTuneJob", life.JOB)["status"]
    assert status["observedGeneration"] == 2
    assert status["artifact"]["run"] == status["run"]["key"]
    wanted = 5 if edit is life.EDIT else 3
    plans = [item["data"]["plan.json"] for item in stage.history.of("ConfigMap") if "train" in str(item["metadata"])]
    assert len(plans) == 1, "plans of another run are gone"
    assert f'"epochs":{wanted}' in plans[0].replace(" ", "").replace(".0", "")


EDITED_AT = (
    "create ConfigMap stage-1", "create Job stage-1", "status FineTuneJob Staging",
    "status FineTuneJob Staging PodStarting", "create ConfigMap train-1", "create Job train-1",
    "status FineTuneJob Starting", "status FineTuneJob Loading Training", "status FineTuneJob Succeeded",
)  # fmt: skip


# --- deletions


async def _recreated(kind: str, label: str, stage: Stage, goldens: Goldens) -> None:
    """The object is deleted during a write, and another one of the same name and spec takes its place."""
    await running_operator(stage)
    # A job waits again for a Dataset that was taken away again.
    stage.moved = ("FineTuneJob",) if kind == "Dataset" else ()
    name = life.DATASET if kind == "Dataset" else life.JOB
    make = life.dataset if kind == "Dataset" else life.job

    # Else a slow machine lets the first one's run succeed, and the second one rightly adopts its artifact.
    held = stage.kubelet.hold("train-1")
    old: set[str] = set()

    def training() -> set[str]:
        pods = [item["metadata"] for item in stage.history.of("Pod")]
        return {pod["uid"] for pod in pods if pod["labels"].get(LABEL_ROLE) == "train"}

    async def replace() -> None:
        old.update(training())
        await stage.api.delete(kind, stage.namespace, name)
        await stage.apply(make(stage.namespace))

    stage.inject(Rule(labelled(label), meanwhile(replace)))
    await stage.begin()
    await stage.until_injected(1)
    if kind == "FineTuneJob":
        await stage.until("the first one's pods gone", lambda: not old & training())
    held.set()
    await stage.until_done()
    await stage.verdict(goldens.trained)


RECREATED_AT = (
    ("Dataset", "create ConfigMap prepare-1"), ("Dataset", "create Job prepare-1"),
    ("Dataset", "status Dataset Preparing"), ("Dataset", "status Dataset Ready RevisionReady"),
    ("FineTuneJob", "create ConfigMap stage-1"), ("FineTuneJob", "create Job stage-1"),
    ("FineTuneJob", "status FineTuneJob Staging"), ("FineTuneJob", "create ConfigMap train-1"),
    ("FineTuneJob", "create Job train-1"), ("FineTuneJob", "status FineTuneJob Starting"),
    ("FineTuneJob", "status FineTuneJob Loading Training"),
)  # fmt: skip


async def _recreated_after_success(stage: Stage, _goldens: Goldens) -> None:
    """The store knows the run: nothing is trained, the artifact is adopted."""
    await running_operator(stage)
    await stage.train()
    before = stage.resource("FineTuneJob", life.JOB)
    await stage.api.delete("FineTuneJob", stage.namespace, life.JOB)
    await stage.apply(life.job(stage.namespace))
    await stage.until_done()
    stage.proxy.injected += 1
    after = stage.resource("FineTuneJob", life.JOB)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["status"]["artifact"] == before["status"]["artifact"]
    await stage.verdict(None)


async def _status_lost(stage: Stage, _goldens: Goldens) -> None:
    """A restore without status while the operator is away."""
    operator = await running_operator(stage)
    await stage.train()
    await operator.stop()
    artifact = stage.resource("FineTuneJob", life.JOB)["status"]["artifact"]
    bare = await stage.api.get("FineTuneJob", stage.namespace, life.JOB)
    assert bare is not None
    path = f"/apis/finetune.dev/v1alpha1/namespaces/{stage.namespace}/finetunejobs/{life.JOB}/status"
    await stage.api.request("PUT", path, {**bare, "status": {}})
    stage.proxy.injected += 1
    operator.start()
    await stage.until_done()
    assert stage.resource("FineTuneJob", life.JOB)["status"]["artifact"] == artifact
    assert sum(stage.kubelet.store.trainings.values()) == 1


async def _dataset_gone_in_use(stage: Stage, goldens: Goldens) -> None:
    """A run keeps the revision that it began with."""
    await running_operator(stage)
    held = stage.kubelet.hold("train-1")
    await stage.begin()
    await stage.until_said("FineTuneJob", life.JOB, "is running")
    await stage.api.delete("Dataset", stage.namespace, life.DATASET)
    stage.proxy.injected += 1
    held.set()
    await stage.until_done()
    key = f"FineTuneJob/{life.JOB}"
    await stage.settle()
    found = life.final_state(stage.history.objects, stage.namespace)[key]
    assert not life.differences(goldens.trained[key], found)
    await stage.verdict(None)


async def _dataset_gone_before_use(stage: Stage, goldens: Goldens) -> None:
    await running_operator(stage)
    stage.moved = ("FineTuneJob",)
    stage.kubelet.hold("prepare-1")
    await stage.begin()
    await stage.until_said("Dataset", life.DATASET, "reading the source")
    await stage.api.delete("Dataset", stage.namespace, life.DATASET)
    stage.proxy.injected += 1
    await stage.until_said("FineTuneJob", life.JOB, "DatasetNotFound")
    stage.kubelet.holds["prepare-1"].set()
    await stage.apply(life.dataset(stage.namespace))
    await stage.until_done()
    await stage.verdict(goldens.trained)


# --- children


async def _job_deleted(part: str, who: str, words: str, stage: Stage, goldens: Goldens) -> None:
    """A user deletes the Job of a result: it is made again."""
    await running_operator(stage)
    stage.moved = (who,)
    held = stage.kubelet.hold(part)
    await stage.begin()
    name = life.DATASET if who == "Dataset" else life.JOB
    await stage.until_said(who, name, words)
    job = next(item for item in stage.history.of("Job") if item["metadata"]["labels"][LABEL_ROLE] == part[:-2])
    await stage.api.delete("Job", stage.namespace, job["metadata"]["name"], propagationPolicy="Background")
    stage.proxy.injected += 1

    def is_another() -> bool:
        found = stage.history.get("Job", job["metadata"]["name"])
        return bool(found) and found["metadata"]["uid"] != job["metadata"]["uid"]

    await stage.until("another Job of the name", is_another)
    held.set()
    await stage.until_done()
    await stage.verdict(goldens.trained)


async def _training_deleted(limit: int, stage: Stage, _goldens: Goldens) -> None:
    """A user deletes a running training Job: the store is asked, and another attempt follows that costs no retry."""
    await running_operator(stage)
    stage.kubelet.hold("train-1")
    await stage.begin(retries={"limit": limit})
    await stage.until_said("FineTuneJob", life.JOB, "is running")
    job = next(item for item in stage.history.of("Job") if item["metadata"]["labels"][LABEL_ROLE] == "train")
    await stage.api.delete("Job", stage.namespace, job["metadata"]["name"], propagationPolicy="Background")
    stage.proxy.injected += 1
    await stage.until_done()
    status = stage.resource("FineTuneJob", life.JOB)["status"]
    assert [attempt["reason"] for attempt in status["attempts"]] == ["PodDeleted", "Succeeded"]
    assert status["retriesUsed"] == 0
    await stage.verdict(None)


async def _pod_deleted(stage: Stage, _goldens: Goldens) -> None:
    """A user deletes the training pod: the attempt is over, another one follows."""
    await running_operator(stage)
    stage.kubelet.hold("train-1")
    await stage.begin()
    await stage.until_said("FineTuneJob", life.JOB, "is running")
    pod = next(item for item in stage.history.of("Pod") if item["metadata"]["labels"][LABEL_ROLE] == "train")
    await stage.api.delete("Pod", stage.namespace, pod["metadata"]["name"])
    stage.proxy.injected += 1
    await stage.until_done()
    attempts = stage.resource("FineTuneJob", life.JOB)["status"]["attempts"]
    assert [attempt["reason"] for attempt in attempts] == ["PodDeleted", "Succeeded"]
    assert stage.resource("FineTuneJob", life.JOB)["status"].get("retriesUsed", 0) == 0
    await stage.verdict(None)


async def _serving_child(kind: str, change: Object | None, stage: Stage, goldens: Goldens) -> None:
    """A user edits or deletes what serves: it comes back as it should be."""
    await running_operator(stage)
    stage.moved = ("ModelDeployment",) if kind == "Deployment" else ()
    await stage.train()
    await stage.serve()
    name = next(item["metadata"]["name"] for item in stage.history.of(kind) if "serve" in str(item["metadata"]))
    if change is None:
        await stage.api.delete(kind, stage.namespace, name)
    else:
        await stage.edit(kind, name, change)
    stage.proxy.injected += 1
    await stage.train_again()
    await stage.verdict(goldens.whole)


# --- while the operator is away


CASES = [
    *(
        Case("spec edited", f"{name} during {label}", partial(_edited, label, edit))
        for label in EDITED_AT
        for name, edit in (("Train field", life.EDIT), ("Operational field", MORE_MEMORY))
    ),
    *(Case("re-created", f"{kind} during {label}", partial(_recreated, kind, label)) for kind, label in RECREATED_AT),
    Case("re-created", "after the success", _recreated_after_success),
    Case("status lost", "while the operator is away", _status_lost),
    Case("dataset gone", "in use", _dataset_gone_in_use),
    Case("dataset gone", "before use", _dataset_gone_before_use),
    Case("child deleted", "prepare Job", partial(_job_deleted, "prepare-1", "Dataset", "reading the source")),
    Case("child deleted", "stage Job", partial(_job_deleted, "stage-1", "FineTuneJob", "bringing the base model")),
    *(Case("child deleted", f"train Job, {limit} retries", partial(_training_deleted, limit)) for limit in (0, 2)),
    Case("child deleted", "training pod", _pod_deleted),
    *(
        Case("child deleted", kind, partial(_serving_child, kind, None))
        for kind in ("Deployment", "Service", "ConfigMap")
    ),
    Case("child edited", "Deployment", partial(_serving_child, "Deployment", {"spec": {"replicas": 3}})),
    Case("child edited", "Service", partial(_serving_child, "Service", {"spec": {"selector": {"stolen": "yes"}}})),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_people_may_do_that(case: Case, laboratory: Laboratory) -> None:
    laboratory.outcome(case)
