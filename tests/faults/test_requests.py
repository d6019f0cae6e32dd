"""Every request that a life needs is refused, lost, cut or answered too late."""

from __future__ import annotations

from functools import partial

import pytest

from tests.faults import actions
from tests.faults.laboratory import Case, Laboratory
from tests.faults.plays import at_start, in_answering, in_training, in_whole_life, starting
from tests.faults.proxy import Action, Rule
from tests.faults.stage import Stage

LATE = 8.0
"""Seconds; longer than REQUEST_SECONDS of the operators here."""

ANSWERS: dict[str, tuple[Action, int]] = {
    "403": (actions.answer(403, "denied by a test's policy"), 2),
    "409": (actions.answer(409), 2),
    "422": (actions.answer(422), 2),
    "429 Retry-After": (actions.answer(429, headers={"Retry-After": "1"}), 2),
    "429 for long": (actions.answer(429), 4),
    "500": (actions.answer(500), 2),
    "503": (actions.answer(503), 2),
    "504 after the commit": (actions.answer_after_commit(504), 1),
    "500 after the commit": (actions.answer_after_commit(500), 1),
    "time-out after the commit": (actions.hang_after_commit(LATE), 1),
    "reset": (actions.reset, 2),
    "reset after the commit": (actions.reset_after_commit, 1),
    "half an answer": (actions.half_an_answer, 1),
}
"""Name -> what happens, and to how many requests in a row."""

TRAINING = (
    "create PersistentVolumeClaim", "create ConfigMap", "create Job prepare", "create Job stage", "create Job train",
    "create Event", "status Dataset", "status FineTuneJob Staging", "status FineTuneJob Succeeded",
    "get PersistentVolumeClaim",
)  # fmt: skip
SERVING = (
    "create ConfigMap serve", "patch Deployment", "patch Service", "status ModelDeployment", "delete Job",
    "delete ConfigMap",
)  # fmt: skip
ANSWERING = (
    "create ConfigMap batch", "create Job batch", "status BatchInference", "create Event Preempted",
    "delete Job", "delete ConfigMap",
)  # fmt: skip
STARTING = ("list Job", "list FineTuneJob", "create Lease", "update Lease", "get Lease")


def _fault(prefix: str, answer: str, _stage: Stage) -> Rule:
    action, times = ANSWERS[answer]
    return Rule(starting(prefix), action, times)


CASES = [
    Case(f"{prefix.split()[0]} fails{where}", f"{answer}: {prefix}", play(partial(_fault, prefix, answer)))
    for prefixes, play, where in (
        (TRAINING, in_training, ""),
        (SERVING, in_whole_life, ""),
        (ANSWERING, in_answering, " in a batch"),
        (STARTING, at_start, ""),
        (("list BatchInference",), partial(at_start, batch=True), ""),
    )
    for prefix in prefixes
    for answer in ANSWERS
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_failed_request_changes_nothing_in_the_end(case: Case, laboratory: Laboratory) -> None:
    laboratory.outcome(case)
