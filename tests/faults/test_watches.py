"""Watches lose events, end, fall silent and lie; what they did not tell is found all the same."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from tests.faults import actions, life
from tests.faults.actions import StreamAction
from tests.faults.laboratory import Case, Goldens, Laboratory, Play
from tests.faults.plays import at_start, in_answering, in_training, in_whole_life, labelled, running_operator
from tests.faults.proxy import Rule, StreamRule
from tests.faults.stage import Stage

TRAINING = (
    "ADDED PersistentVolumeClaim store",
    "ADDED FineTuneJob New",
    "ADDED Dataset New",
    *(f"ADDED ConfigMap {part}" for part in ("prepare-1", "stage-1", "train-1")),
    *(f"ADDED Job {part} New" for part in ("prepare-1", "stage-1", "train-1")),
    *(f"MODIFIED Job {part} Active" for part in ("prepare-1", "stage-1", "train-1")),
    *(f"MODIFIED Job {part} Ended" for part in ("prepare-1", "stage-1", "train-1")),
    *(f"ADDED Pod {part} Pending" for part in ("prepare-1", "stage-1", "train-1")),
    *(f"MODIFIED Pod {part} Running" for part in ("prepare-1", "stage-1", "train-1")),
    *(f"MODIFIED Pod {part} Succeeded" for part in ("prepare-1", "stage-1", "train-1")),
    "MODIFIED Dataset Preparing",
    "MODIFIED Dataset Preparing PodStarting",
    "MODIFIED Dataset Ready RevisionReady",
    "MODIFIED FineTuneJob WaitingForDataset DatasetNotFound",
    "MODIFIED FineTuneJob WaitingForDataset DatasetNotReady",
    "MODIFIED FineTuneJob Staging",
    "MODIFIED FineTuneJob Staging PodStarting",
    "MODIFIED FineTuneJob Starting",
    "MODIFIED FineTuneJob Starting PodStarting",
    "MODIFIED FineTuneJob Loading Training",
    "MODIFIED FineTuneJob Succeeded",
)
SERVING = (
    "ADDED ModelDeployment New",
    "MODIFIED ModelDeployment Starting Proving",
    "MODIFIED ModelDeployment Updating Proving",
    "MODIFIED ModelDeployment Serving",
    "ADDED ConfigMap serve",
    "ADDED Deployment serve",
    "MODIFIED Deployment serve",
    "ADDED Service serve",
    "ADDED Pod serve Pending",
    "MODIFIED Pod serve Running",
    "DELETED Pod serve Running",
    "DELETED ConfigMap serve",
    *(f"DELETED ConfigMap {part}" for part in ("stage-1", "train-1")),
    *(f"DELETED Job {part} Ended" for part in ("stage-1", "train-1")),
    *(f"DELETED Pod {part} Succeeded" for part in ("stage-1", "train-1")),
)
ANSWERING = (
    "ADDED BatchInference New",
    *(f"ADDED ConfigMap {part}" for part in ("batch-1", "batch-2")),
    *(f"ADDED Job {part} New" for part in ("batch-1", "batch-2")),
    *(f"MODIFIED Job {part} Active" for part in ("batch-1", "batch-2")),
    *(f"MODIFIED Job {part} Ended" for part in ("batch-1", "batch-2")),
    *(f"ADDED Pod {part} Pending" for part in ("batch-1", "batch-2")),
    *(f"MODIFIED Pod {part} Running" for part in ("batch-1", "batch-2")),
    "MODIFIED Pod batch-1 Failed",
    *(f"MODIFIED Pod {part} Succeeded" for part in ("batch-1", "batch-2")),
    "MODIFIED BatchInference Starting",
    "MODIFIED BatchInference Starting PodStarting",
    "MODIFIED BatchInference Starting Answering",
    "MODIFIED BatchInference Succeeded",
    *(f"DELETED ConfigMap {part}" for part in ("batch-1", "batch-2")),
    *(f"DELETED Job {part} Ended" for part in ("batch-1", "batch-2")),
    "DELETED Pod batch-1 Failed",
    "DELETED Pod batch-2 Succeeded",
)
WATCHED = ("Dataset", "FineTuneJob", "BatchInference", "Job", "Pod")


def _of(kind: str, action: StreamAction, times: int, _stage: Stage) -> StreamRule:
    return StreamRule(lambda found, label: found == kind and not label.startswith("BOOKMARK"), action, times)


def _drop(label: str, _stage: Stage) -> StreamRule:
    return StreamRule(lambda _kind, found: found == label, actions.drop, times=99)


def _answered(label: str, status: int, _stage: Stage) -> Rule:
    return Rule(labelled(label), actions.answer(status), times=2)


def _bad_news(fault: partial[StreamRule], *, is_exception: bool) -> Case:
    """Kopf dies of some of them and is started again, which is logged with its traceback."""
    kind, action, _ = fault.args
    play = in_answering(fault) if kind == "BatchInference" else in_training(fault)
    return Case("watch fault", f"{action.__qualname__} {kind}", _tolerating(play) if is_exception else play)


def _named(action: StreamAction, name: str) -> StreamAction:
    action.__qualname__ = name
    return action


def _stream_cases() -> list[Case]:
    cases = []
    for kind in WATCHED:
        for action in (actions.close, actions.twice, actions.fall_silent, _named(actions.error(410), "ERROR 410")):
            times = 99 if action is actions.twice else 1
            cases.append(_bad_news(partial(_of, kind, action, times), is_exception=False))
        deadly = (actions.half_a_line, _named(actions.error(500), "ERROR 500"), _named(actions.error(429), "ERROR 429"))
        cases += [_bad_news(partial(_of, kind, action, 1), is_exception=True) for action in deadly]
    return cases


def _request_cases() -> list[Case]:
    cases = []
    for kind in WATCHED:
        for verb in ("watch", "list"):
            for status in (403, 404, 410, 429, 500, 503):
                fault = partial(_answered, f"{verb} {kind}", status)
                cases.append(
                    Case(
                        f"{verb} refused",
                        f"{status} {kind}",
                        _tolerating(at_start(fault, batch=kind == "BatchInference")),
                    )
                )
    return cases


def _tolerating(play: Play) -> Play:
    async def allowing(stage: Stage, goldens: Goldens) -> None:
        # Kopf fails, and forgets to ask its own tasks why.
        stage.complaints_allowed = ("Traceback", "Task exception was never retrieved")
        await play(stage, goldens)

    return allowing


async def _silence_without_sweeps(stage: Stage, goldens: Goldens) -> None:
    """Every watch is dead at once, and no sweep comes to the rescue: idle watches are opened anew."""
    await running_operator(stage, RESYNC_SECONDS="600")
    held = stage.kubelet.hold("train-1")
    await stage.begin()
    await stage.until_said("FineTuneJob", life.JOB, "Training")
    stage.proxy.is_silent = True
    stage.proxy.injected += 1
    before = len(stage.proxy.requests)
    held.set()
    await stage.until("the run's end", lambda: stage.kubelet.store.trainings)
    while "watch Pod" not in stage.proxy.requests[before:]:
        await asyncio.sleep(0.05)
    stage.proxy.is_silent = False
    await stage.until_done()
    await stage.verdict(goldens.trained)


CASES = [
    *(Case("event lost", label, in_training(partial(_drop, label))) for label in TRAINING),
    *(Case("event lost", label, in_whole_life(partial(_drop, label))) for label in SERVING),
    *(Case("event lost", label, in_answering(partial(_drop, label))) for label in ANSWERING),
    *_stream_cases(),
    *_request_cases(),
    Case("watch silent", "all, without sweeps", _silence_without_sweeps),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_a_watch_does_not_tell_is_found(case: Case, laboratory: Laboratory) -> None:
    laboratory.outcome(case)


def test_every_event_is_listed(laboratory: Laboratory) -> None:
    goldens = laboratory.goldens()
    assert set(goldens.events) == set(TRAINING + SERVING)
    assert set(goldens.batch_events) == set(ANSWERING)
