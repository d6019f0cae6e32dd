"""Which store an object has, and what a claim's access modes mean for pods."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_operator.manifests import storage as manifests
from finetune_operator.reconcile.observed import Reference
from finetune_operator.reconcile.storage import (
    claim_among,
    in_another_store,
    refuses_many_nodes,
    settings_for,
    settings_of,
)
from finetune_operator.settings import Settings
from tests import factories
from tests.unit.reconcile.world import World

MANY, ONE = Settings(), Settings(claim_access_mode="ReadWriteOnce")


def claim(*modes: str) -> dict[str, Any]:
    return {**manifests.claim("team-a", MANY), "spec": {"accessModes": list(modes)}}


@pytest.mark.parametrize(
    ("modes", "settings", "together"),
    [
        (None, MANY, False),
        (None, ONE, True),
        (["ReadWriteOnce"], MANY, True),
        (["ReadWriteMany"], ONE, False),
        (["ReadWriteOnce", "ReadWriteMany"], ONE, False),
        (["ReadWriteOncePod"], MANY, True),
    ],
)
def test_the_claim_that_is_there_decides(modes: list[str] | None, settings: Settings, together: bool) -> None:
    found = claim(*modes) if modes else None
    references = {Reference("PersistentVolumeClaim", "finetune-artifacts"): found}
    assert claim_among(references, settings) == found
    effective = settings_for(settings, found)
    assert bool(manifests.kept_together(effective)) == together
    message = refuses_many_nodes(found, settings)
    assert (message is not None) == together
    if message and modes:
        assert modes[0] in message
        assert "ask for one node" in message


@pytest.mark.parametrize("settings", [MANY, ONE], ids=["many nodes", "one node"])
def test_a_pod_that_finds_no_room_on_the_one_node_says_why(settings: Settings) -> None:
    here = World(factories.make_job(), factories.ready_dataset(), settings=settings)
    here.settle()
    status = factories.unschedulable()
    words = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod affinity rules."
    status["conditions"][0]["message"] = words
    here.pod(here.jobs()[-1], **status)
    here.settle()
    message = {condition["type"]: condition["message"] for condition in here.status["conditions"]}["Ready"]
    assert words in message
    assert ("is ReadWriteOnce: pods run on the node where it is in use" in message) == (settings is ONE)
    assert message.count("in use") <= 1


def test_the_settings_are_the_same_object_where_nothing_differs() -> None:
    assert settings_for(MANY, claim("ReadWriteMany")) is MANY


# --- which store an object has ---

S3 = Settings(
    retry_seconds=0, s3_uri="s3://models/{namespace}", s3_endpoint="http://s3:9000", s3_region="eu", s3_secret="keys"
)
BUCKET = {"uri": "s3://own/place", "endpoint": "http://minio:9000", "credentialsSecretRef": {"name": "mine"}}


def ready_in(store: str) -> dict[str, Any]:
    """A Dataset whose revision is in a store."""
    dataset = factories.ready_dataset()
    revision = dataset["status"]["revision"]
    revision["uri"] = f"{store}/datasets/{revision['digest'].removeprefix('sha256:')}"
    return dataset


@pytest.mark.parametrize(
    ("settings", "storage", "expected"),
    [
        (MANY, None, (None, None, "finetune-artifacts", "")),
        (S3, None, ("s3://models/team-a", "keys", "", "s3")),
        (MANY, {"s3": BUCKET}, ("s3://own/place", "mine", "", "s3")),
        (S3, {"s3": {"uri": "s3://own/place"}}, ("s3://own/place", None, "", "s3")),
        (S3, {"persistentVolumeClaim": {}}, (None, "keys", "finetune-artifacts", "")),
        (MANY, {"persistentVolumeClaim": {"claimName": "fast"}}, (None, None, "fast", "fast")),
    ],
)
def test_an_objects_own_storage_comes_before_the_default(settings: Settings, storage: Any, expected: Any) -> None:
    found = settings_of(settings, factories.make_job(**({"storage": storage} if storage else {})))
    assert (found.s3_uri, found.s3_secret, manifests.claim_name(found), found.store_label) == expected


def test_a_claim_that_has_to_be_made_is_as_the_object_says() -> None:
    wish = {"claimName": "fast", "storageClassName": "nvme", "accessModes": ["ReadWriteOnce"], "size": "5Gi"}
    here = World(factories.make_job(storage={"persistentVolumeClaim": wish}), ready_in("pvc://fast"))
    here.settle()
    (made,) = [manifest for manifest in here.made if manifest["kind"] == "PersistentVolumeClaim"]
    assert made["metadata"]["name"] == "fast"
    assert made["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "5Gi"}},
        "storageClassName": "nvme",
    }
    (pod,) = [manifest["spec"]["template"] for manifest in here.made if manifest["kind"] == "Job"]
    (term,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"]["finetune.dev/store"] == pod["metadata"]["labels"]["finetune.dev/store"]


@pytest.mark.parametrize(
    ("settings", "address"),
    [(MANY, "s3://models/team-a"), (S3, "pvc://finetune-artifacts"), (S3, "s3://before/x"), (MANY, "pvc://before")],
)
def test_what_was_made_before_another_default_was_set_stays_where_it_is(settings: Settings, address: str) -> None:
    plan = manifests.plan_of(settings_of(settings, ready_in(address)))
    assert (plan.s3.uri if plan.s3 else f"pvc://{plan.claim}") == address


def test_with_s3_no_claim_is_made_and_every_pod_has_the_keys() -> None:
    here = World(factories.make_job(), ready_in("s3://models/team-a"), settings=S3)
    here.settle()
    record, plan_map, _ = here.made
    assert [manifest["kind"] for manifest in here.made] == ["ConfigMap", "ConfigMap", "Job"]
    assert "ownerReferences" not in record["metadata"]
    assert record["metadata"]["annotations"] == {"finetune.dev/store-uri": "s3://models/team-a"}
    pod = here.made[-1]["spec"]["template"]["spec"]
    assert {"name": "store", "emptyDir": {}} in pod["volumes"]
    (container,) = pod["containers"]
    assert container["envFrom"] == [{"prefix": "FINETUNE_STORE_", "secretRef": {"name": "keys"}}]
    plan = json.loads(plan_map["data"]["plan.json"])
    assert plan["s3"] == {"uri": "s3://models/team-a", "endpoint": "http://s3:9000", "region": "eu"}


def test_an_input_in_another_store_is_refused() -> None:
    here = World(factories.make_job(storage={"s3": BUCKET}), factories.ready_dataset())
    here.settle()
    assert here.made == []
    ready = {condition["type"]: condition for condition in here.status["conditions"]}["Ready"]
    assert ready["reason"] == "StorageMismatch"
    assert "revision of Dataset 'tickets' is at pvc://finetune-artifacts/" in ready["message"]
    assert "this object's store is s3://own/place" in ready["message"]
    assert "give both objects the same spec.storage" in ready["message"]


def test_a_store_whose_name_begins_like_another_is_another() -> None:
    ref = factories.stored("a").model_copy(update={"uri": "s3://models/team-ab/models/x"})
    assert in_another_store(settings_of(S3, factories.make_job()), {"model": ref})


def test_several_nodes_share_a_bucket() -> None:
    assert refuses_many_nodes(None, settings_of(S3, factories.make_job())) is None


@pytest.mark.parametrize("uri", ["models/x", "s3://models/", "s3://models/{name}"])
def test_a_default_store_that_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(ValidationError, match="is not an address"):
        Settings(s3_uri=uri)
