from collections.abc import Callable

import pytest

from finetune_operator.cache import Cache
from finetune_operator.entries import Key, Place, slim
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.observed import Reference
from tests.unit.operator_runtime.fakes import NAMESPACE, FakeCluster, make_child, make_job, make_pod, make_resource

TUNE = Key("FineTuneJob", NAMESPACE, "tune")


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def cache() -> Cache:
    return Cache()


@pytest.fixture
def put(cluster: FakeCluster, cache: Cache) -> Callable[[Manifest], Manifest]:
    """Make an object in the cluster and have the watch deliver it."""

    def make(manifest: Manifest) -> Manifest:
        stored = cluster.add(manifest)
        cache.put(stored)
        return stored

    return make


def children(cache: Cache, owner: Manifest) -> dict[str, list[str]]:
    key = Key(owner["kind"], NAMESPACE, owner["metadata"]["name"])
    found = cache.children(key, owner["metadata"]["uid"])
    return {kind: [child["metadata"]["name"] for child in some] for kind, some in found.items()}


def test_a_change_concerns_the_resource_itself(cluster: FakeCluster, cache: Cache) -> None:
    tune = cluster.add(make_resource())
    assert cache.put(tune) == {TUNE}
    assert cache.get(TUNE) == {**tune, "metadata": {**tune["metadata"], "annotations": {}}}
    assert list(cache.keys()) == [TUNE]


def test_old_news_is_no_news(cluster: FakeCluster, cache: Cache) -> None:
    old = cluster.add(make_resource())
    new = cluster.add({**old, "spec": {"rank": 2}})
    assert cache.put(new) == {TUNE}
    assert cache.put(new) == set()
    assert cache.put(old) == set()
    assert (cache.get(TUNE) or {})["spec"] == {"rank": 2}


def test_a_deleted_object_never_comes_back(cluster: FakeCluster, cache: Cache) -> None:
    tune = cluster.add(make_resource())
    cache.put(tune)
    assert cache.remove(cluster.take_away("FineTuneJob", "tune")) == {TUNE}
    assert cache.put(tune) == set()
    assert cache.get(TUNE) is None


def test_a_namesake_takes_the_place_and_the_old_one_cannot_take_it_back(cluster: FakeCluster, cache: Cache) -> None:
    old = cluster.add(make_resource())
    cluster.take_away("FineTuneJob", "tune")
    new = cluster.add(make_resource())
    cache.put(old)
    cache.put(new)
    assert cache.put(old) == set()
    assert (cache.get(TUNE) or {})["metadata"]["uid"] == new["metadata"]["uid"]


def test_late_news_of_a_predecessor_that_was_never_seen_is_ignored(cluster: FakeCluster, cache: Cache) -> None:
    old = cluster.add(make_resource())
    cluster.take_away("FineTuneJob", "tune")
    new = cluster.add(make_resource())
    cache.put(new)
    assert cache.put(old) == set()
    assert (cache.get(TUNE) or {})["metadata"]["uid"] == new["metadata"]["uid"]


def test_children_are_sorted_by_kind_and_age(cache: Cache, put: Callable[[Manifest], Manifest]) -> None:
    tune = put(make_resource())
    put(make_job(tune, "tune-2", metadata={"creationTimestamp": "2026-11-21T02:00:00Z"}))
    put(make_job(tune, "tune-1", metadata={"creationTimestamp": "2026-11-21T01:00:00Z"}))
    put(make_child("ConfigMap", tune, "plan"))
    assert children(cache, tune) == {"Job": ["tune-1", "tune-2"], "ConfigMap": ["plan"]}


def test_children_of_an_earlier_namesake_are_not_ours(
    cache: Cache, cluster: FakeCluster, put: Callable[[Manifest], Manifest]
) -> None:
    old = put(make_resource())
    put(make_pod(put(make_job(old))))
    cache.remove(cluster.take_away("FineTuneJob", "tune"))
    new = put(make_resource())
    assert children(cache, new) == {}


def test_a_pod_concerns_the_resource_in_its_labels(cluster: FakeCluster, cache: Cache) -> None:
    tune = cluster.add(make_resource())
    pod = cluster.add(make_pod(cluster.add(make_job(tune))))
    assert cache.put(pod) == {TUNE}
    assert children(cache, tune) == {"Pod": ["tune-1-abc"]}


def test_a_deleted_pod_stays_as_a_tombstone_while_its_job_is_there(
    cache: Cache, cluster: FakeCluster, put: Callable[[Manifest], Manifest]
) -> None:
    tune = put(make_resource())
    job = put(make_job(tune))
    put(make_pod(job))
    last = cluster.take_away("Pod", "tune-1-abc")
    last["status"] = {"phase": "Failed", "message": "result"}
    assert cache.remove(last) == {TUNE}
    (pod,) = cache.children(TUNE, tune["metadata"]["uid"])["Pod"]
    assert pod["status"] == {"phase": "Failed", "message": "result"}
    assert pod["metadata"]["deletionTimestamp"]
    assert cache.get(Place("Pod", NAMESPACE, "tune-1-abc")) is None
    assert cache.versions("Pod") == {}
    assert cache.remove(last) == set()
    cache.remove(cluster.take_away("Job", "tune-1"))
    assert children(cache, tune) == {}


