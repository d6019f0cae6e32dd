"""Attempts that nobody saw end: the store is asked before anything trains again."""

from typing import Any

import pytest

from finetune_contract.results import ResolveResult
from tests import factories
from tests.factories import stage_result, training_result
from tests.unit.reconcile.runs import KEY, running, succeed, trainings
from tests.unit.reconcile.world import World


def lost(**spec: Any) -> World:
    here = running(**spec)
    here.children = {"ConfigMap": here.children["ConfigMap"]}
    here.settle()
    return here


def test_an_attempt_that_vanished_is_unknown_until_the_store_was_asked() -> None:
    here = lost()
    assert here.says("Running").startswith("Unknown AttemptLost: attempt 1 is gone")
    assert here.jobs() == []  # perhaps the Job is only not seen yet
    here.later(3)
    here.settle()
    assert [job["metadata"]["labels"]["finetune.dev/role"] for job in here.jobs()] == ["resolve"]
    assert trainings(here) == ["triage-111111-1"]


def test_a_vanished_attempt_that_has_succeeded_is_adopted_without_a_gpu() -> None:
    here = lost()
    here.later(3)
    here.settle()
    here.end(here.newest("resolve"), ResolveResult(outcome=training_result(KEY)).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert here.status["artifact"]["run"] == KEY
    assert [name for name in here.created if name.startswith("triage-111111")] == ["triage-111111-1"] * 2
    assert here.jobs("resolve") == []


@pytest.mark.parametrize("limit", [0, 2])
def test_a_vanished_attempt_that_left_nothing_was_deleted_and_does_not_count(limit: int) -> None:
    here = lost(retries={"limit": limit})
    here.later(3)
    here.settle()
    here.end(here.newest("resolve"), ResolveResult().to_json())
    here.settle()
    assert here.status["attempts"][0]["reason"] == "PodDeleted"
    assert here.status["retriesUsed"] == 0
    assert [job["metadata"]["name"] for job in here.jobs("train")] == ["triage-111111-2"]


def test_attempts_that_are_deleted_again_and_again_are_no_progress() -> None:
    here = running(retries={"limit": 0})
    for _ in range(5):
        here.children = {"ConfigMap": here.children["ConfigMap"]}
        here.settle()
        here.later(300)
        here.settle()
        here.end(here.newest("resolve"), ResolveResult().to_json())
        here.settle()
        here.later(300)
        here.settle()
    assert here.says("Failed").startswith("True NoProgress")
    assert [attempt["reason"] for attempt in here.status["attempts"]] == ["PodDeleted"] * 5


def ended_unseen(*, complete: bool, limit: int) -> World:
    """The Job has ended, and its pod was deleted before anybody looked."""
    here = running(retries={"limit": limit})
    job = here.newest("train")
    here.children["Pod"] = []
    factories.ended(job, complete=complete, now=here.now)
    here.settle()
    here.later(15)
    here.settle()
    assert here.says("Running").startswith("Unknown AttemptLost")
    here.later(3)
    here.settle()
    return here


@pytest.mark.parametrize("limit", [0, 2])
def test_a_success_whose_pod_is_gone_is_found_in_the_store_and_trains_no_more(limit: int) -> None:
    here = ended_unseen(complete=True, limit=limit)
    here.end(here.newest("resolve"), ResolveResult(outcome=training_result(KEY)).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert trainings(here) == ["triage-111111-1"]
    assert [attempt["reason"] for attempt in here.status["attempts"]] == ["Succeeded"]


@pytest.mark.parametrize("limit", [0, 2])
def test_a_failure_whose_pod_is_gone_is_unknown_and_counts(limit: int) -> None:
    here = ended_unseen(complete=False, limit=limit)
    here.end(here.newest("resolve"), ResolveResult().to_json())
    here.settle()
    assert here.status["attempts"][0]["reason"] == "Unknown"
    assert here.status["retriesUsed"] == 1
    assert len(trainings(here)) == (2 if limit else 1)


def test_a_job_that_was_only_not_seen_yet_is_followed() -> None:
    here = running()
    children = here.children
    here.children = {}
    here.settle()
    here.children = children
    here.later(3)
    here.settle()
    assert here.jobs("resolve") == []
    assert here.says("Running").startswith("True Training")


def test_a_store_that_cannot_be_asked_does_not_hold_the_run_for_ever() -> None:
    here = lost()
    for _ in range(3):
        here.later(61)
        here.settle()
        here.end(here.newest("resolve"), "", code=74)
        here.settle()
    assert here.status["attempts"][0]["reason"] == "PodDeleted"
    assert len(here.jobs("train")) == 1


@pytest.mark.parametrize("outcome", [None, training_result(KEY)])
def test_every_status_wiped_and_every_child_gone_converges(outcome: Any) -> None:
    here = running()
    if outcome:
        succeed(here)
    here.wipe()
    here.children = {}
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY, outcome=outcome).to_json())
    here.settle()
    if outcome is None:
        succeed(here)
    assert here.status["phase"] == "Succeeded"
    assert len(trainings(here)) == (1 if outcome else 2)
