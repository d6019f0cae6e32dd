"""Training in the queues of a real Kueue: waiting with a place, being preempted, and two trainers at a time."""

import copy
import json
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.cluster.conftest import fresh_namespace, put_tiny_base
from tests.cluster.kube import Kube, Object
from tests.cluster.objects import job, text_dataset
from tests.cluster.training import OFTEN, has_checkpoint

pytestmark = pytest.mark.cluster

QUEUES = "kueue.x-k8s.io/v1beta2"


def queued_job(name: str, seed: int, epochs: int, **scheduling: str) -> Object:
    """60 steps an epoch; some 80 steps a second on an idle core."""
    return job(
        name,
        dataset={"name": "sentences"},
        method="CPT",
        adapter={"type": "None"},
        hyperparameters={
            "epochs": epochs, "learningRate": 0.001, "globalBatchSize": 4, "packing": False, "seed": seed,
        },
        checkpoints=OFTEN,
        evaluation={"metrics": []},
        # Little, so that only the queue decides who runs: the node may be full of other tests' pods.
        resources={"requests": {"cpu": "50m", "memory": "512Mi"}, "limits": {"nvidia.com/gpu": 1, "cpu": "1"}},
        scheduling=scheduling,
    )  # fmt: skip


def queues(namespace: str) -> list[Object]:
    """Quota for one GPU, in objects whose names are this namespace's own: most are the whole cluster's."""
    quotas: list[Object] = [
        {"name": "cpu", "nominalQuota": 64},
        {"name": "memory", "nominalQuota": "64Gi"},
        {"name": "nvidia.com/gpu", "nominalQuota": 1},
    ]
    group = {
        "coveredResources": [quota["name"] for quota in quotas],
        "flavors": [{"name": namespace, "resources": quotas}],
    }
    spec = {
        "namespaceSelector": {},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [group],
    }
    return [
        {"apiVersion": QUEUES, "kind": "ResourceFlavor", "metadata": {"name": namespace}},
        {"apiVersion": QUEUES, "kind": "ClusterQueue", "metadata": {"name": namespace}, "spec": spec},
        {
            "apiVersion": QUEUES,
            "kind": "LocalQueue",
            "metadata": {"name": "team"},
            "spec": {"clusterQueue": namespace},
        },
        {
            "apiVersion": QUEUES,
            "kind": "WorkloadPriorityClass",
            "metadata": {"name": f"{namespace}-urgent"},
            "value": 1000,
        },
    ]


@pytest.fixture(scope="module")
def queue() -> Iterator[Kube]:
    """A namespace with LocalQueue `team`, the tiny base model and a dataset."""
    kube = fresh_namespace()
    if kube.kubectl("get", "crd", "workloads.kueue.x-k8s.io", check=False).returncode:
        pytest.fail("no Kueue on the cluster: run `make kueue` first")
    kube.apply(*queues(kube.namespace))
    put_tiny_base(kube)
    kube.apply(text_dataset())
    yield kube
    kube.kubectl("delete", "finetunejobs", "--all", "--ignore-not-found")
    kube.kubectl("delete", "namespace", kube.namespace, "--wait=false", "--ignore-not-found")
    kube.kubectl("delete", f"clusterqueue/{kube.namespace}", "--wait=false", "--ignore-not-found")
    names = [f"resourceflavor/{kube.namespace}", f"workloadpriorityclass/{kube.namespace}-urgent"]
    kube.kubectl("delete", *names, "--wait=false", "--ignore-not-found")


def training(kube: Kube, kind: str, name: str) -> list[Object]:
    return kube.find(kind, f"finetune.dev/role=train,finetune.dev/name={name}")


def admitted(kube: Kube, name: str) -> str:
    found = kube.condition("finetunejob", name, "Admitted")
    return f"{found['status']} {found['reason']}: {found['message']}" if found else ""


def when(kube: Kube, name: str, type_: str) -> datetime:
    return datetime.fromisoformat(kube.condition("finetunejob", name, type_)["lastTransitionTime"])


