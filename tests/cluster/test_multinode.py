"""Two pods that train together: they find each other, one result comes out, and one that is lost restarts both."""

from typing import Any

import pytest

from tests.cluster.kube import Kube, Object
from tests.cluster.objects import job, text_dataset
from tests.cluster.training import OFTEN, has_checkpoint, training_pods

pytestmark = pytest.mark.cluster

INDEX = "batch.kubernetes.io/job-completion-index"


def pair(name: str = "pair", seed: int = 1, **spec: Any) -> Object:
    """Some 1,500 steps of two forward passes, one for each of two ranks."""
    settings = {"epochs": 12, "learningRate": 0.001, "globalBatchSize": 2, "microBatchSize": 1, "packing": False}
    default = {
        "dataset": {"name": "sentences"},
        "method": "CPT",
        "adapter": {"type": "LoRA", "rank": 4},
        "hyperparameters": {**settings, "seed": seed},
        "parallelism": {"nodes": 2, "timeoutSeconds": 60},
        "checkpoints": OFTEN,
        "evaluation": {"metrics": []},
        "resources": {"requests": {"cpu": "50m", "memory": "512Mi"}, "limits": {"cpu": "1"}},
    }
    return job(name, **{**default, **spec})


def services(kube: Kube) -> list[str]:
    return [item["metadata"]["name"] for item in kube.find("services", "finetune.dev/name=pair")]


def test_a_pod_lost_in_the_middle_restarts_the_group_from_its_checkpoint(lab: Kube) -> None:
    lab.apply(text_dataset(), pair())
    lab.wait("a first checkpoint", has_checkpoint(lab, "pair"), 150)
    pods = {pod["metadata"]["labels"][INDEX]: pod for pod in training_pods(lab, "pair")}
    assert sorted(pods) == ["0", "1"]
    assert {pod["status"]["phase"] for pod in pods.values()} == {"Running"}
    (service,) = services(lab)
    assert pods["1"]["spec"]["subdomain"] == service
    lab.kubectl("delete", "pod", pods["1"]["metadata"]["name"], "--grace-period=0", "--force", "--wait=false")
    status = lab.wait_ready("finetunejob", "pair", 240)
    first, second = status["attempts"]
    assert first["reason"] in {"PodDeleted", "Preempted"}, "its peer lost it, but that is not why"
    assert status.get("retriesUsed", 0) == 0
    assert second["reason"] == "Succeeded"
    assert second["resumedFromStep"] > 0
    assert status["progress"]["step"] == status["progress"]["totalSteps"]
    assert status["artifact"]["type"] == "Adapter"
    lab.wait("the Services to go", lambda: not services(lab))


def test_ranks_without_a_sequence_are_refused_in_words(lab: Kube) -> None:
    lab.apply(text_dataset(), pair("alone", seed=2, parallelism={"nodes": 3}))
    lab.wait("the refusal", lambda: lab.condition("finetunejob", "alone", "Stalled").get("status") == "True")
    message = lab.condition("finetunejob", "alone", "Stalled")["message"]
    assert message.startswith("spec.hyperparameters.globalBatchSize: 2 sequences cannot be divided among 3 ranks")
    assert training_pods(lab, "alone") == []
