"""Tasks of lm-eval-harness: what a model could do before it was tuned, and should still be able to do.

Tasks and their rows are files of the ConfigMap in `spec.evaluation.benchmark`; nothing is downloaded, unless `download`
says that tasks which lm-eval knows may fetch their rows.
"""

import contextlib
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_contract.base import Document
from finetune_contract.evaluating import BenchmarkPlan, EvaluationPlan
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import TASKS_MOUNT
from finetune_trainer.evaluate.record import TaskResult
from finetune_trainer.train.workbench import Workbench

_BATCH = 16


class Tasks(Document):
    """What tasks say about one model."""

    results: tuple[TaskResult, ...] = ()
    rows: tuple[float, ...] = ()
    """The main metric of every row of every task: their mean is the Benchmark."""


def check(wanted: EvaluationPlan, directory: Path | None = None) -> None:
    """Refuse tasks that are not there.

    Raises:
        FineTuneError: InvalidPlan.
    """
    plan = wanted.benchmark
    if plan is None:
        raise FineTuneError(FailureReason.INVALID_PLAN, "evaluation.benchmark: Benchmark needs its tasks")
    with _workplace(directory or TASKS_MOUNT) as place:
        known = _manager(place, plan).all_tasks
        missing = [task for task in plan.tasks if task not in known]
    if not missing:
        return
    if plan.download:
        message = "neither lm-eval nor a YAML file of the ConfigMap defines such a task or group"
    else:
        message = (
            "no YAML file of the ConfigMap defines such a task; it defines "
            f"{', '.join(known) or 'none'}; for those of lm-eval itself set evaluation.benchmark.download: true"
        )
    raise FineTuneError(FailureReason.INVALID_PLAN, f"evaluation.benchmark.tasks: {', '.join(missing)}: {message}")


def digest(plan: BenchmarkPlan, directory: Path | None = None) -> str:
    """Names what is asked: the files, the tasks and how many rows."""
    whole = hashlib.sha256(plan.to_json().encode())
    for path in _files(directory or TASKS_MOUNT):
        whole.update(f"{path.name}:".encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def run(plan: BenchmarkPlan, model: Any, bench: Workbench, directory: Path | None = None) -> Tasks:  # noqa: ANN401
    """Ask a model in evaluation mode.

    Raises:
        FineTuneError: EvaluationFailed, with what lm-eval says.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    with _workplace(directory or TASKS_MOUNT) as place, _quiet():
        try:
            found: Any = lm_eval.simple_evaluate(
                model=HFLM(pretrained=model, tokenizer=bench.tokenizer, batch_size=_BATCH, max_length=bench.context),
                tasks=list(plan.tasks),
                task_manager=_manager(place, plan),
                limit=plan.limit,
                bootstrap_iters=0,
            )
        except Exception as error:
            offline = " (are its rows to be had from here? the pod must reach the Hugging Face Hub)"
            raise FineTuneError(
                FailureReason.EVALUATION_FAILED,
                f"evaluation.benchmark: lm-eval: {type(error).__name__}: {str(error)[:500]}"
                f"{offline if plan.download else ''}; the artifact is kept",
            ) from error
    results, rows = [], []
    for task in found["samples"]:  # a group stands for its tasks
        metric = _main_metric(found["results"][task])
        name = metric.partition(",")[0]
        samples = [float(sample[name]) for sample in found["samples"][task] if name in sample]
        value = float(found["results"][task][metric])
        results.append(TaskResult(task=task, system="", metric=name, value=round(value, 6), rows=len(samples)))
        rows += samples
    return Tasks(results=tuple(results), rows=tuple(rows))


def _main_metric(result: dict[str, Any]) -> str:
    """The first of the task's metrics, as `name,filter`."""
    return next(name for name in result if "," in name and "_stderr," not in name)


def _manager(place: Path, plan: BenchmarkPlan) -> Any:  # noqa: ANN401 - lm_eval's
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(place), include_defaults=plan.download)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file()) if directory.is_dir() else []


@contextlib.contextmanager
def _workplace(directory: Path) -> Iterator[Path]:
    """The tasks' files in a directory of their own, which is the current one: their paths are relative to it.

    A ConfigMap's mount holds every file twice, once below a hidden directory.
    """
    with tempfile.TemporaryDirectory(prefix="tasks-") as name:
        for path in _files(directory):
            shutil.copy(path, name)
        with contextlib.chdir(name):
            yield Path(name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval tells every request; only its warnings matter here."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
