"""The operator dies before and after every single write of a life, and is started again.

The writes are listed here, so that a write that the operator learns tomorrow fails `test_every_write_is_listed` until
it is crashed at, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from tests.faults import actions
from tests.faults.laboratory import Case, Laboratory, Play
from tests.faults.plays import MakeFault, in_answering, in_training, in_whole_life, labelled
from tests.faults.proxy import Rule
from tests.faults.stage import Stage

TRAINING = (
    "status FineTuneJob WaitingForDataset DatasetNotFound",
    "status FineTuneJob WaitingForDataset DatasetNotReady",
    "create PersistentVolumeClaim store",
    "create ConfigMap prepare-1",
    "create Job prepare-1",
    "status Dataset Preparing",
    "status Dataset Preparing PodStarting",
    "status Dataset Preparing",
    "status Dataset Ready RevisionReady",
    "create Event RevisionReady",
    "create ConfigMap stage-1",
    "create Job stage-1",
    "status FineTuneJob Staging",
    "status FineTuneJob Staging PodStarting",
    "status FineTuneJob Staging",
    "create ConfigMap train-1",
    "create Job train-1",
    "status FineTuneJob Starting",
    "status FineTuneJob Starting PodStarting",
    "status FineTuneJob Loading Training",
    "status FineTuneJob Succeeded",
    "create Event Succeeded",
)
"""From a Dataset and a FineTuneJob to an artifact."""

SERVING = (
    "create ConfigMap serve",
    "patch Deployment serve",
    "patch Service serve",
    "status ModelDeployment Starting Proving",
    "status ModelDeployment Serving",
    "create ConfigMap stage-1",
    "create Job stage-1",
    "status FineTuneJob Staging",
    "delete Job",
    "delete ConfigMap",
    "status FineTuneJob Staging PodStarting",
    "status FineTuneJob Staging",
    "create ConfigMap train-1",
    "create Job train-1",
    "status FineTuneJob Starting",
    "delete Job",
    "delete ConfigMap",
    "status FineTuneJob Starting PodStarting",
    "status FineTuneJob Loading Training",
    "status FineTuneJob Succeeded",
    "create ConfigMap serve",
    "create Event Succeeded",
    "patch Deployment serve",
    "status ModelDeployment Updating Proving",
    "status ModelDeployment Serving",
    "delete ConfigMap",
)
"""What follows: it is served, its spec is edited, and the second run's artifact is served in its place."""

ANSWERING = (
    "create ConfigMap batch-1",
    "create Job batch-1",
    "status BatchInference Starting",
    "status BatchInference Starting PodStarting",
    "status BatchInference Starting Answering",
    "create ConfigMap batch-2",
    "create Job batch-2",
    "status BatchInference Starting",
    "create Event Preempted",
    "status BatchInference Starting PodStarting",
    "status BatchInference Starting Answering",
    "status BatchInference Succeeded",
    "create Event Succeeded",
    "create ConfigMap batch-1",
    "create Job batch-1",
    "status BatchInference Starting",
    "delete Job",
    "delete Job",
    "delete ConfigMap",
    "delete ConfigMap",
    "status BatchInference Starting PodStarting",
    "status BatchInference Starting Answering",
    "status BatchInference Succeeded",
    "create Event Succeeded",
)
"""A batch: its first pod is preempted, its second one answers; then it is asked anew."""


def _crash(label: str, occurrence: int, moment: str, stage: Stage) -> Rule:
    action = actions.crash_before if moment == "before" else actions.crash_after
    return Rule(labelled(label), action(stage.operator.kill), skip=occurrence - 1)


def _cases() -> list[Case]:
    plays = [in_training] * len(TRAINING) + [in_whole_life] * len(SERVING)
    return [
        *_at_each(TRAINING + SERVING, plays, "a write"),
        *_at_each(ANSWERING, [in_answering] * len(ANSWERING), "a batch's write"),
    ]


def _at_each(labels: tuple[str, ...], plays: Sequence[Callable[[MakeFault], Play]], what: str) -> list[Case]:
    cases, seen = [], Counter[str]()
    for label, play in zip(labels, plays, strict=True):
        seen[label] += 1
        for moment in ("before", "after"):
            fault = partial(_crash, label, seen[label], moment)
            cases.append(Case(f"crash {moment} {what}", f"{label} #{seen[label]}", play(fault)))
    return cases


@pytest.mark.parametrize("case", _cases(), ids=str)
def test_a_crash_loses_nothing(case: Case, laboratory: Laboratory) -> None:
    laboratory.outcome(case)


def test_every_write_is_listed(laboratory: Laboratory) -> None:
    goldens = laboratory.goldens()
    _compare(goldens.writes, TRAINING + SERVING)
    _compare(goldens.batch_writes, ANSWERING)


def _compare(writes: list[str], known: tuple[str, ...]) -> None:
    written, listed = Counter(writes), Counter(known)
    assert set(written) == set(listed)
    assert not {label: times for label, times in listed.items() if written[label] < times}
    # Passes may see two changes at once or apart: only how often a status is written varies.
    more = {label for label, times in written.items() if times > listed[label]}
    assert all(label.startswith("status ") for label in more), more
