"""A source that is read again by a schedule, and the revisions that are kept."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.datasets import DatasetPlan, DatasetResult, MixedPart, Teacher
from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_operator.api.dataset import Dataset, Refresh
from finetune_operator.reconcile.refresh import fault_in, state_at
from tests import factories
from tests.factories import dataset_result, digest
from tests.unit.reconcile.world import World

DAILY = {"schedule": "0 3 * * *", "timeZone": "Europe/Berlin"}
DAY = 24 * 3600


def world(**spec: Any) -> World:
    here = World(factories.make_dataset(**{"refresh": DAILY, **spec}))
    here.settle()
    return prepare(here)


def prepare(here: World, letter: str = "d") -> World:
    here.end(here.newest("prepare"), dataset_result(letter, source_revision="c0ffee").to_json())
    here.settle()
    return here


def fail(here: World, reason: FailureReason = FailureReason.BAD_ROW) -> None:
    result = DatasetResult(failure=Failure(reason=reason, message="rows.jsonl line 7: no row"))
    here.end(here.newest("prepare"), result.to_json(), code=policy_of(reason).exit_code or 1)
    here.settle()


def to_next(here: World) -> None:
    """Let the scheduled time come."""
    wait = here.act().wake_after
    assert wait is not None
    assert 0 < wait <= DAY + 3600
    here.later(wait)
    here.settle()


def test_the_source_is_read_at_the_scheduled_time_and_the_revision_serves_meanwhile() -> None:
    here = world()
    assert here.status["refresh"]["nextAt"].endswith("01:00:00Z") or here.status["refresh"]["nextAt"].endswith(
        "02:00:00Z"
    )
    assert here.says("Refreshed").startswith("True NotYetDue: read again at 20")
    to_next(here)
    assert here.newest("prepare")
    assert here.says("Ready").startswith("True RevisionReady")
    assert here.says("Refreshed").startswith("Unknown Preparing")
    events = len(here.events)
    prepare(here)
    assert here.says("Refreshed").startswith("True SourceRead: read for 20")
    assert here.status["revision"]["scheduledFor"] == here.status["refresh"]["scheduledFor"]
    assert "history" not in here.status or here.status["history"] == []
    assert len(here.events) == events


def test_new_rows_are_a_new_revision_and_the_old_one_is_kept() -> None:
    here = world(history=2)
    for letter in "efa":
        to_next(here)
        prepare(here, letter)
    assert here.status["revision"]["digest"] == digest("a")
    assert [entry["digest"] for entry in here.status["history"]] == [digest("f"), digest("e")]
    to_next(here)
    prepare(here, "e")
    assert here.status["revision"]["digest"] == digest("e")
    assert [entry["digest"] for entry in here.status["history"]] == [digest("a"), digest("f")]
    here.edit(history=0)
    here.settle()
    assert here.status.get("history", []) == []


def test_a_failed_refresh_keeps_the_revision_ready_and_is_tried_at_the_next_time() -> None:
    here = world()
    to_next(here)
    fail(here)
    assert here.says("Ready").startswith("True RevisionReady")
    assert here.says("Refreshed").startswith("False BadRow: rows.jsonl line 7: no row. Mend the line")
    assert here.status["phase"] == "Ready"
    assert here.events[-1].reason == "BadRow"
    jobs = len(here.made)
    here.settle()
    assert len(here.made) == jobs
    to_next(here)
    assert here.says("Refreshed").startswith("Unknown Preparing")
    prepare(here, "e")
    assert here.says("Refreshed").startswith("True SourceRead")
    assert "failure" not in here.status["refresh"]


def test_times_that_come_while_the_source_is_read_are_one() -> None:
    here = world()
    to_next(here)
    job = here.newest("prepare")
    here.later(3 * DAY)
    here.settle()
    assert here.newest("prepare")["metadata"]["name"] == job["metadata"]["name"]
    prepare(here, "e")
    # Overdue: read once more, for the newest of them.
    assert here.says("Refreshed").startswith("Unknown Preparing")
    prepare(here, "e")
    assert here.says("Refreshed").startswith("True SourceRead")


def test_removing_the_schedule_reads_nothing() -> None:
    here = world()
    to_next(here)
    prepare(here, "e")
    made = len(here.made)
    here.edit(refresh=None)
    here.settle()
    assert len(here.made) == made
    assert here.status["phase"] == "Ready"
    assert "refresh" not in here.status
    assert not any(condition["type"] == "Refreshed" for condition in here.status["conditions"])
    here.edit(refresh={"schedule": "0 4 * * *"})
    here.settle()
    assert len(here.made) == made
    assert "04:00 UTC" in here.says("Refreshed")


@pytest.mark.parametrize(
    ("refresh", "said"),
    [
        ({"schedule": "every day"}, "spec.refresh.schedule: 'every day' is no schedule"),
        ({"schedule": "0 3 30 2 *"}, "spec.refresh.schedule: '0 3 30 2 *' is no schedule"),
        (
            {"schedule": "0 3 * * *", "timeZone": "Mars/Olympus"},
            "spec.refresh.timeZone: 'Mars/Olympus' is no time zone",
        ),
        ({"schedule": "0 3 * * *", "timeZone": "../../etc/passwd"}, "spec.refresh.timeZone"),
    ],
    ids=["words", "no such day", "no such zone", "a path"],
)
def test_a_schedule_that_is_none_is_refused(refresh: dict[str, str], said: str) -> None:
    here = World(factories.make_dataset(refresh=refresh))
    here.settle()
    assert here.says("Stalled").startswith(f"True InvalidSpec: {said}")
    assert here.says("Accepted").startswith("False InvalidSpec")
    assert not here.jobs()


def test_a_licence_that_spdx_does_not_know_is_refused() -> None:
    here = World(factories.make_dataset(license={"spdx": "CC-BY-9"}))
    here.settle()
    assert here.says("Stalled").startswith("True InvalidSpec: spec.license.spdx: 'CC-BY-9' is no SPDX identifier")
    here.edit(license={"spdx": "LicenseRef-Ours"})
    here.settle()
    assert here.says("Accepted").startswith("True")
    assert here.jobs()


# --- mixtures ---


def mixed(*others: dict[str, Any], **spec: Any) -> World:
    parts = [{"dataset": "a", "weight": 2}, {"dataset": "b", "weight": 1}]
    here = World(factories.make_dataset("mixed", source={"mixture": parts}, **spec), *others)
    here.settle()
    return here


def test_a_mixture_waits_for_its_parts_and_reads_their_revisions() -> None:
    here = mixed(factories.ready_dataset("a", "a"))
    assert here.says("Ready").startswith(
        "False DatasetNotFound: spec.source.mixture[1].dataset: there is no Dataset 'b'"
    )
    here = mixed(factories.ready_dataset("a", "a"), factories.make_dataset("b"))
    assert here.says("Ready").startswith("False DatasetNotReady: spec.source.mixture[1].dataset: Dataset 'b'")
    here = mixed(factories.ready_dataset("a", "a"), factories.ready_dataset("b", "b"))
    plan = next(item for item in here.made if item["kind"] == "ConfigMap")["data"]["plan.json"]
    assert digest("a") in plan
    assert digest("b") in plan
    prepare(here)
    assert here.status["phase"] == "Ready"
    # A part that moves on does not start a reading by itself.
    here.others.update({key: factories.ready_dataset("a", "f") for key in here.others if key.name == "a"})
    made = len(here.made)
    here.settle()
    assert len(here.made) == made


def test_what_a_mixture_inherits_goes_on_to_the_mixture_it_is_in() -> None:
    inner, plain = factories.ready_dataset("a", "a"), factories.ready_dataset("b", "b")
    inherited = {"license": "CC-BY-NC-4.0", "attribution": "A; B", "teachers": [{"model": "m", "terms": "t"}]}
    inner["status"]["revision"] |= {**inherited, "parts": [{"dataset": "c", "digest": digest("c")}]}
    plain["spec"]["license"] = {"spdx": "MIT", "attribution": "C", "teacher": {"model": "n"}}
    here = mixed(inner, plain)
    made = next(item for item in here.made if item["kind"] == "ConfigMap")["data"]["plan.json"]
    first, second = DatasetPlan.model_validate_json(made).source.mixture or ()
    assert (first.license, first.attribution, first.teachers) == (
        "CC-BY-NC-4.0", "A; B", (Teacher(model="m", terms="t"),),
    )  # fmt: skip
    assert (second.attribution, second.teachers) == ("C", (Teacher(model="n"),))
    parts = (MixedPart(dataset="a", digest=digest("a")), MixedPart(dataset="b", digest=digest("b")))
    result = factories.dataset_result("e", attribution="A; B; C", teachers=first.teachers, parts=parts)
    here.end(here.newest("prepare"), result.to_message().decode())
    here.settle()
    revision = here.status["revision"]
    assert revision["attribution"] == "A; B; C"
    assert revision["teachers"] == [{"model": "m", "terms": "t"}]
    assert revision["parts"][1] == {"dataset": "b", "digest": digest("b")}


@pytest.mark.parametrize("length", [1, 2, 3])
def test_mixtures_that_are_parts_of_each_other_are_named(length: int) -> None:
    names = ["mixed", *(f"m{number}" for number in range(1, length))]
    others = [
        factories.make_dataset(name, source={"mixture": [{"dataset": following}]})
        for name, following in zip(names[1:], [*names[2:], "mixed"], strict=False)
    ]
    here = World(factories.make_dataset("mixed", source={"mixture": [{"dataset": [*names, "mixed"][1]}]}), *others)
    here.settle()
    assert here.says("Stalled").startswith("True ReferenceCycle: spec.source.mixture[0].dataset: ")
    assert " -> ".join([*names, "mixed"]) in here.says("Stalled")
    assert not here.jobs()


def test_a_mixture_has_no_split_of_its_own() -> None:
    here = mixed(factories.ready_dataset("a", "a"), factories.ready_dataset("b", "b"), split={"test": 0.1})
    assert here.says("Stalled").startswith("True InvalidSpec: spec.split: the rows of a mixture keep the sides")


# --- schedules ---


@given(
    st.integers(1_700_000_000, 1_900_000_000),
    st.sampled_from(["0 3 * * *", "30 2 * * *", "*/7 * * * *", "0 0 1 * *", "15 6 * * 1-5"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.timedeltas(timedelta(0), timedelta(days=70)),
)
def test_any_schedule_comes_once_however_late_it_is_looked_at(
    start: int, schedule: str, zone: str, late: timedelta
) -> None:
    now = datetime.fromtimestamp(start, UTC)
    resource = factories.ready_dataset()
    resource["spec"]["refresh"] = {"schedule": schedule, "timeZone": zone}
    first = state_at(Dataset.model_validate(resource), now)
    assert first is not None
    assert first.next_at is not None
    assert first.next_at > now
    assert first.scheduled_for is None
    resource["status"]["refresh"] = first.model_dump(mode="json", by_alias=True)
    same = state_at(Dataset.model_validate(resource), first.next_at - timedelta(seconds=1))
    assert same == first
    then = first.next_at + late
    due = state_at(Dataset.model_validate(resource), then)
    assert due is not None
    assert due.scheduled_for is not None
    assert due.next_at is not None
    assert first.next_at <= due.scheduled_for <= then < due.next_at
    resource["status"]["refresh"] = due.model_dump(mode="json", by_alias=True)
    # While it is read, nothing else is due.
    assert state_at(Dataset.model_validate(resource), due.next_at + late) == due


def test_a_fault_is_none_where_there_is_none() -> None:
    assert fault_in(Refresh(schedule="0 3 * * 0", time_zone="Europe/Berlin")) is None
