"""One attempt of one run, from plan to published artifact.

Each stage leaves a directory that the next one reads, so an attempt that died in any of them goes on there: training
leaves the checkpoint of the last step, publishing the artifact, and the run's outcome comes last.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from finetune_contract.failure import FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_contract.methods import Method
from finetune_contract.paths import HISTORY_FILE, LOG_FILE, attempt_path
from finetune_contract.results import Artifact, ArtifactType, Phase, TrainingResult
from finetune_contract.training import TrainingPlan
from finetune_store.adapterfiles import facts_of
from finetune_store.checkpoints import Checkpoints
from finetune_store.opening import open_checkpoints, open_store
from finetune_store.store import Store
from finetune_trainer.evaluate.evaluation import check_settings, evaluate
from finetune_trainer.evaluate.record import Evaluation
from finetune_trainer.evaluate.report import promote, write_report
from finetune_trainer.evaluate.reward import evaluate_reward_model
from finetune_trainer.evaluate.systems import Systems
from finetune_trainer.export.artifact import copy_tokenizer, size_of, write_adapter, write_merged_model, write_model
from finetune_trainer.export.card import Figures, Subject, lineage_in, write_card
from finetune_trainer.export.probe import write_probe
from finetune_trainer.export.publish import evaluation_folder, lineage_of, publish_outcome
from finetune_trainer.keptlog import kept
from finetune_trainer.stop import Stop
from finetune_trainer.tracking.reporter import tracked
from finetune_trainer.tracking.words import Outcome, metrics_of_scores
from finetune_trainer.train import reward
from finetune_trainer.train.adapters import makes_whole_model
from finetune_trainer.train.attempt import Attempt
from finetune_trainer.train.fit import fit
from finetune_trainer.train.group import from_first, joined
from finetune_trainer.train.model import stored_dtype
from finetune_trainer.train.trained import Trained, log_of
from finetune_trainer.train.workbench import Workbench, open_workbench

log = logging.getLogger(__name__)

INCOMPLETE = "incomplete"
"""The key of an evaluation that a judge or a task has failed: no spec asks for it, so it is measured anew by itself."""


def run(attempt: Attempt, root: Path) -> TrainingResult | None:
    """Train, evaluate and publish; or say what an earlier attempt has published.

    Ranks but the first only train: they have no result.

    Args:
        attempt: What to do, and whom to tell.
        root: Where the plan's claim is mounted, or copies of what is in S3 go.

    Raises:
        FineTuneError: Any of the reasons a training pod can fail for.
    """
    plan, ranks = attempt.plan, attempt.ranks
    store = open_store(plan, root)
    with ExitStack() as uploads:
        if ranks.is_first:
            uploads.enter_context(kept(store, plan.run_key, attempt_path(plan.attempt, LOG_FILE)))
        with joined(ranks, plan.parallelism.timeout_seconds, attempt.stop):
            earlier = from_first(ranks, store.outcome(plan.run_key) if ranks.is_first else None)
            if not earlier:
                check_settings(plan)
                if ranks.is_first:
                    attempt = replace(attempt, tracking=uploads.enter_context(tracked(plan, attempt.board)))
                with attempt.watch.stage("Loading"):
                    bench = open_workbench(plan, store, ranks)
                pod_uid = from_first(ranks, attempt.pod_uid)
                checkpoints = open_checkpoints(store, plan.run_key, pod_uid, plan.checkpoints.keep)
                uploads.enter_context(_kept(checkpoints, attempt.stop))
                trained = fit(attempt, bench, checkpoints)
        if not ranks.is_first:
            return None
        if earlier:
            log.info("this run has succeeded before: its artifact is used again")
            return earlier.model_copy(update={"reused": True, "attempt": plan.attempt})
        assert trained is not None  # on rank 0
        return _finish(attempt, store, bench, trained)


@contextmanager
def _kept(checkpoints: Checkpoints, stop: Stop) -> Iterator[None]:
    """See to it that whoever goes on with an unfinished run finds its last checkpoint."""
    try:
        yield
    except BaseException:
        # Within the pod's grace period, if it was told to stop.
        with stop.deferred():
            try:
                checkpoints.settle()
            except (FineTuneError, OSError) as error:
                log.warning("the last checkpoint is not in the store: %s", error)
        raise
    finally:
        checkpoints.close()


def _finish(attempt: Attempt, store: Store, bench: Workbench, trained: Trained) -> TrainingResult:
    """Evaluate what was trained, and publish it."""
    plan, board, watch = attempt.plan, attempt.board, attempt.watch
    with store.workspace(StoredKind.ARTIFACT) as directory:
        _write_artifact(plan, bench, trained, directory)
        with watch.stage("Evaluating"):
            board.update(phase=Phase.EVALUATING)
            evaluation = _evaluate(plan, bench, directory)
            board.update(eval_loss=evaluation.tuned_loss())
        _write_card(attempt, store, trained, evaluation, directory)
        attempt.stop.check()
        with attempt.stop.deferred():
            board.update(phase=Phase.PUBLISHING)
            with watch.stage("Publishing"):
                artifact = _publish_artifact(plan, store, bench.base, directory)
            if attempt.tracking:
                attempt.tracking.log(trained.step, metrics_of_scores(evaluation.scores))
                attempt.tracking.close(Outcome.FINISHED)
            result = _result(attempt, trained, artifact, evaluation)
            store.record(plan.run_key, HISTORY_FILE, json.dumps(log_of(trained.checkpoint)))
            folder = evaluation_folder(plan, artifact.digest)
            write_report(store, plan, evaluation, folder, result)
            holds = publish_outcome(store, result)
            if holds == result:  # another pod's artifact has figures of its own
                promote(store, plan, folder)
            return holds


def _evaluate(plan: TrainingPlan, bench: Workbench, directory: Path) -> Evaluation:
    """The scores; what writes answers gets its probe, too."""
    if plan.method is Method.REWARD:
        return evaluate_reward_model(plan, bench, directory)
    systems = Systems(plan, bench, directory)
    evaluation = evaluate(plan, bench, systems)
    write_probe(plan, bench, systems, directory)
    return evaluation


def _write_artifact(plan: TrainingPlan, bench: Workbench, trained: Trained, directory: Path) -> None:
    if plan.method is Method.REWARD:
        reward.write(plan, trained.checkpoint, bench, stored_dtype(bench.base), directory)
        copy_tokenizer(bench.base, directory)
    elif plan.adapter is not None and makes_whole_model(plan):
        write_merged_model(trained.checkpoint, bench.base, stored_dtype(bench.base), directory)
    elif plan.adapter is not None:
        write_adapter(trained.checkpoint, bench.base, plan.base.digest, directory)
    else:
        write_model(trained.checkpoint, bench.base, stored_dtype(bench.base), directory)


def _write_card(attempt: Attempt, store: Store, trained: Trained, evaluation: Evaluation, directory: Path) -> None:
    plan = attempt.plan
    seconds = sum(timing.seconds for timing in attempt.watch.timings())
    ranks = plan.parallelism.ranks if torch.cuda.is_available() else 0
    subject = Subject(
        plan=plan,
        type=_type_of(plan),
        scores=evaluation.scores,
        seconds=seconds,
        gpu_seconds=ranks * seconds,
        figures=Figures(
            tokens=trained.data.tokens,
            supervised_tokens=trained.data.supervised_tokens,
            truncated_rows=trained.data.truncated_rows,
            dropped_rows=trained.data.dropped_rows,
            step=trained.step,
            train_loss=trained.train_loss,
            warnings=trained.warnings,
        ),
        base=lineage_in(store, plan.base),
        dataset=lineage_in(store, plan.dataset),
    )
    write_card(subject, directory)


def _publish_artifact(plan: TrainingPlan, store: Store, base: Path, directory: Path) -> Artifact:
    size = size_of(directory)
    facts = facts_of(directory, base) if _type_of(plan) is ArtifactType.ADAPTER else None
    reference = store.publish(StoredKind.ARTIFACT, directory, lineage_of(plan))
    log.info("artifact %s published (%.1f MB)", reference.digest, size / 1e6)
    return Artifact(
        digest=reference.digest,
        uri=reference.uri,
        type=_type_of(plan),
        bytes=size,
        base=plan.base,
        adapter=facts,
    )


def _type_of(plan: TrainingPlan) -> ArtifactType:
    if plan.method is Method.REWARD:
        return ArtifactType.REWARD_MODEL
    return ArtifactType.MODEL if makes_whole_model(plan) else ArtifactType.ADAPTER


def _result(attempt: Attempt, trained: Trained, artifact: Artifact, evaluation: Evaluation) -> TrainingResult:
    plan = attempt.plan
    seen = attempt.board.snapshot()
    return TrainingResult(
        run_key=plan.run_key,
        attempt=plan.attempt,
        artifact=artifact,
        step=trained.step,
        total_steps=trained.total_steps,
        resumed_from_step=trained.resumed_from_step,
        checkpoint_step=trained.step,
        train_loss=round(trained.train_loss, 6),
        tokens=trained.data.tokens,
        supervised_tokens=trained.data.supervised_tokens,
        truncated_tokens=trained.data.truncated_tokens,
        truncated_rows=trained.data.truncated_rows,
        evaluation=evaluation.scores,
        evaluation_key=INCOMPLETE if evaluation.failure else plan.evaluation_key,
        speed=evaluation.speed,
        timings=attempt.watch.timings(),
        dropped_rows=trained.data.dropped_rows,
        best_step=trained.best_step,
        best_eval_loss=None if trained.best_eval_loss is None else round(trained.best_eval_loss, 6),
        tokens_per_second=trained.tokens_per_second,
        mfu=trained.mfu,
        micro_batch_size=seen.micro_batch_size,
        peak_memory_bytes=seen.peak_memory_bytes,
        predicted_peak_bytes=plan.predicted_peak_bytes,
        # A warning that was shown on the way may be in the log of the run, too.
        warnings=tuple({each.reason: each for each in (*seen.warnings, *trained.warnings)}.values()),
        tracking=seen.tracking,
    )
