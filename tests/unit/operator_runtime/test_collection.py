"""The leader's part in collecting: what is in use is looked up anew, Jobs begin in turn, their end is told once."""

import json
from typing import Any

import pytest

from finetune_contract.collection import PREFIX_LENGTH, CollectionPlan, CollectionResult
from finetune_operator import collection, metrics
from finetune_operator.cache import Cache
from finetune_operator.collection import AT_ONCE, Collector
from finetune_operator.errors import Denied, Unavailable
from finetune_operator.events import Recorder
from finetune_operator.manifests import storage
from finetune_operator.manifests.naming import Manifest
from finetune_operator.settings import Settings
from tests.unit.operator_runtime.fakes import NAMESPACE, FakeClock, FakeCluster, make_child, make_pod, make_resource

HOUR = 3600.0
SETTINGS = Settings(retention_minimum_age_seconds=48 * HOUR, collection_interval_seconds=24 * HOUR)


class Leader:
    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.cluster = FakeCluster()
        self.clock = FakeClock()
        self.cache = Cache()
        recorder = Recorder(self.cluster, "test", self.clock.now)
        self.collector = Collector(self.cluster, self.cache, recorder, settings, self.clock.now)

    def claim(self, namespace: str = NAMESPACE, name: str = "finetune-artifacts") -> Manifest:
        manifest = storage.claim(namespace, SETTINGS)
        manifest["metadata"]["name"] = name
        return self.take(self.cluster.add(manifest))

    def take(self, manifest: Manifest) -> Manifest:
        self.cache.put(manifest)
        return manifest

    async def look(self, hours: float = 0.0) -> None:
        self.clock.advance(hours * HOUR)
        await self.collector.look()

    def jobs(self) -> list[Manifest]:
        return [item for (kind, _, _), item in self.cluster.objects.items() if kind == "Job"]

    def plan(self) -> CollectionPlan:
        plans = [
            item for (kind, _, name), item in self.cluster.objects.items() if kind == "ConfigMap" and "collect" in name
        ]
        return CollectionPlan.model_validate_json(plans[-1]["data"]["plan.json"])

    def end(self, result: CollectionResult) -> None:
        """The newest collection's pod ends."""
        job = self.jobs()[-1]
        terminated = {"exitCode": 0, "message": result.to_json()}
        status = {"phase": "Succeeded", "containerStatuses": [{"name": "collect", "state": {"terminated": terminated}}]}
        self.take(self.cluster.add(make_pod(job, f"{job['metadata']['name']}-pod", status=status)))
        now = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        ended = {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": now}]}
        self.take(self.cluster.add({**job, "status": ended}))


def sha(letter: str) -> str:
    return letter * 64


async def test_everything_that_is_named_anywhere_is_in_use() -> None:
    leader = Leader()
    leader.claim()
    dataset = leader.cluster.add(
        make_resource("Dataset", "rows", status={"revision": {"digest": f"sha256:{sha('a')}"}})
    )
    job = leader.cluster.add(make_resource("FineTuneJob", "tune", status={"runs": [{"key": sha("b")}]}))
    leader.cluster.add(make_resource("ModelDeployment", "serve", spec={"adapters": [{"digest": f"sha256:{sha('c')}"}]}))
    plan = json.dumps({"base": {"uri": f"pvc://finetune-artifacts/models/{sha('d')}"}})
    leader.cluster.add(make_child("ConfigMap", job, "tune-plan", data={"plan.json": plan}))
    message = json.dumps({"revision": {"digest": f"sha256:{sha('e')}"}})
    state = {"containerStatuses": [{"state": {"terminated": {"message": message}}}]}
    leader.cluster.add(make_pod(leader.cluster.add(make_child("Job", dataset, "rows-1")), status=state))
    elsewhere = make_resource("Dataset", "far", status={"revision": {"digest": f"sha256:{sha('f')}"}})
    elsewhere["metadata"]["namespace"] = "elsewhere"
    leader.cluster.add(elsewhere)
    await leader.look()
    assert leader.plan().live == tuple(letter * PREFIX_LENGTH for letter in "abcde")


async def test_statuses_are_read_before_and_after_what_is_between_them() -> None:
    leader = Leader()
    leader.claim()
    await leader.look()
    kinds = [read.removeprefix("list ") for read in leader.cluster.reads]
    ours = ["Dataset", "FineTuneJob", "ModelDeployment", "BatchInference"]
    assert kinds == [*ours, "ConfigMap", "Pod", *ours]


async def test_a_reference_that_moves_while_we_look_is_seen() -> None:
    leader = Leader()
    leader.claim()
    dataset = make_resource("Dataset", "rows", status={})
    leader.cluster.add(dataset)
    pod = make_pod(leader.cluster.add(make_child("Job", leader.cluster.add(dataset), "rows-1")))
    message = json.dumps({"revision": {"digest": f"sha256:{sha('e')}"}})
    pod["status"]["containerStatuses"] = [{"state": {"terminated": {"message": message}}}]
    leader.cluster.add(pod)

    def latched_and_gone(what: str) -> None:
        if what == "list Pod":  # just before: the result gets into the status, and the pod is deleted
            leader.cluster.add({**dataset, "status": {"revision": {"digest": f"sha256:{sha('e')}"}}})
            leader.cluster.objects.pop(("Pod", NAMESPACE, "tune-1-abc"))

    leader.cluster.fail = latched_and_gone
    await leader.look()
    assert leader.plan().live == ("e" * PREFIX_LENGTH,)


async def test_the_time_of_a_look_is_when_it_began() -> None:
    leader = Leader()
    leader.claim()
    began = leader.clock.now()
    leader.cluster.fail = lambda what: leader.clock.advance(10) if what.startswith("list") else None
    await leader.look()
    assert leader.plan().as_of == began


async def test_one_collection_in_an_interval_and_the_old_one_goes() -> None:
    leader = Leader()
    leader.claim()
    await leader.look()
    await leader.look()
    (first,) = leader.jobs()
    leader.end(CollectionResult())
    await leader.look(hours=24)
    (_, second) = leader.jobs()
    await leader.look()
    assert [job["metadata"]["name"] for job in leader.jobs()] == [second["metadata"]["name"]]
    assert first["metadata"]["name"] not in leader.cluster.names("ConfigMap")


async def test_the_end_is_told_once() -> None:
    leader = Leader()
    leader.claim()
    before = metrics.COLLECTED_BYTES._value.get()
    await leader.look()
    await leader.look()
    leader.end(CollectionResult(removed=2, bytes=5))
    for _ in range(3):
        await leader.look()
    assert leader.cluster.events == [("Collected", 1)]
    assert metrics.COLLECTED_BYTES._value.get() == before + 5
    after_a_change_of_leaders = Collector(
        leader.cluster, leader.cache, Recorder(leader.cluster, "other", leader.clock.now), SETTINGS, leader.clock.now
    )
    await after_a_change_of_leaders.look()
    assert leader.cluster.events == [("Collected", 1)]


async def test_only_the_stores_claims_are_collected_and_a_few_at_a_time() -> None:
    leader = Leader()
    del leader.claim(name="files")["metadata"]["labels"]["finetune.dev/role"]
    for number in range(AT_ONCE + 3):
        leader.claim(f"team-{number}")
    await leader.look()
    await leader.look()
    assert len(leader.jobs()) == AT_ONCE
    leader.end(CollectionResult())
    await leader.look()
    assert len(leader.jobs()) == AT_ONCE + 1


@pytest.mark.parametrize("error", [Unavailable("away"), Denied("exceeded quota")])
async def test_a_refusal_is_tried_again(error: Exception) -> None:
    leader = Leader()
    leader.claim()
    name = "create Job"

    def refuse(what: str) -> None:
        if what.startswith(name):
            raise error

    leader.cluster.fail = refuse
    await leader.look()
    assert leader.jobs() == []
    leader.cluster.fail = lambda _: None
    await leader.look()
    assert len(leader.jobs()) == 1


async def test_too_much_in_use_for_a_plan_deletes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "MOST_PREFIXES", 1)
    leader = Leader()
    leader.claim()
    runs = [{"key": sha(letter)} for letter in "ab"]
    leader.cluster.add(make_resource("FineTuneJob", "tune", status={"runs": runs}))
    await leader.look()
    assert leader.jobs() == []
    assert leader.cluster.events == [("CollectionFailed", 1)]


