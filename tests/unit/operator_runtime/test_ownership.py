"""An apply takes nothing over: what has a child's name and belongs to somebody else stays as it is."""

from datetime import datetime

import pytest

from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.outcome import Outcome
from tests.unit.operator_runtime.fakes import NAMESPACE, FakeCluster, make_child, make_job, make_resource
from tests.unit.operator_runtime.process import TUNE, Process

OTHERS: Manifest = {"labels": {}, "ownerReferences": []}
"""Of what somebody else made, with no label of ours: no watch shows it."""


@pytest.mark.parametrize(
    ("metadata", "belongs"),
    [(OTHERS, "was not made by the operator"), ({}, "belongs to FineTuneJob other")],
    ids=["a user's own", "another resource's child"],
)
async def test_an_applied_child_never_takes_over_what_has_its_name(
    cluster: FakeCluster, metadata: Manifest, belongs: str
) -> None:
    other = cluster.add(make_resource(name="other"))
    theirs = cluster.add(make_child("Service", other, "tune", metadata=metadata, spec={"selector": {"app": "theirs"}}))
    told: list[str] = []

    def decide(resource: Manifest, observed: Observed, _: datetime) -> Outcome:
        told.extend(observed.denials.values())
        is_ours = resource["metadata"]["name"] == "tune"
        return Outcome(apply=(make_child("Service", resource, "tune", role="serve"),) if is_ours else ())

    process = Process(cluster, decide=decide)
    await process.settle()
    assert cluster.objects[("Service", NAMESPACE, "tune")] == theirs
    assert belongs in told[-1]
    assert told[-1].endswith("; rename the FineTuneJob tune, or what has the name")
    cluster.take_away("Service", "tune")
    await process.wait(300)
    assert cluster.writes == ["apply Service tune"]


async def test_what_lost_its_owner_in_a_restore_is_taken_back(cluster: FakeCluster) -> None:
    child = make_child("Service", cluster.objects[TUNE], "tune", role="serve", metadata={"ownerReferences": []})
    cluster.add(
        {**child, "metadata": {**child["metadata"], "labels": make_job(cluster.objects[TUNE])["metadata"]["labels"]}}
    )
    await Process(cluster).settle()
    assert "apply Service tune" in cluster.writes
