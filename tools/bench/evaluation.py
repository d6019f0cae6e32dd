"""`make bench-evaluation`: answers in batches against one by one, and whole evaluations of 200 rows and four systems.

The model is the demo's, untrained; the rows are the trainer benchmark's. On CPU unless there is a GPU.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from finetune_contract.base import StoredReference
from finetune_contract.datasets import RowFormat
from finetune_contract.manifest import StoredKind
from finetune_contract.methods import Method
from finetune_contract.training import ReevaluationPlan, TrainingPlan
from finetune_store.store import Store
from finetune_trainer.train.surroundings import prepare_environment
from tools.bench import figures
from tools.bench.corpus import pairs
from tools.bench.figures import Row
from tools.console import exit_on_failure, say
from tools.demo.make_base import make_model, train_tokenizer

ROWS, TRAIN = 200, 300
NEW_TOKENS = 32
PROMPTS = 32
"""Prompts that are answered in both ways."""
BATCH = 16
ROUNDS = 5
CLAIM = "bench"
SYSTEMS = ["ZeroShot", "FewShot", "Previous"]


def fill(store: Store) -> tuple[StoredReference, StoredReference]:
    """A base model and rows of it."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rows = pairs(TRAIN + 2 * ROWS)
    with store.workspace(StoredKind.MODEL) as directory:
        tokenizer = train_tokenizer([row.prompt + row.completion for row in rows], directory)
        make_model(tokenizer, directory)
        base = store.publish(StoredKind.MODEL, directory, {})
    fitting = [row._asdict() for row in rows if len(tokenizer.tokenize(row.prompt)) < 128]
    with store.workspace(StoredKind.DATASET) as directory:
        for split, part in (("test", fitting[:ROWS]), ("train", fitting[ROWS:])):
            parquet.write_table(pa.Table.from_pylist(part), directory / f"{split}.parquet")
        dataset = store.publish(StoredKind.DATASET, directory, {"format": RowFormat.PROMPT_COMPLETION.value})
    return base, dataset


def plan_of(base: StoredReference, dataset: StoredReference, key: str, **evaluation: Any) -> TrainingPlan:  # noqa: ANN401
    """A LoRA adapter of a few steps, measured as asked."""
    document = {
        "name": "bench",
        "namespace": "bench",
        "run_key": key,
        "attempt": 1,
        "method": Method.SFT,
        "base": base,
        "dataset": dataset,
        "adapter": {"rank": 8, "alpha": 16, "dropout": 0.0},
        "hyperparameters": {"epochs": 0.1, "learning_rate": 1e-3, "global_batch_size": 8, "seed": ord(key[0])},
        "evaluation": evaluation,
        "claim": CLAIM,
    }
    return TrainingPlan.model_validate(document)


def trained(store: Store, plan: TrainingPlan) -> StoredReference:
    """The artifact of a plan."""
    from finetune_trainer.progress import ProgressBoard
    from finetune_trainer.stop import Stop
    from finetune_trainer.timings import Stopwatch
    from finetune_trainer.train.attempt import Attempt
    from finetune_trainer.train.recipe import run

    attempt = Attempt(plan, "bench", ProgressBoard(plan.run_key, 1), Stop(), Stopwatch())
    result = run(attempt, store.root)
    assert result is not None
    assert result.artifact is not None
    return StoredReference(digest=result.artifact.digest, uri=result.artifact.uri)


def speeds(store: Store, plan: TrainingPlan, artifact: StoredReference) -> tuple[float, float]:
    """Tokens written per second in batches, and one by one; medians of some rounds, which take turns."""
    from finetune_trainer.evaluate.generate import greedy_answers
    from finetune_trainer.evaluate.heldout import held_out
    from finetune_trainer.evaluate.systems import Systems
    from finetune_trainer.train.workbench import open_workbench

    bench = open_workbench(plan, store)
    prompts = [bench.renderer.prompt_ids(each) for each in held_out(plan, bench).examples[:PROMPTS]]
    stops = bench.renderer.stop_ids()
    found: dict[int, list[float]] = {BATCH: [], 1: []}
    with Systems(plan, bench, store.path(artifact)).model("Tuned") as model:
        for _ in range(ROUNDS):
            for size, values in found.items():
                began = time.monotonic()
                answers = greedy_answers(model, prompts, NEW_TOKENS, stops, batch_rows=size)
                values.append(sum(len(each.ids) for each in answers) / (time.monotonic() - began))
    return statistics.median(found[BATCH]), statistics.median(found[1])


def measured(store: Store, plan: TrainingPlan, artifact: StoredReference) -> tuple[float, float]:
    """Seconds of one evaluation, and of processor time, from its plan to its report; libraries are loaded."""
    from finetune_trainer.evaluate.main import reevaluate

    began, used = time.monotonic(), time.process_time()
    result = reevaluate(ReevaluationPlan(training=plan, artifact=artifact), store.root)
    assert len({each.system for each in result.evaluation}) == len(SYSTEMS) + 1
    return time.monotonic() - began, time.process_time() - used


def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory(prefix="bench-evaluation-") as name:
        prepare_environment(Path(name))
        store = Store(Path(name), CLAIM)
        base, dataset = fill(store)
        say("  training three adapters of a few steps")
        artifacts = [trained(store, plan_of(base, dataset, key)) for key in ("a1", "b1", "c1")]
        wanted: dict[str, Any] = {
            "metrics": ["EvalLoss", "ExactMatch", "TokenF1", "RougeL"],
            "baselines": SYSTEMS,
            "max_new_tokens": NEW_TOKENS,
            "max_rows": ROWS,
            "previous": artifacts[0],
            "previous_base": base,
        }
        batched, single = speeds(store, plan_of(base, dataset, "b1", **wanted), artifacts[1])
        first = measured(store, plan_of(base, dataset, "b1", **wanted), artifacts[1])
        # The same seed: FewShot shows the same solved rows.
        again = plan_of(base, dataset, "b1", **wanted).model_copy(update={"run_key": "c1"})
        second = measured(store, again, artifacts[2])
    rows = [
        Row("batched_tokens_per_s", round(batched, 1), f"tokens/s at batch {BATCH}"),
        Row("single_tokens_per_s", round(single, 1), "tokens/s"),
        Row("four_systems_200_rows_s", round(first[0], 2), "s"),
        Row("cached_baselines_s", round(second[0], 2), "s"),
        # On a machine that others use, too, only these compare.
        Row("four_systems_200_rows_cpu_s", round(first[1], 2), "s of processor time"),
        Row("cached_baselines_cpu_s", round(second[1], 2), "s of processor time"),
    ]
    figures.report("evaluation", rows)
    say(f"  batches of {BATCH} answer {batched / single:.1f} times as fast as one by one")


if __name__ == "__main__":
    exit_on_failure(main)
