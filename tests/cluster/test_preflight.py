"""A job is checked by a CPU pod before a GPU is asked for; what cannot fit is refused with ways to make it fit."""

import json

import pytest

from tests.cluster.kube import Kube
from tests.cluster.objects import dataset, job
from tests.cluster.training import training_jobs

pytestmark = pytest.mark.cluster

LABEL = "nvidia.com/gpu.memory"


def test_what_cannot_fit_is_refused_and_what_can_goes_on(lab: Kube) -> None:
    name = "fitter"
    lab.apply(dataset(), job(name, scheduling={"nodeSelector": {LABEL: "1"}}))
    lab.wait("the refusal", lambda: lab.status("finetunejob", name).get("phase") == "Failed", 240)
    refused = lab.status("finetunejob", name)
    condition = lab.condition("finetunejob", name, "PreflightPassed")
    assert (condition["status"], condition["reason"]) == ("False", "InsufficientGpuMemory")
    assert refused["preflight"]["deviceMemoryBytes"] == 2**20 < refused["preflight"]["predictedPeakBytes"]
    assert refused["preflight"]["totalSteps"] > 0
    assert not training_jobs(lab, name)

    lab.merge("finetunejob", name, {"spec": {"scheduling": {"nodeSelector": {LABEL: "81920"}}}})
    lab.wait(
        "the preflight", lambda: lab.condition("finetunejob", name, "PreflightPassed").get("status") == "True", 240
    )
    lab.wait("a training Job", lambda: bool(training_jobs(lab, name)), 240)
    assert lab.status("finetunejob", name)["preflight"]["deviceMemoryBytes"] == 81920 * 2**20
    lab.kubectl("delete", "finetunejob", name)


def test_what_the_dataset_has_counted_as_too_long_is_refused_without_a_pod(lab: Kube) -> None:
    long = {"prompt": "Count.", "completion": " ".join(map(str, range(1000)))}
    rows = [long, *({"prompt": f"{number}?", "completion": f"{number + 1}"} for number in range(20))]
    name, base = "too-short", {"persistentVolumeClaim": {"claimName": "files", "path": "base"}}
    source = {"inline": {"jsonl": "".join(json.dumps(row) + "\n" for row in rows)}}
    lab.apply(
        dataset("counted", source=source, split={}, tokenizer=base),
        job(name, dataset={"name": "counted"}, hyperparameters={"maxLength": 512}, preflight="Disabled"),
    )
    lab.wait("the refusal", lambda: lab.status("finetunejob", name).get("phase") == "Failed", 240)
    revision = lab.status("dataset", "counted")["revision"]
    assert revision["tokenizer"] == lab.status("finetunejob", name)["run"]["inputs"]["base"]
    assert revision["truncation"][0]["tokens"] > 0
    stalled = lab.condition("finetunejob", name, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "DataTruncated")
    assert f"would cut {revision['truncation'][0]['tokens']} of" in stalled["message"]
    assert not training_jobs(lab, name)
    lab.kubectl("delete", "finetunejob", name)
