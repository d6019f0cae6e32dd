"""`python -m finetune_trainer evaluate`: measure a published artifact anew, without training.

    python -m finetune_trainer evaluate --plan plan.json --store /store --termination-log /tmp/result.json

What was measured goes beside the run's attempts; the EvaluationResult into the termination log.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from finetune_contract.evaluating import EvaluationResult
from finetune_contract.failure import FineTuneError
from finetune_contract.methods import Method
from finetune_contract.paths import LOG_FILE
from finetune_contract.training import ReevaluationPlan
from finetune_store.opening import open_store
from finetune_trainer.command import options, run_plan
from finetune_trainer.export.publish import evaluation_folder
from finetune_trainer.keptlog import kept

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Measure one artifact; answers the exit code."""
    parser = options("evaluate", __doc__, ReevaluationPlan)
    return run_plan(parser, argv, ReevaluationPlan, reevaluate, lambda failure: EvaluationResult(failure=failure))


def reevaluate(plan: ReevaluationPlan, root: Path) -> EvaluationResult:
    """The scores of a published artifact, as training would have measured them.

    Raises:
        FineTuneError: Any of the reasons that inputs cannot be read for.
    """
    from finetune_trainer.evaluate.evaluation import check_settings, evaluate
    from finetune_trainer.evaluate.report import promote, write_report
    from finetune_trainer.evaluate.reward import evaluate_reward_model
    from finetune_trainer.evaluate.systems import Systems
    from finetune_trainer.train.workbench import open_workbench

    training = plan.training
    log.info("run %s: evaluating %s", training.run_key[:12], plan.artifact.digest)
    store = open_store(training, root)
    folder = evaluation_folder(training, plan.artifact.digest)
    with kept(store, training.run_key, f"{folder}/{LOG_FILE}"):
        check_settings(training)
        artifact = store.verify(plan.artifact)
        bench = open_workbench(training, store)
        if training.method is Method.REWARD:
            evaluation = evaluate_reward_model(training, bench, artifact)
        else:
            evaluation = evaluate(training, bench, Systems(training, bench, artifact))
        write_report(store, training, evaluation, folder, store.outcome(training.run_key))
        promote(store, training, folder)
        if evaluation.failure is not None:
            raise FineTuneError(evaluation.failure.reason, evaluation.failure.message)
    return EvaluationResult(evaluation=evaluation.scores, speed=evaluation.speed)