async def test_the_claim_decides_where_the_pod_runs() -> None:
    leader = Leader()
    claim: Any = leader.claim()
    claim["spec"]["accessModes"] = ["ReadWriteOnce"]
    leader.take(leader.cluster.add(claim))
    await leader.look()
    (job,) = leader.jobs()
    assert "podAffinity" in job["spec"]["template"]["spec"]["affinity"]


async def test_without_retention_nothing_is_looked_at() -> None:
    leader = Leader(Settings())
    leader.claim()
    await leader.collector.run()
    await leader.look()
    assert leader.cluster.reads == leader.cluster.writes == []


S3_STORE = {"s3": {"uri": "s3://models/own", "credentialsSecretRef": {"name": "keys"}}}


def s3_record(leader: Leader, uri: str = "s3://models/own") -> Manifest:
    settings = SETTINGS.model_copy(update={"s3_uri": uri})
    return leader.take(leader.cluster.add(storage.record(NAMESPACE, settings)))


async def test_a_store_in_s3_is_collected_as_an_object_that_uses_it_reaches_it() -> None:
    leader = Leader()
    record = s3_record(leader)
    leader.cluster.add(make_resource("Dataset", "elsewhere"))
    user = make_resource("FineTuneJob", "user")
    user["spec"] = {**(user.get("spec") or {}), "storage": S3_STORE, "podTemplate": {"serviceAccountName": "robot"}}
    leader.cluster.add(user)
    await leader.look()
    (job,) = leader.jobs()
    assert job["metadata"]["ownerReferences"][0]["kind"] == "ConfigMap"
    assert job["metadata"]["ownerReferences"][0]["uid"] == record["metadata"]["uid"]
    pod = job["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "robot"
    assert pod["containers"][0]["envFrom"] == [{"prefix": "FINETUNE_STORE_", "secretRef": {"name": "keys"}}]
    found = leader.plan()
    assert found.s3 is not None
    assert found.s3.uri == "s3://models/own"
    await leader.look()
    leader.end(CollectionResult(removed=1))
    await leader.look()
    assert leader.cluster.events == [("Collected", 1)]


async def test_a_store_that_nobody_can_reach_any_more_is_left_alone() -> None:
    leader = Leader()
    s3_record(leader)
    await leader.look()
    assert leader.jobs() == []


async def test_the_default_store_is_collected_though_all_its_objects_are_gone() -> None:
    leader = Leader(SETTINGS.model_copy(update={"s3_uri": "s3://models/{namespace}", "s3_secret": "keys"}))
    s3_record(leader, f"s3://models/{NAMESPACE}")
    await leader.look()
    assert len(leader.jobs()) == 1


async def test_a_claim_that_an_object_asked_for_is_collected_too() -> None:
    leader = Leader()
    manifest = storage.claim(NAMESPACE, SETTINGS.model_copy(update={"claim_name": "fast"}))
    leader.take(leader.cluster.add(manifest))
    await leader.look()
    assert leader.plan().claim == "fast"
