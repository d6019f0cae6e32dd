"""What a Workload of Kueue says, in words."""

from typing import Any

import pytest

from finetune_operator.reconcile.admission import Admission, ordinal
from tests.factories import Object


def workload(*conditions: tuple[str, str, str, str], **spec: Any) -> Object:
    named = [dict(zip(("type", "status", "reason", "message"), item, strict=True)) for item in conditions]
    return {"metadata": {"name": "w"}, "spec": spec, "status": {"conditions": named}}


def pending(*names: str) -> list[Object]:
    return [{"metadata": {"name": name}, "positionInLocalQueue": at} for at, name in enumerate(names)]


@pytest.mark.parametrize(
    ("said", "waiting", "expected"),
    [
        pytest.param(workload(), [], Admission(workload="w"), id="new"),
        pytest.param(
            workload(("QuotaReserved", "False", "Pending", "no quota")),
            pending("v", "w", "x"),
            Admission(workload="w", reason="Pending", message="no quota", position=2, waiting=3),
            id="waiting",
        ),
        pytest.param(
            workload(
                ("QuotaReserved", "True", "QuotaReserved", "got it"), ("Admitted", "False", "NoChecks", "not yet")
            ),
            [],
            Admission(workload="w", reason="QuotaReserved", message="not yet"),
            id="admission checks",
        ),
        pytest.param(
            workload(("QuotaReserved", "False", "Pending", "no quota"), ("Evicted", "True", "Preempted", "make room")),
            pending("w"),
            Admission(
                workload="w",
                reason="Pending",
                message="no quota",
                evicted="Preempted: make room",
                position=1,
                waiting=1,
            ),
            id="preempted",
        ),
        pytest.param(
            workload(("Evicted", "False", "QuotaReserved", "Previously: make room")),
            [],
            Admission(workload="w"),
            id="preempted before",
        ),
        pytest.param(
            workload(("QuotaReserved", "False", "Finished", "done"), ("Finished", "True", "FailedToStart", "conflict")),
            [],
            Admission(workload="w", reason="Finished", message="done", given_up="conflict"),
            id="given up",
        ),
        pytest.param(workload(active=False), [], Admission(workload="w", active=False), id="deactivated"),
        pytest.param(
            workload(),
            pending(*map(str, range(23)), "w", *map(str, range(30, 148))),
            Admission(workload="w", position=30, waiting=150),
            id="far behind: in steps of ten, so that not every admission moves everybody",
        ),
    ],
)
def test_what_a_workload_says(said: Object, waiting: list[Object], expected: Admission) -> None:
    assert Admission.of(said, waiting) == expected


def test_ordinals() -> None:
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 30, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "30th", "111th",
    ]  # fmt: skip
