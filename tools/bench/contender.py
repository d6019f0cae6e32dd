"""One contender on CPU in a process of its own: `python -m tools.bench.contender NAME DIRECTORY SEED`.

    ours           `python -m finetune_trainer train`: our plan, packs, attention and loss
    trl_default    plain `SFTTrainer`, padded batches
    trl_packing    `SFTTrainer` with `packing=True`

All see the same rows once, in fp32, without activation checkpointing, about 4,096 tokens per optimiser step. What
differs is how rows become batches and how these are computed. `Trainer.train()` is timed, in seconds and CPU seconds.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_contract.base import StoredReference
from finetune_contract.datasets import RowFormat
from finetune_contract.manifest import StoredKind
from finetune_store.store import Store
from finetune_trainer.train.surroundings import prepare_environment

LEARNING_RATE = 3e-3
PACK = 1024
"""Tokens of a pack, and TRL's default `max_length`; no row is longer."""
PACKS_PER_STEP = 4
CLAIM = "bench"


class Clock:
    """What `Trainer.train()` takes, whoever calls it."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def install(self) -> None:
        """Measure from now on."""
        from transformers import Trainer

        train = Trainer.train

        def timed(trainer: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - transformers has no types
            wall, cpu = time.monotonic(), time.process_time()
            done = train(trainer, *args, **kwargs)
            self.figures = {
                "seconds": time.monotonic() - wall,
                "cpu_seconds": time.process_time() - cpu,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "steps": trainer.state.global_step,
            }
            return done

        Trainer.train = timed


def rows_of(directory: Path, split: str) -> list[dict[str, str]]:
    """The rows that the parent wrote."""
    return [json.loads(line) for line in (directory / f"{split}.jsonl").read_text().splitlines()]


def ours(directory: Path, seed: int) -> tuple[Path, int]:
    """Our training command; answers the model's directory and the tokens trained on."""
    from finetune_contract.methods import Method
    from finetune_contract.results import TrainingResult
    from finetune_contract.training import Hyperparameters, TrainingPlan
    from finetune_trainer.__main__ import main

    root = directory / f"store-{seed}"
    root.mkdir()
    store = Store(root, CLAIM)
    settings = Hyperparameters(
        epochs=1,
        learning_rate=LEARNING_RATE,
        global_batch_size=PACKS_PER_STEP,
        max_length=PACK,
        packing=True,
        seed=seed,
    )
    plan = TrainingPlan(
        name="bench", namespace="bench", run_key=f"seed-{seed}", attempt=1, method=Method.SFT, hyperparameters=settings,
        base=_published_base(store, directory), dataset=_published_rows(store, directory), claim=CLAIM,
    )  # fmt: skip
    scratch = directory / f"scratch-{seed}"
    scratch.mkdir()
    (scratch / "plan.json").write_text(plan.to_json())
    code = main(
        ["train", f"--plan={scratch / 'plan.json'}", f"--store={store.root}", f"--scratch={scratch}",
         f"--termination-log={scratch / 'result.json'}", "--port=0"]
    )  # fmt: skip
    result = TrainingResult.model_validate_json((scratch / "result.json").read_text())
    assert code == 0, result.failure
    assert result.artifact is not None
    assert (result.truncated_tokens, result.dropped_rows) == (0, 0)
    return store.path(StoredReference(digest=result.artifact.digest, uri=result.artifact.uri)), result.tokens


def _published_base(store: Store, directory: Path) -> StoredReference:
    with store.workspace(StoredKind.MODEL) as workspace:
        for file in (directory / "base").iterdir():
            (workspace / file.name).write_bytes(file.read_bytes())
        return store.publish(StoredKind.MODEL, workspace, {})


def _published_rows(store: Store, directory: Path) -> StoredReference:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    with store.workspace(StoredKind.DATASET) as workspace:
        parquet.write_table(pa.Table.from_pylist(rows_of(directory, "train")), workspace / "train.parquet")
        return store.publish(StoredKind.DATASET, workspace, {"format": RowFormat.PROMPT_COMPLETION.value})


def trl(directory: Path, seed: int, *, packing: bool) -> tuple[Path, int]:
    """SFTTrainer as its documentation uses it; answers the model's directory and the tokens trained on."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = rows_of(directory, "train")
    tokenizer = AutoTokenizer.from_pretrained(directory / "base")
    lengths = [len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) + 1 for row in rows]
    # Three forward passes per step, of about as many rows as TRL's default of eight; packs one by one, because the mask
    # that keeps documents apart grows with the square of what is computed at once.
    rows_per_pass = max(1, round(PACKS_PER_STEP * PACK * len(rows) / sum(lengths) / 3))
    config = SFTConfig(
        output_dir=str(directory / f"trl-{packing}-{seed}"), num_train_epochs=1, learning_rate=LEARNING_RATE,
        per_device_train_batch_size=1 if packing else rows_per_pass,
        gradient_accumulation_steps=PACKS_PER_STEP if packing else 3,
        packing=packing, max_length=PACK, seed=seed, use_cpu=True, bf16=False, activation_checkpointing=False,
        lr_scheduler_type="linear", save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(directory / "base", dtype="float32")
    trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    trainer.save_model()
    return Path(config.output_dir), sum(len(row["input_ids"]) for row in trainer.train_dataset)


def held_out_loss(model_directory: Path, directory: Path) -> float:
    """Mean loss per completion token on the held-out rows, by one code for all contenders."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from finetune_trainer.evaluate.generate import supervised_losses
    from finetune_trainer.train.render import Renderer
    from finetune_trainer.train.sequences import pieces_of

    renderer = Renderer(AutoTokenizer.from_pretrained(directory / "base"), RowFormat.PROMPT_COMPLETION)
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype="float32").eval()
    pieces = [
        piece for row in renderer.tokens(rows_of(directory, "test")) for piece in pieces_of(row, PACK, split_long=False)
    ]
    with torch.inference_mode():
        losses = supervised_losses(model, pieces)
    return math.fsum(loss.total for loss in losses) / sum(loss.tokens for loss in losses)


CONTENDERS: dict[str, Callable[[Path, int], tuple[Path, int]]] = {
    "ours": ours,
    "trl_default": lambda directory, seed: trl(directory, seed, packing=False),
    "trl_packing": lambda directory, seed: trl(directory, seed, packing=True),
}


def main() -> None:
    """Train, evaluate, and write the figures beside the data."""
    name, directory, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    prepare_environment(directory)
    clock = Clock()
    clock.install()
    model, tokens = CONTENDERS[name](directory, seed)
    figures = {**clock.figures, "tokens": tokens, "eval_loss": held_out_loss(model, directory)}
    (directory / f"{name}-{seed}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
