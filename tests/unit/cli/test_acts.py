"""Verbs that change a job: the patch, the words, and who may undo it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_cli import acts
from finetune_cli.facts import Object
from finetune_cli.kinds import RunKind

NOW = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)


class Jobs:
    """One job, and what it was changed by."""

    def __init__(self, spec: Object | None = None, phase: str = "Failed", **metadata: Any) -> None:
        self.one: Object = {"metadata": {"name": "tune", **metadata}, "spec": spec or {}, "status": {"phase": phase}}
        self.patches: list[Object] = []

    def get(self, plural: str, name: str) -> Object:
        assert (plural, name) == ("finetunejobs", "tune")
        return self.one

    def patch(self, plural: str, name: str, spec: Object) -> Object:
        assert (plural, name) == ("finetunejobs", "tune")
        self.patches.append(spec)
        return self.one


def test_a_job_is_paused_and_goes_on() -> None:
    jobs = Jobs()
    assert acts.suspend(jobs, RunKind.JOB, "tune", wanted=True) == [
        "tune suspended: it saves a checkpoint and frees its GPU"
    ]
    jobs.one["spec"]["suspend"] = True
    assert acts.suspend(jobs, RunKind.JOB, "tune", wanted=False) == [
        "tune resumed: it goes on from its newest checkpoint"
    ]
    assert jobs.patches == [{"suspend": True}, {"suspend": False}]


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_so_already_is_not_written(wanted: bool) -> None:
    jobs = Jobs({"suspend": wanted})
    assert acts.suspend(jobs, RunKind.JOB, "tune", wanted=wanted)[0].endswith("already")
    assert jobs.patches == []


def test_a_rerun_is_named_by_its_time_or_by_a_word() -> None:
    jobs = Jobs({"rerun": "again"})
    acts.rerun(jobs, RunKind.JOB, "tune", None, NOW)
    acts.rerun(jobs, RunKind.JOB, "tune", "tuesday", NOW)
    assert jobs.patches == [{"rerun": "2026-11-21T10-30-00"}, {"rerun": "tuesday"}]
    assert "already" in acts.rerun(jobs, RunKind.JOB, "tune", "again", NOW)[0]
    assert len(jobs.patches) == 2


def test_a_rerun_of_a_success_says_that_nothing_is_trained() -> None:
    assert "nothing is trained" in acts.rerun(Jobs(phase="Succeeded"), RunKind.JOB, "tune", None, NOW)[1]
    assert len(acts.rerun(Jobs({"reuse": "Never"}, phase="Succeeded"), RunKind.JOB, "tune", None, NOW)) == 1


@pytest.mark.parametrize(
    ("metadata", "owner"),
    [
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, "Flux"),
    ],
)
def test_who_may_undo_it_is_said(metadata: Object, owner: str) -> None:
    lines = acts.suspend(Jobs(**metadata), RunKind.JOB, "tune", wanted=True)
    assert lines[1] == f"note: {owner} writes this job and may undo this; set `suspend: true` at its source, too"