class TestOneGpuForThree:
    """In order: each test goes on where the one before ended."""

    def test_a_queue_that_is_not_there_is_named(self, queue: Kube) -> None:
        queue.apply(queued_job("first", seed=11, epochs=80, queueName="team"))
        queue.wait("training to have saved something", has_checkpoint(queue, "first"), 120)
        assert admitted(queue, "first") == "True Admitted: by queue team"
        queue.apply(queued_job("second", seed=12, epochs=2, queueName="nowhere"))
        words = "spec.scheduling.queueName: LocalQueue nowhere doesn't exist; create it, or name another"
        queue.wait("the queue to be missed", lambda: admitted(queue, "second") == f"False Inadmissible: {words}")

    def test_what_does_not_fit_waits_and_says_why(self, queue: Kube) -> None:
        queue.apply(queued_job("second", seed=12, epochs=2, queueName="team"))
        place = queue.wait("a place", lambda: queue.status("finetunejob", "second").get("queue", {}).get("position"))
        assert place == 1
        status = queue.status("finetunejob", "second")
        assert status["phase"] == "Queued"
        assert status["queue"]["waiting"] == 1
        words = admitted(queue, "second")
        assert words.startswith("False Pending: 1st of 1 in queue team: ")
        assert "insufficient unused quota for nvidia.com/gpu" in words
        assert len(training(queue, "jobs", "second")) == 1
        assert training(queue, "pods", "second") == []

    def test_an_edit_that_does_not_concern_the_waiting_job_leaves_it_its_place(self, queue: Kube) -> None:
        (before,) = training(queue, "jobs", "second")
        queue.kubectl("patch", "finetunejob", "second", "--type=merge", "-p", '{"spec":{"retries":{"limit":3}}}')
        queue.wait("the edit to be seen", lambda: queue.status("finetunejob", "second")["observedGeneration"] == 3)
        (after,) = training(queue, "jobs", "second")
        assert after["metadata"]["uid"] == before["metadata"]["uid"]

    def test_a_higher_priority_preempts(self, queue: Kube) -> None:
        (before,) = training(queue, "jobs", "first")
        urgent = {"queueName": "team", "queuePriority": f"{queue.namespace}-urgent"}
        queue.apply(queued_job("urgent", seed=14, epochs=2, **urgent))
        queue.wait("the preemption", lambda: "preempted by Kueue" in admitted(queue, "first"), 120)
        queue.wait("its pod's end", lambda: queue.status("finetunejob", "first")["queue"]["preemptions"] == 1)
        status = queue.status("finetunejob", "first")
        assert status["phase"] == "Queued"
        assert status["queue"]["checkpointStep"] > 0
        assert status.get("attempts", []) == []
        (after,) = training(queue, "jobs", "first")
        assert after["metadata"]["uid"] == before["metadata"]["uid"], "its place in the queue is the Job's"

    def test_all_end_well_and_the_preempted_one_resumed(self, queue: Kube) -> None:
        for name in ("urgent", "first", "second"):
            queue.wait_ready("finetunejob", name, 240)
        status = queue.status("finetunejob", "first")
        (attempt,) = status["attempts"]
        assert (attempt["reason"], attempt["preemptions"]) == ("Succeeded", 1)
        assert attempt["resumedFromStep"] > 0
        assert (status["attemptsTotal"], status["retriesUsed"], status["stalledDisruptions"]) == (1, 0, 0)
        assert status["progress"]["step"] == status["progress"]["totalSteps"] == 4800
        assert when(queue, "urgent", "Complete") < when(queue, "first", "Complete")
        assert when(queue, "first", "Complete") < when(queue, "second", "Complete")


def test_two_trainers_of_one_run_at_a_time_do_no_harm(queue: Kube) -> None:
    """As when a node is cut off: the old pod trains on while the Job is drained, admitted again and resumes."""
    queue.apply(queued_job("haunted", seed=15, epochs=60, queueName="team"))
    queue.wait("a checkpoint", has_checkpoint(queue, "haunted"), 120)
    (pod,) = training(queue, "pods", "haunted")
    queue.apply(ghost_of(pod))
    queue.wait("the second trainer", lambda: queue.status("pod", "ghost").get("phase") == "Running")
    stop_queue(queue, "HoldAndDrain")
    queue.wait("the eviction", lambda: admitted(queue, "haunted").startswith("False"))
    stop_queue(queue, "None")
    queue.wait("its return", lambda: admitted(queue, "haunted").startswith("True"))
    status = queue.wait_ready("finetunejob", "haunted", 240)
    (attempt,) = status["attempts"]
    assert (attempt["reason"], attempt["preemptions"], status["retriesUsed"]) == ("Succeeded", 1, 0)
    queue.wait("the other trainer's end", lambda: queue.status("pod", "ghost").get("phase") == "Succeeded", 180)
    (container,) = queue.status("pod", "ghost")["containerStatuses"]
    said = json.loads(container["state"]["terminated"]["message"])
    assert said["runKey"] == status["run"]["key"]
    assert said["artifact"]["digest"] == status["artifact"]["digest"]
    ended = datetime.fromisoformat(container["state"]["terminated"]["finishedAt"])
    started = datetime.fromisoformat(container["state"]["terminated"]["startedAt"])
    assert started < when(queue, "haunted", "Admitted") < ended, "they did not overlap"


def ghost_of(pod: Object) -> Object:
    """The same trainer with the same plan and store, which nobody can stop."""
    spec = copy.deepcopy(pod["spec"])
    for field in ("nodeName", "serviceAccount", "serviceAccountName", "priority", "preemptionPolicy"):
        spec.pop(field, None)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ghost"}, "spec": spec}


def stop_queue(kube: Kube, policy: str) -> None:
    kube.kubectl("patch", "localqueue", "team", "--type=merge", "-p", json.dumps({"spec": {"stopPolicy": policy}}))
