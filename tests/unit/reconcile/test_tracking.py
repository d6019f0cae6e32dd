"""The run as experiment trackers know it: in status while it goes on and after, and forgotten with the run."""

from finetune_contract.failure import FailureReason
from finetune_contract.results import Phase, Progress
from finetune_contract.tracking import TrackedRun, Tracker
from tests.factories import training_result
from tests.unit.reconcile.runs import KEY, OTHER, fail, staged
from tests.unit.reconcile.world import World

THERE = TrackedRun(tracker=Tracker.MLFLOW, run="f00", url="https://mlflow.example.com/#/experiments/1/runs/f00")
SHOWN = [{"tracker": "MLflow", "run": "f00", "url": "https://mlflow.example.com/#/experiments/1/runs/f00"}]


def training(*runs: TrackedRun) -> World:
    here = staged()
    here.pod(here.newest("train"))
    here.progress = Progress(run_key=KEY, attempt=1, phase=Phase.TRAINING, step=3, tracking=runs, updated_at=here.now)
    here.settle()
    return here


def test_the_run_is_shown_as_soon_as_the_pod_knows_it() -> None:
    assert training(THERE).status["tracking"] == SHOWN
    assert training().status["tracking"] == []


def test_it_stays_when_the_run_has_succeeded() -> None:
    here = training(THERE)
    here.progress = None
    here.end(here.newest("train"), training_result(KEY, tracking=(THERE,)).to_json())
    here.settle()
    assert here.says("Ready").startswith("True Succeeded")
    assert here.status["tracking"] == SHOWN


def test_it_stays_when_an_attempt_dies_without_a_word_of_it() -> None:
    here = training(THERE)
    here.progress = None
    fail(here, FailureReason.TRAINER_CRASHED)
    assert here.status["tracking"] == SHOWN


def test_another_run_has_another_one() -> None:
    here = training(THERE)
    here.progress = None
    here.end(here.newest("train"), training_result(KEY, tracking=(THERE,)).to_json())
    here.settle()
    here.edit(hyperparameters={"epochs": 9})
    here.settle()
    staged(OTHER, here)
    assert here.status["tracking"] == []


def test_an_edit_of_the_trackers_starts_no_other_run() -> None:
    here = training(THERE)
    here.progress = None
    here.end(here.newest("train"), training_result(KEY).to_json())
    here.settle()
    here.edit(tracking={"mlflow": {"uri": "https://mlflow.example.com", "experiment": "support"}})
    here.settle()
    assert len(here.jobs("train")) == 1
    assert here.says("Ready").startswith("True Succeeded")
