"""What a claim's access modes mean for pods."""

from typing import Any

import pytest

from finetune_operator.manifests import storage as manifests
from finetune_operator.reconcile.observed import Reference
from finetune_operator.reconcile.storage import claim_among, refuses_many_nodes, settings_for
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
