"""Attempts of several ranks: refused in words, ended by the pod that failed first, followed by a whole new group."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_contract.failure import FailureReason
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.manifests.multinode import INDEX
from finetune_operator.reconcile.endings import ending_of, trouble_of
from finetune_operator.reconcile.multinode import method_alone
from finetune_operator.reconcile.outcome import ChildName
from finetune_operator.settings import Settings
from tests import factories
from tests.factories import NOW, Object
from tests.unit.reconcile.runs import KEY, succeed
from tests.unit.reconcile.world import World

TWO = {"nodes": 2}


def staged(settings: Settings | None = None, *others: Object, **spec: Any) -> World:
    """A job whose base is staged."""
    job = factories.make_job(**{"parallelism": TWO, **spec})
    here = World(job, factories.ready_dataset(), *others, settings=settings)
    here.settle()
    here.end(here.newest("stage"), factories.stage_result(KEY).to_json())
    here.settle()
    return here


def rank(job: Object, index: int, *, seconds: int = 0, deleted: bool = False, **status: Any) -> Object:
    """The pod of one index, created or ended so many seconds later."""
    pod = factories.make_pod(job, now=NOW + timedelta(seconds=seconds), **status)
    pod["metadata"]["labels"][INDEX] = str(index)
    if deleted:
        pod["metadata"]["deletionTimestamp"] = factories.stamp(NOW + timedelta(seconds=seconds))
    return pod


def exited(code: int, seconds: int = 0) -> Object:
    return factories.terminated(f"exit {code}", code=code, now=NOW + timedelta(seconds=seconds))


def a_job(*, complete: bool | None = False) -> Object:
    job: Object = {"metadata": {"name": "j", "namespace": "n", "uid": "u", "labels": {}}, "spec": {"parallelism": 2}}
    if complete is not None:
        factories.ended(job, complete=complete)
    return job


def test_an_attempt_has_a_service_until_it_is_over() -> None:
    here = staged()
    (job,) = here.jobs("train")
    (service,) = here.children["Service"]
    assert service["metadata"]["name"] == job["metadata"]["name"]
    here.settle()
    assert here.children["Service"] == [service]
    succeed(here)
    here.later(60)
    here.settle()
    assert ChildName("Service", service["metadata"]["name"], service["metadata"]["uid"]) in here.deleted
    assert here.says("Ready").startswith("True")


def test_a_service_waits_with_a_job_that_the_quota_refuses() -> None:
    here = World(factories.make_job(parallelism=TWO), factories.ready_dataset())
    here.settle()
    here.end(here.newest("stage"), factories.stage_result(KEY).to_json())
    here.denials = {f"triage-{KEY[:6]}-1": "exceeded quota: pods"}
    here.act()
    here.children.setdefault("Service", []).append(
        factories.as_child({"kind": "Service", "metadata": {"name": f"triage-{KEY[:6]}-1", "namespace": "team-a"}})
    )
    here.act()
    assert here.deleted == []


def test_one_node_has_no_service() -> None:
    assert "Service" not in staged(parallelism={"nodes": 1}).children


@pytest.mark.parametrize(
    ("ranks", "reason", "index"),
    [
        pytest.param([(79, 0), (137, 1)], "TrainerCrashed", 1, id="killed, its peer lost it and ended first"),
        pytest.param([(72, 3), (79, 3)], "GpuOutOfMemory", 0, id="out of memory, its peer lost it"),
        pytest.param([(78, 5), (72, 4)], "GpuOutOfMemory", 1, id="out of memory, then told to stop"),
        pytest.param([(78, 5), (1, 5)], "TrainerCrashed", 1, id="a crash and a stop within one second"),
        pytest.param([(78, 5), (78, 4)], "Preempted", 1, id="told to stop"),
        pytest.param([(79, 5), (78, 9)], "NcclTimeout", 0, id="one gave up, the other was told to stop"),
        pytest.param([(79, 5), (79, 4)], "NcclTimeout", 1, id="both lost each other"),
        pytest.param([(0, 1), (76, 9)], "NonFiniteLoss", 1, id="one was done"),
    ],
)
def test_the_first_failure_that_is_no_lost_peer_names_the_attempts(
    ranks: list[tuple[int, int]], reason: str, index: int
) -> None:
    job = a_job()
    pods = [rank(job, number, **exited(*how)) for number, how in enumerate(ranks)]
    found = ending_of(job, pods, NOW)
    assert found is not None
    assert found.failure is not None
    assert (found.failure.reason, found.message) == (reason, f"exit {ranks[index][0]}")


@pytest.mark.parametrize("code", [78, 79])
def test_a_pod_that_was_deleted_at_once_is_the_cause(code: int) -> None:
    job = a_job()
    pods = [rank(job, 0, deleted=True, seconds=2, **exited(code, 2)), rank(job, 1, deleted=True, seconds=1)]
    found = ending_of(job, pods, NOW + timedelta(seconds=15))
    assert found is not None
    assert found.failure is not None
    assert found.failure.reason is FailureReason.POD_DELETED


def test_a_pod_that_never_ran_is_no_cause() -> None:
    job = a_job()
    pods = [rank(job, 0, seconds=60, **exited(79, 60)), rank(job, 1, deleted=True, seconds=1, phase="Pending")]
    found = ending_of(job, pods, NOW + timedelta(seconds=60))
    assert found is not None
    assert found.failure is not None
    assert found.failure.reason is FailureReason.NCCL_TIMEOUT


def test_an_eviction_explains_whatever_the_others_say() -> None:
    job = a_job()
    evicted = {**factories.disrupted("EvictionByEvictionAPI"), "phase": "Running"}
    pods = [rank(job, 0, **exited(79, 0)), rank(job, 1, seconds=5, **evicted)]
    found = ending_of(job, pods, NOW)
    assert found is not None
    assert found.failure is not None
    assert found.failure.reason is FailureReason.EVICTED


def test_success_is_what_rank_0_says() -> None:
    job = a_job(complete=True)
    pods = [rank(job, 1, **factories.terminated("")), rank(job, 0, seconds=-9, **factories.terminated("result"))]
    found = ending_of(job, pods, NOW)
    assert found is not None
    assert (found.message, found.failure) == ("result", None)


def test_the_newest_pod_of_each_rank_counts() -> None:
    """Kueue takes a Job back and lets it in again: each index has an earlier pod."""
    job = a_job(complete=True)
    before = [rank(job, index, seconds=-60, deleted=True, **exited(78, -50)) for index in (0, 1)]
    now = [rank(job, index, **factories.terminated("result")) for index in (1, 0)]
    found = ending_of(job, [*before, *now], NOW)
    assert found is not None
    assert found.failure is None


def test_the_last_word_of_every_rank_is_waited_for() -> None:
    job = a_job()
    assert ending_of(job, [rank(job, 0, **exited(79))], NOW) is None, "a pod is missing"
    pods = [rank(job, 0, **exited(79)), rank(job, 1)]
    assert ending_of(job, pods, NOW) is None, "a pod was not seen to end"
    assert ending_of(job, pods, NOW + timedelta(seconds=15)) is not None


@pytest.mark.parametrize(
    ("ranks", "reason"),
    [
        pytest.param([{}, {}], None, id="running"),
        pytest.param([{}], "PodPending", id="one is missing"),
        pytest.param([{}, factories.unschedulable()], "Unschedulable", id="one finds no node"),
        pytest.param([factories.image_pull_error(), {}], "ImagePullFailed", id="one has no image"),
    ],
)
def test_all_ranks_have_to_run(ranks: list[Object], reason: str | None) -> None:
    job = a_job(complete=None)
    trouble = trouble_of(job, [rank(job, index, **status) for index, status in enumerate(ranks)])
    assert (trouble.reason if trouble else None) == reason


GPUS = {"limits": {"nvidia.com/gpu": 8}}
CLAIM: Object = {"kind": "PersistentVolumeClaim", "metadata": {"name": "finetune-artifacts"}}
ONE_NODE: Object = {**CLAIM, "spec": {"accessModes": ["ReadWriteOnce"]}}
ANY_NODE: Object = {**CLAIM, "spec": {"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}}
RWO = Settings(claim_access_mode="ReadWriteOnce")


@pytest.mark.parametrize(
    ("spec", "others", "settings", "words"),
    [
        pytest.param({"resources": GPUS, "parallelism": {"nodes": 3}}, [], None,
                     "InvalidPlan: spec.hyperparameters.globalBatchSize: 16 sequences cannot be divided among 24 ranks"
                     "; use at least 24", id="more GPUs than sequences"),
        pytest.param({"hyperparameters": {"globalBatchSize": 1}}, [], None, "globalBatchSize: 1 ", id="a batch of one"),
        pytest.param({"parallelism": {"nodes": 2, "strategy": "FSDP"}}, [], None,
                     "InvalidPlan: spec.parallelism.strategy: FSDP divides", id="a divided adapter"),
        pytest.param({}, [ONE_NODE], None, "StorageUnavailable: spec.parallelism.nodes: 2 pods share", id="a claim"),
        pytest.param({}, [], RWO, "StorageUnavailable: spec.parallelism.nodes: 2 pods share", id="a claim to be"),
    ],
)  # fmt: skip
def test_ranks_that_cannot_be_are_refused_before_any_pod(
    spec: Object, others: list[Object], settings: Settings | None, words: str
) -> None:
    here = staged(settings, *others, **spec)
    assert here.jobs("train") == []
    assert words in here.says("Stalled")
    here.edit(parallelism={"nodes": 1}, hyperparameters={})
    here.settle()
    assert here.condition("Stalled") is None


@pytest.mark.parametrize(
    ("spec", "others"),
    [({}, [ANY_NODE]), ({"parallelism": {"nodes": 1}}, [ONE_NODE]), ({"resources": GPUS}, [])],
    ids=["any node", "one node", "as many sequences as GPUs"],
)
def test_ranks_that_can_be_are_started(spec: Object, others: list[Object]) -> None:
    assert len(staged(None, *others, **spec).jobs("train")) == 1


def test_an_edit_of_the_nodes_starts_no_other_run() -> None:
    here = staged()
    succeed(here)
    here.later(60)
    here.settle()
    here.edit(parallelism={"nodes": 4})
    here.settle()
    assert len(here.jobs("train")) == 1
    assert here.says("Ready").startswith("True")


@pytest.mark.parametrize("method", ["SFT", "CPT", "DPO", "ORPO", "SimPO", "KTO", "Reward"])
def test_methods_that_train_in_many_processes(method: str) -> None:
    assert method_alone(FineTuneJob.model_validate(factories.make_job(method=method, parallelism={"nodes": 2}))) is None


@pytest.mark.parametrize(
    ("method", "strategy", "remedy"),
    [
        ("GRPO", "Auto", "ask for one node and at most one GPU"),
        ("RLOO", "DDP", "ask for one node and at most one GPU"),
        ("Distillation", "Auto", "ask for one node and at most one GPU"),
        ("DPO", "FSDP", "with DPO use Auto or DDP"),
        ("Reward", "FSDP", "with Reward use Auto or DDP"),
    ],
)
def test_what_a_method_cannot_do_in_many_processes_is_refused_with_a_remedy(
    method: str, strategy: str, remedy: str
) -> None:
    parallelism = {"nodes": 2, "strategy": strategy}
    failure = method_alone(FineTuneJob.model_validate(factories.make_job(method=method, parallelism=parallelism)))
    assert failure is not None
    assert failure.reason is FailureReason.INVALID_PLAN
    assert remedy in failure.message
    alone = {**parallelism, "nodes": 1}
    assert method_alone(FineTuneJob.model_validate(factories.make_job(method=method, parallelism=alone))) is None
