"""`python -m finetune_trainer evaluate`: measure a published artifact anew, without training.

    python -m finetune_trainer evaluate --plan plan.json --store /store --termination-log /tmp/result.json

What was measured goes beside the run's attempts; the EvaluationResult into the termination log.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from finetune_contract.evaluating import EvaluationResult
from finetune_contract.failure import FineTuneError
from finetune_contract.methods import Method
from finetune_contract.paths import LOG_FILE, PLAN_FILE, SCRATCH_MOUNT, STORE_MOUNT, TERMINATION_LOG
from finetune_contract.training import ReevaluationPlan
from finetune_store.edge import read_plan, run_command
from finetune_store.opening import open_store
from finetune_trainer.export.publish import evaluation_folder
from finetune_trainer.keptlog import kept
from finetune_trainer.stop import Stop
from finetune_trainer.train.failures import named
from finetune_trainer.train.surroundings import prepare_environment

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Measure one artifact; answers the exit code."""
    arguments = _parse(argv)
    prepare_environment(arguments.scratch)

    def work() -> EvaluationResult:
        stop = Stop()
        stop.install()
        plan = read_plan(arguments.plan, ReevaluationPlan)
        log.info("run %s: evaluating %s", plan.training.run_key[:12], plan.artifact.digest)
        with named(stop):
            return reevaluate(plan, arguments.store)

    return run_command(work, lambda failure: EvaluationResult(failure=failure), arguments.termination_log)


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


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="finetune_trainer evaluate", description=__doc__)
    parser.add_argument("--plan", type=Path, default=PLAN_FILE, help="the ReevaluationPlan (JSON)")
    parser.add_argument("--store", type=Path, default=STORE_MOUNT, help="where the claim is mounted")
    parser.add_argument("--scratch", type=Path, default=SCRATCH_MOUNT, help="caches; lost with the pod")
    parser.add_argument("--termination-log", type=Path, default=TERMINATION_LOG, help="where the result goes")
    return parser.parse_args(argv)
