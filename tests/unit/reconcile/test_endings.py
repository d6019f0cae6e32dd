"""How Jobs end, with a name for each cause."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_contract.failure import FailureReason
from finetune_operator.manifests.naming import labels
from finetune_operator.reconcile.endings import Ending, ending_of, numbered, trouble_of
from tests import factories
from tests.factories import NOW, Object, failed_training


def a_job(*, finished: bool = True) -> Object:
    job: Object = {
        "kind": "Job",
        "metadata": {
            "name": "j",
            "namespace": "n",
            "uid": "u",
            "labels": labels("FineTuneJob", "triage", "train", run="r" * 16, attempt="1"),
        },
    }
    if finished:
        factories.ended(job, complete=False)
    return job


def ending(status: Object, **metadata: Any) -> Ending | None:
    job = a_job()
    pod = factories.make_pod(job, **status)
    pod["metadata"] |= metadata
    return ending_of(job, [pod], NOW)


OWN_DISK = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. "
EMPTY_DIR = 'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". '
NODE_DISK = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 12Mi. "
"""Words of the kubelet's eviction manager (kubernetes 1.34, pkg/kubelet/eviction)."""

DELETED = {"deletionTimestamp": factories.stamp(NOW)}


@pytest.mark.parametrize(
    ("status", "metadata", "reason"),
    [
        pytest.param(factories.terminated(), {}, None, id="success"),
        pytest.param(factories.oom_killed(), {}, "HostOutOfMemory", id="memory limit"),
        pytest.param(factories.terminated(code=137), {}, "TrainerCrashed", id="somebody's SIGKILL"),
        pytest.param(
            factories.terminated(code=137, reason="ContainerStatusUnknown"), {}, "NodeLost", id="lost container"
        ),
        pytest.param(factories.terminated(code=255, reason="Unknown"), {}, "NodeLost", id="node restarted"),
        pytest.param(factories.terminated(code=64), {}, "InvalidPlan", id="our exit code"),
        pytest.param(factories.terminated(code=99), {}, "TrainerCrashed", id="nobody's exit code"),
        pytest.param(factories.terminated(code=139), {}, "TrainerCrashed", id="segmentation fault"),
        pytest.param(factories.evicted(), {}, "Evicted", id="evicted by the kubelet"),
        pytest.param(factories.evicted(OWN_DISK), {}, "EphemeralStorageFull", id="its limit of the node's disk"),
        pytest.param(factories.evicted(EMPTY_DIR), {}, "EphemeralStorageFull", id="its limit of an emptyDir"),
        pytest.param(factories.evicted(NODE_DISK), {}, "Evicted", id="the node's disk is full"),
        pytest.param(factories.disrupted("EvictionByEvictionAPI"), {}, "Evicted", id="drained"),
        pytest.param(factories.disrupted("PreemptionByScheduler"), {}, "Preempted", id="preempted"),
        pytest.param(factories.disrupted("DeletionByTaintManager"), {}, "NodeLost", id="taint"),
        pytest.param(factories.disrupted("DeletionByPodGC"), {}, "NodeLost", id="pod garbage collector"),
        pytest.param(factories.disrupted("New"), {}, "Evicted", id="a disruption of tomorrow"),
        pytest.param(factories.terminated(code=143), DELETED, "PodDeleted", id="deleted"),
        pytest.param(
            factories.terminated(code=137), DELETED, "PodDeleted", id="deleted, killed after the grace period"
        ),
        pytest.param({"phase": "Failed", "containerStatuses": []}, {}, "NodeLost", id="no container status"),
        pytest.param({"phase": "Failed", "containerStatuses": None}, {}, "NodeLost", id="null container status"),
    ],
)
def test_each_cause_has_its_name(status: Object, metadata: Object, reason: str | None) -> None:
    found = ending(status, **metadata)
    assert found is not None
    assert (found.failure.reason.value if found.failure else None) == reason


def test_a_pod_that_filled_its_disk_is_not_believed_to_be_preempted() -> None:
    last_word = failed_training("r", 1, FailureReason.PREEMPTED).to_json()
    found = ending({**factories.terminated(last_word, code=78), "reason": "Evicted", "message": OWN_DISK})
    assert found is not None
    assert found.failure is not None
    assert (found.failure.reason, found.message) == (FailureReason.EPHEMERAL_STORAGE_FULL, "")


