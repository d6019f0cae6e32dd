"""Objects that nobody watches: applied, and put right when the resource is looked at."""

from datetime import datetime

from finetune_operator.errors import NotFound
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import ChildName, Outcome
from tests.unit.operator_runtime.fakes import (
    NAMESPACE,
    FakeCluster,
    make_child,
)
from tests.unit.operator_runtime.process import TUNE, Process, status_of

BUDGET = Reference("PodDisruptionBudget", "tune")


def with_a_budget(resource: Manifest, observed: Observed, _: datetime) -> Outcome:
    """Keep a kind that nobody watches while spec.budget says so."""
    found = observed.references.get(BUDGET)
    if resource["spec"].get("budget", True):
        wanted = {**make_child("PodDisruptionBudget", resource, "tune"), "spec": {"maxUnavailable": 1}}
        return Outcome(apply=(wanted,), status={"phase": "Running", "message": observed.denials.get("tune", "")})
    metadata = (found or {}).get("metadata")
    return Outcome(delete=(ChildName(BUDGET.kind, "tune", metadata["uid"]),) if metadata else ())


async def test_an_object_that_nobody_watches_is_applied_once_and_again_when_somebody_changes_it(
    cluster: FakeCluster,
) -> None:
    process = Process(cluster, decide=with_a_budget, references=(BUDGET,))
    await process.settle()
    assert [write for write in cluster.writes if "Budget" in write] == ["apply PodDisruptionBudget tune"]
    cluster.writes.clear()
    process.engine.notify([TUNE])
    await process.wait(60)
    assert cluster.writes == []
    cluster.objects[(BUDGET.kind, NAMESPACE, "tune")]["spec"] = {"maxUnavailable": 9}
    process.clock.advance(60)
    process.engine.notify([TUNE])
    await process.settle()
    assert cluster.writes == ["apply PodDisruptionBudget tune"]
    assert cluster.objects[(BUDGET.kind, NAMESPACE, "tune")]["spec"] == {"maxUnavailable": 1}


async def test_one_that_is_not_wanted_any_more_is_found_after_a_restart_and_deleted(cluster: FakeCluster) -> None:
    await Process(cluster, decide=with_a_budget, references=(BUDGET,)).settle()
    resource = cluster.objects[TUNE]
    cluster.add({**resource, "spec": {**resource["spec"], "budget": False}})
    await Process(cluster, decide=with_a_budget, references=(BUDGET,)).settle()
    assert cluster.names(BUDGET.kind) == []


async def test_a_kind_that_the_cluster_does_not_know_is_said_and_tried_again(cluster: FakeCluster) -> None:
    cluster.denied["tune"] = NotFound("404")
    process = Process(cluster, decide=with_a_budget, references=(BUDGET,))
    await process.settle()
    assert status_of(cluster)["message"].startswith("the cluster does not know")
    assert "install its CRDs" in status_of(cluster)["message"]
    cluster.denied.clear()
    await process.wait(600)
    assert cluster.names(BUDGET.kind) == ["tune"]
    assert status_of(cluster)["message"] == ""