def test_a_pod_seen_only_when_it_was_deleted_leaves_its_result(
    cache: Cache, cluster: FakeCluster, put: Callable[[Manifest], Manifest]
) -> None:
    tune = put(make_resource())
    cluster.add(make_pod(put(make_job(tune))))
    cache.remove(cluster.take_away("Pod", "tune-1-abc"))
    assert children(cache, tune)["Pod"] == ["tune-1-abc"]


def test_a_pod_without_a_job_leaves_no_tombstone(
    cache: Cache, cluster: FakeCluster, put: Callable[[Manifest], Manifest]
) -> None:
    tune = put(make_resource())
    put(make_pod(cluster.add(make_job(tune))))
    cache.remove(cluster.take_away("Pod", "tune-1-abc"))
    assert children(cache, tune) == {}


def test_a_pod_that_vanished_unseen_leaves_its_last_state(cache: Cache, put: Callable[[Manifest], Manifest]) -> None:
    tune = put(make_resource())
    pod = put(make_pod(put(make_job(tune))))
    assert cache.vanish(pod["metadata"]["uid"]) == {TUNE}
    assert cache.vanish(pod["metadata"]["uid"]) == set()
    assert children(cache, tune)["Pod"] == ["tune-1-abc"]


def test_a_change_concerns_those_who_refer_to_it(
    cache: Cache, cluster: FakeCluster, put: Callable[[Manifest], Manifest]
) -> None:
    put(make_resource())
    cache.refer(TUNE, [Reference("Dataset", "rows"), Reference("ConfigMap", "plan")])
    rows = Key("Dataset", NAMESPACE, "rows")
    assert cache.put(cluster.add(make_resource("Dataset", "rows"))) == {TUNE, rows}
    assert cache.remove(cluster.take_away("Dataset", "rows")) == {TUNE, rows}
    cache.refer(TUNE, [Reference("Dataset", "other")])
    assert cache.put(cluster.add(make_resource("Dataset", "rows"))) == {rows}


def test_a_deleted_resource_refers_to_nothing(
    cache: Cache, cluster: FakeCluster, put: Callable[[Manifest], Manifest]
) -> None:
    put(make_resource())
    cache.refer(TUNE, [Reference("Dataset", "rows")])
    cache.remove(cluster.take_away("FineTuneJob", "tune"))
    assert TUNE not in cache.put(cluster.add(make_resource("Dataset", "rows")))


def test_a_doomed_child_is_marked_until_the_watch_has_it(cache: Cache, put: Callable[[Manifest], Manifest]) -> None:
    tune = put(make_resource())
    job = put(make_job(tune))
    cache.doom(job["metadata"]["uid"])
    (child,) = cache.children(TUNE, tune["metadata"]["uid"])["Job"]
    assert child["metadata"]["deletionTimestamp"]


def test_a_child_keeps_only_what_decisions_need() -> None:
    tune = make_resource(metadata={"uid": "u"})
    pod = make_pod(make_job(tune, metadata={"uid": "j"}))
    pod["metadata"].update(managedFields=[1], annotations={"finetune.dev/run": "a", "other": "b"})
    kept = slim(pod)
    assert kept["spec"] == {"nodeName": "node-1"}
    assert kept["metadata"]["annotations"] == {"finetune.dev/run": "a"}
    assert "managedFields" not in kept["metadata"]
    assert kept["status"] == pod["status"]


def test_our_resources_lose_only_bookkeeping(cache: Cache, put: Callable[[Manifest], Manifest]) -> None:
    copy = "kubectl.kubernetes.io/last-applied-configuration"
    put(make_resource(metadata={"managedFields": [1], "annotations": {copy: "{}", "mine": "x"}}))
    metadata = (cache.get(TUNE) or {})["metadata"]
    assert metadata["annotations"] == {"mine": "x"}
    assert "managedFields" not in metadata


def test_resources_are_counted_by_phase_and_reason(
    cache: Cache, cluster: FakeCluster, put: Callable[[Manifest], Manifest]
) -> None:
    condition = {"type": "Ready", "status": "False", "reason": "NodeLost"}
    put(make_resource(status={"phase": "Failed", "conditions": [condition]}))
    assert +cache.summaries == {("FineTuneJob", "Failed", "NodeLost"): 1}
    cache.remove(cluster.take_away("FineTuneJob", "tune"))
    assert +cache.summaries == {}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, 1),
        ({"phase": "Pending"}, 0),
        ({"metadata": {"deletionTimestamp": "2026-11-21T00:00:00Z"}}, 0),
        ({"metadata": {"labels": {}}}, 0),
    ],
    ids=["running", "pending", "terminating", "not a training pod"],
)
def test_running_training_pods_are_known(
    cache: Cache, put: Callable[[Manifest], Manifest], change: dict[str, object], found: int
) -> None:
    put(make_pod(put(make_job(put(make_resource()))), **change))  # type: ignore[arg-type]
    assert len(cache.training_pods()) == found


def test_nothing_is_left_of_what_is_gone(
    cache: Cache, cluster: FakeCluster, put: Callable[[Manifest], Manifest]
) -> None:
    put(make_pod(put(make_job(put(make_resource())))))
    cache.refer(TUNE, [Reference("Dataset", "rows")])
    for kind, name in (("Pod", "tune-1-abc"), ("Job", "tune-1"), ("FineTuneJob", "tune")):
        cache.remove(cluster.take_away(kind, name))
    indexes = (cache._entries, cache._places, cache._children, cache._pods, cache._training)
    assert [len(index) for index in (*indexes, cache._references, cache._referrers)] == [0] * 7
