"""What a claim's access modes mean for pods."""

from typing import Any

import pytest

from finetune_operator.manifests import storage as manifests
from finetune_operator.reconcile.observed import Reference
from finetune_operator.reconcile.storage import claim_among, refuses_many_nodes, settings_for
from finetune_operator.settings import Settings

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


def test_the_settings_are_the_same_object_where_nothing_differs() -> None:
    assert settings_for(MANY, claim("ReadWriteMany")) is MANY
