"""Warnings of the trainer become conditions beside Ready."""

from finetune_contract.results import Phase, Progress, RunWarning, WarningReason
from tests.factories import training_result
from tests.unit.reconcile.runs import KEY, staged

WARNING = RunWarning(reason=WarningReason.OVERFITTING, message="the validation loss rose")
SAYS = "True Observed: the validation loss rose"


def test_a_warning_while_training_is_a_condition_and_the_run_goes_on() -> None:
    here = staged()
    here.pod(here.newest("train"))
    here.progress = Progress(
        run_key=KEY, attempt=1, phase=Phase.TRAINING, step=3, warnings=(WARNING,), updated_at=here.now
    )
    here.settle()
    assert here.says("Overfitting") == SAYS
    assert here.says("Running").startswith("True Training")


def test_a_warning_of_a_result_stays_beside_ready() -> None:
    here = staged()
    result = training_result(KEY, warnings=(WARNING,), best_eval_loss=0.5)
    here.end(here.newest("train"), result.to_json())
    here.settle()
    assert here.says("Overfitting") == SAYS
    assert here.says("Ready").startswith("True Succeeded")
    assert here.status["progress"]["evalLoss"] == 0.5
    here.later(3600)
    here.settle()
    assert here.says("Overfitting") == SAYS


def test_a_result_without_warnings_takes_back_what_was_seen_before() -> None:
    here = staged()
    here.pod(here.newest("train"))
    here.progress = Progress(
        run_key=KEY, attempt=1, phase=Phase.TRAINING, step=3, warnings=(WARNING,), updated_at=here.now
    )
    here.settle()
    here.progress = None
    here.end(here.newest("train"), training_result(KEY).to_json())
    here.settle()
    assert here.says("Overfitting") == ""
