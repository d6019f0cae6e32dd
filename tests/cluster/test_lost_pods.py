"""Training pods that are lost in the middle of a run cost no weight."""

import pytest

from tests.cluster.kube import Kube
from tests.cluster.objects import text_dataset
from tests.cluster.training import evict, has_checkpoint, kill, long_job, training_pods

pytestmark = pytest.mark.cluster

LOSSES = {"evicted": evict, "killed": kill}


@pytest.fixture(scope="module", autouse=True)
def _lost(lab: Kube) -> None:
    """Both are lost while they train side by side with one that nothing happens to: each takes its time."""
    lab.apply(text_dataset(), long_job("survivor"), *(long_job(name, reuse="Never") for name in LOSSES))
    for name, lose in LOSSES.items():
        lab.wait("a first checkpoint", has_checkpoint(lab, name), 180)
        for pod in training_pods(lab, name):
            lose(lab, pod["metadata"]["name"])


@pytest.mark.parametrize(
    ("name", "reasons"),
    [("evicted", {"Preempted"}), ("killed", {"Preempted", "PodDeleted", "Unknown", "NodeLost"})],
    ids=["evicted, with its grace period", "killed at once"],
)
def test_a_pod_lost_in_the_middle_costs_no_weight(lab: Kube, name: str, reasons: set[str]) -> None:
    status = lab.wait_ready("finetunejob", name, 300)
    first, second = status["attempts"]
    assert first["reason"] in reasons
    assert second["reason"] == "Succeeded"
    assert second["resumedFromStep"] > 0
    assert status["progress"]["step"] == status["progress"]["totalSteps"]
    uninterrupted = lab.wait_ready("finetunejob", "survivor", 240)
    assert status["run"]["key"] != uninterrupted["run"]["key"], "it was trained, not taken over"
    assert status["artifact"]["digest"] == uninterrupted["artifact"]["digest"]
