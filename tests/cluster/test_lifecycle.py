"""A run's life on a real cluster: it ends once, whatever is killed, re-applied or deleted on the way."""

import json
from collections.abc import Callable

import pytest

from tests.cluster.kube import Kube, Object
from tests.cluster.objects import dataset, deployment, job, text_dataset

pytestmark = pytest.mark.cluster

LONG = {"epochs": 100, "learningRate": 0.001, "globalBatchSize": 4, "packing": False}
"""6,000 steps, some 40 s on two idle cores: long enough to be interrupted."""

OFTEN = {"intervalMinutes": 0.05, "gracePeriodSeconds": 30}


def long_job(name: str, **spec: object) -> Object:
    default = {
        "dataset": {"name": "sentences"},
        "method": "CPT",
        "adapter": {"type": "None"},
        "hyperparameters": LONG,
        "checkpoints": OFTEN,
        "evaluation": {"metrics": []},
    }
    return job(name, **{**default, **spec})


def training_jobs(kube: Kube, name: str) -> list[Object]:
    return kube.find("jobs", f"finetune.dev/role=train,finetune.dev/name={name}")


def training_pods(kube: Kube, name: str) -> list[Object]:
    return kube.find("pods", f"finetune.dev/role=train,finetune.dev/name={name}")


def has_checkpoint(kube: Kube, name: str) -> Callable[[], bool]:
    return lambda: bool((kube.status("finetunejob", name).get("progress") or {}).get("checkpointStep"))


@pytest.fixture(scope="module", autouse=True)
def _sentences(lab: Kube) -> None:
    lab.apply(text_dataset())


def test_operator_restart_in_the_middle_of_training(lab: Kube, system: Kube) -> None:
    lab.apply(long_job("survivor"))
    lab.wait("a first step", has_checkpoint(lab, "survivor"), 120)
    before = {pod["metadata"]["uid"] for pod in training_pods(lab, "survivor")}
    system.kubectl("delete", "pods", "-l", "app.kubernetes.io/name=finetune-operator", "--grace-period=0", "--force")
    status = lab.wait_ready("finetunejob", "survivor", 240)
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Succeeded"]
    assert {pod["metadata"]["uid"] for pod in training_pods(lab, "survivor")} == before
    assert len(training_jobs(lab, "survivor")) == 1


def evict(kube: Kube, pod: str) -> None:
    """As `kubectl drain` does."""
    path = f"/api/v1/namespaces/{kube.namespace}/pods/{pod}/eviction"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": kube.namespace}}
    kube.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def kill(kube: Kube, pod: str) -> None:
    kube.kubectl("delete", "pod", pod, "--wait=false", "--grace-period=0", "--force")


@pytest.mark.parametrize(
    ("name", "lose", "reasons"),
    [
        ("evicted", evict, {"Preempted"}),
        ("killed", kill, {"Preempted", "PodDeleted", "Unknown", "NodeLost"}),
    ],
    ids=["evicted, with its grace period", "killed at once"],
)
def test_a_pod_lost_in_the_middle_costs_no_weight(
    lab: Kube, name: str, lose: Callable[[Kube, str], None], reasons: set[str]
) -> None:
    lab.apply(long_job("survivor"), long_job(name, reuse="Never"))
    lab.wait("a first checkpoint", has_checkpoint(lab, name), 120)
    for pod in training_pods(lab, name):
        lose(lab, pod["metadata"]["name"])
    status = lab.wait_ready("finetunejob", name, 300)
    first, second = status["attempts"]
    assert first["reason"] in reasons
    assert second["reason"] == "Succeeded"
    assert second["resumedFromStep"] > 0
    assert status["progress"]["step"] == status["progress"]["totalSteps"]
    uninterrupted = lab.wait_ready("finetunejob", "survivor", 240)
    assert status["run"]["key"] != uninterrupted["run"]["key"], "it was trained, not taken over"
    assert status["artifact"]["digest"] == uninterrupted["artifact"]["digest"]


YAMLS = [dataset(), job(), deployment()]


class TestTheThreeYamls:
    """In order: each test goes on where the one before ended."""

    def test_apply_all_at_once(self, lab: Kube) -> None:
        lab.apply(*YAMLS)
        lab.wait_ready("dataset", "colours")
        status = lab.wait_ready("finetunejob", "colour-namer")
        scores = {(score["metric"], score["system"]): score["value"] for score in status["evaluation"]}
        assert scores["EvalLoss", "Tuned"] < scores["EvalLoss", "ZeroShot"]
        lab.wait_ready("modeldeployment", "colours")

    def test_second_apply_changes_nothing(self, lab: Kube) -> None:
        before = snapshot(lab)
        assert "configured" not in lab.apply(*YAMLS)
        lab.kubectl("annotate", "finetunejob", "colour-namer", f"touched={id(before)}", "--overwrite")
        lab.kubectl("annotate", "dataset", "colours", f"touched={id(before)}", "--overwrite")
        lab.wait("a pass after the re-apply", lambda: lab.status("finetunejob", "colour-namer").get("phase"))
        assert snapshot(lab) == before

    def test_recreated_job_adopts_the_stored_result(self, lab: Kube) -> None:
        before = lab.status("finetunejob", "colour-namer")
        lab.kubectl("delete", "finetunejob", "colour-namer")
        lab.wait("its children to go", lambda: not training_jobs(lab, "colour-namer"))
        lab.apply(job())
        after = lab.wait_ready("finetunejob", "colour-namer")
        assert after["artifact"] == before["artifact"]
        assert after["run"]["key"] == before["run"]["key"]
        assert training_jobs(lab, "colour-namer") == []

    def test_delete_everything_leaves_only_what_is_stored(self, lab: Kube) -> None:
        lab.kubectl("delete", "modeldeployment,finetunejob,dataset", "--all")
        kinds = "jobs,deployments,services,configmaps,pods"
        lab.wait(
            "every child to go", lambda: not lab.find(kinds, "app.kubernetes.io/managed-by=finetune-operator"), 240
        )
        assert lab.get("pvc", "finetune-artifacts") is not None
        lab.kubectl("delete", "pod", "tiny-base")
        lab.kubectl("delete", "namespace", lab.namespace, "--timeout=60s")


def snapshot(kube: Kube) -> dict[str, str]:
    """Every child and its version; pods of deployments may report their readiness again, so they are left out."""
    return {
        f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["uid"]
        for item in kube.find("jobs,configmaps,deployments,services", "app.kubernetes.io/managed-by=finetune-operator")
    }