def test_an_ending_tells_where_how_long_and_the_last_words() -> None:
    found = ending(factories.terminated("Traceback: boom", code=1))
    assert found is not None
    assert (found.node, found.seconds, found.message) == ("node-1", 40, "Traceback: boom")
    assert found.failure is not None
    assert found.failure.message == "Traceback: boom"


def test_a_job_that_runs_has_no_ending() -> None:
    assert ending_of(a_job(finished=False), [], NOW) is None


def test_the_newest_pod_of_several_decides() -> None:
    job = a_job()
    old = factories.make_pod(job, now=NOW - timedelta(hours=1), **factories.evicted())
    new = factories.make_pod(job, **factories.terminated())
    found = ending_of(job, [new, old], NOW)
    assert found is not None
    assert found.failure is None


def test_the_pods_of_other_jobs_are_not_looked_at() -> None:
    other = factories.make_pod({"metadata": {**a_job()["metadata"], "uid": "other"}}, **factories.terminated())
    assert ending_of(a_job(), [other], NOW) is None
    orphan = {"metadata": {"name": "x", "uid": "y", "ownerReferences": None}}
    assert ending_of(a_job(), [orphan], NOW) is None


def test_a_pod_that_was_not_seen_to_end_is_waited_for() -> None:
    job = a_job()
    pod = factories.make_pod(job)
    assert ending_of(job, [pod], NOW + timedelta(seconds=14)) is None
    found = ending_of(job, [pod], NOW + timedelta(seconds=15))
    assert found is not None
    assert found.failure is not None


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        pytest.param(factories.unschedulable(), "Unschedulable", id="unschedulable"),
        pytest.param(factories.image_pull_error(), "ImagePullFailed", id="image"),
        pytest.param({"phase": "Pending", "containerStatuses": None}, "PodStarting", id="starting"),
        pytest.param({"phase": "Running"}, None, id="running"),
        pytest.param(
            {
                "phase": "Pending",
                "initContainerStatuses": [
                    {
                        "name": "i",
                        "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}},
                    }
                ],
            },
            "CreateContainerConfigError",
            id="a missing Secret of an init container",
        ),
    ],
)
def test_what_keeps_a_pod_from_running(status: Object, reason: str | None) -> None:
    job = a_job(finished=False)
    trouble = trouble_of(job, [factories.make_pod(job, **status)])
    assert (trouble.reason if trouble else None) == reason


def test_a_job_without_pod_waits_for_it() -> None:
    trouble = trouble_of(a_job(finished=False), [])
    assert trouble is not None
    assert trouble.reason == "PodPending"


@pytest.mark.parametrize("metadata", [{"labels": None}, {"labels": {}}, {}])
def test_an_object_without_labels_is_no_attempt(metadata: Object) -> None:
    assert numbered([{"metadata": {"name": "x", **metadata}}], "train", "r") == []


def test_a_spoilt_number_counts_as_none() -> None:
    job = a_job()
    job["metadata"]["labels"]["finetune.dev/attempt"] = "two"
    assert [entry.number for entry in numbered([job], "train", "r" * 64)] == [0]


# --- pods that were stopped before, as Kueue does when it takes the quota


def stopped_and_resumed() -> tuple[Object, Object, Object]:
    """A Job that has succeeded, its pod that was stopped before, and the one that succeeded; both of one second."""
    job = a_job(finished=False)
    factories.ended(job, complete=True)
    first, second = factories.make_pod(job, phase="Running"), factories.make_pod(job, **factories.terminated("result"))
    first["metadata"] |= {"name": "j-zzzzz", "creationTimestamp": factories.stamp(NOW), **DELETED}
    second["metadata"] |= {"name": "j-aaaaa", "creationTimestamp": factories.stamp(NOW)}
    return job, first, second


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_pod_that_was_stopped_decides_nothing(order: tuple[int, int]) -> None:
    job, *pods = stopped_and_resumed()
    found = ending_of(job, [pods[index] for index in order], NOW)
    assert found is not None
    assert found.failure is None
    assert found.message == "result"


def test_a_job_that_has_succeeded_never_failed_whatever_is_known_of_its_pods() -> None:
    job, first, _ = stopped_and_resumed()
    found = ending_of(job, [first], NOW + timedelta(seconds=15))
    assert found is not None
    assert found.failure is not None
    assert found.failure.reason is FailureReason.UNKNOWN
