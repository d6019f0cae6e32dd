"""How far a predicted peak is from the measured one, on CPU: `python -m tools.bench.preflight`.

Random Llamas of several sizes, trained for some steps by the trainer's own command in a process of its own; its peak is
the process's resident memory. The preflight of the same plan predicts it without training. GPUs count otherwise (their
allocator reserves, kernels differ): this shows the bookkeeping, not a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from finetune_contract.base import StoredReference
from finetune_contract.datasets import RowFormat
from finetune_contract.manifest import StoredKind
from finetune_contract.methods import Method, OnlinePlan, RewardFunction, RewardPlan
from finetune_contract.preflight import PreflightPlan, PreflightResult
from finetune_contract.results import TrainingResult
from finetune_contract.training import Hyperparameters, LoraPlan, TrainingPlan, ValidationPlan
from finetune_store.store import Store
from tools.bench.contender import CLAIM, PACK
from tools.bench.corpus import pairs
from tools.console import exit_on_failure, say
from tools.demo.make_base import train_tokenizer
from tools.paths import LOCAL

ROWS = 60
PAIRED = (Method.DPO, Method.KTO, Method.REWARD)
ONLINE = OnlinePlan(
    rewards=(RewardPlan(function=RewardFunction.LENGTH, max_tokens=4),), generations=4, max_completion_length=64
)
LORA = LoraPlan(rank=16, alpha=32, dropout=0.0)


@dataclass(frozen=True)
class Case:
    """A model and what is trained of it."""

    title: str
    hidden: int
    layers: int
    adapter: LoraPlan | None
    method: Method = Method.SFT


CASES = (
    Case("0.6 M, full", 64, 2, None),
    Case("25 M, full", 512, 6, None),
    Case("25 M, LoRA", 512, 6, LORA),
    Case("117 M, full", 1024, 8, None),
    Case("117 M, LoRA", 1024, 8, LORA),
    Case("25 M, full, DPO", 512, 6, None, Method.DPO),
    Case("25 M, LoRA, DPO", 512, 6, LORA, Method.DPO),
    Case("25 M, LoRA, KTO", 512, 6, LORA, Method.KTO),
    Case("25 M, LoRA, Reward", 512, 6, LORA, Method.REWARD),
    Case("25 M, LoRA, GRPO", 512, 6, LORA, Method.GRPO),
)
"""`CASES=DPO` in the environment takes those with the word in their title."""


def publish_base(store: Store, case: Case) -> StoredReference:
    """A random Llama beside a tokenizer for docstrings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with store.workspace(StoredKind.MODEL) as directory:
        tokenizer = train_tokenizer([row.prompt + row.completion for row in pairs(ROWS)], directory)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=case.hidden, intermediate_size=7 * case.hidden // 2,
            num_hidden_layers=case.layers, num_attention_heads=case.hidden // 32, num_key_value_heads=case.hidden // 64,
            max_position_embeddings=PACK, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None, tie_word_embeddings=True,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(directory)
        return store.publish(StoredKind.MODEL, directory, {})


def publish_rows(store: Store, method: Method) -> StoredReference:
    """Docstrings under their headers; of preferences the better ones, beside the docstring of something else."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    found = pairs(ROWS)
    rows: list[dict[str, str]] = [row._asdict() for row in found]
    row_format = RowFormat.PROMPT_COMPLETION
    if method in PAIRED:
        others = [*found[1:], found[0]]
        rows = [
            {"prompt": row.prompt, "chosen": row.completion, "rejected": other.completion}
            for row, other in zip(found, others, strict=True)
        ]
        row_format = RowFormat.PREFERENCE
    with store.workspace(StoredKind.DATASET) as workspace:
        parquet.write_table(pa.Table.from_pylist(rows), workspace / "train.parquet")
        return store.publish(StoredKind.DATASET, workspace, {"format": row_format.value})


def command(name: str, plan: TrainingPlan | PreflightPlan, store: Store, directory: Path) -> bytes:
    """What a command of the trainer leaves."""
    scratch = Path(tempfile.mkdtemp(dir=directory))
    (scratch / "plan.json").write_text(plan.to_json())
    argv = [
        sys.executable, "-W", "ignore", "-m", "finetune_trainer", name, f"--plan={scratch / 'plan.json'}",
        f"--store={store.root}", f"--scratch={scratch}", f"--termination-log={scratch / 'result.json'}",
        *(["--port=0"] if name == "train" else []),
    ]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return (scratch / "result.json").read_bytes()


def main() -> None:
    """Predict, train, compare."""
    table = Table(title="Peak of the training process on CPU")
    for title in ("model", "predicted MB", "measured MB", "predicted / measured"):
        table.add_column(title, justify="right" if table.columns else "left")
    rows = []
    for number, case in enumerate(case for case in CASES if os.environ.get("CASES", "") in case.title):
        with tempfile.TemporaryDirectory(prefix="bench-preflight-") as scratch:
            directory = Path(scratch)
            (directory / "store").mkdir()
            store = Store(directory / "store", CLAIM)
            plan = TrainingPlan(
                name="bench", namespace="bench", run_key=f"case-{number}", attempt=1, method=case.method,
                base=publish_base(store, case), dataset=publish_rows(store, case.method), adapter=case.adapter,
                claim=CLAIM, online=ONLINE if case.method is Method.GRPO else None,
                hyperparameters=Hyperparameters(
                    epochs=2 if case.method is Method.SFT else 0.5, learning_rate=1e-3, global_batch_size=4,
                    max_length=PACK, packing=True,
                ),
                validation=ValidationPlan(max_rows=0), truncated_share=1.0,
            )  # fmt: skip
            asked = PreflightPlan(training=plan, on_gpu=False)
            said = PreflightResult.model_validate_json(command("preflight", asked, store, directory))
            done = TrainingResult.model_validate_json(command("train", plan, store, directory))
        assert said.predicted_peak_bytes is not None
        assert done.peak_memory_bytes is not None
        predicted, measured = said.predicted_peak_bytes / 1e6, done.peak_memory_bytes / 1e6
        say(f"  {case.title}: predicted {predicted:.0f} MB, measured {measured:.0f} MB")
        table.add_row(case.title, f"{predicted:,.0f}", f"{measured:,.0f}", f"{predicted / measured:.2f}")
        name = case.title.lower().replace(" ", "_").replace(",", "").replace(".", "_")
        rows.append({"name": f"predicted_to_measured_{name}", "value": round(predicted / measured, 3), "unit": "ratio"})
    Console().print(table)
    (LOCAL / "bench").mkdir(parents=True, exist_ok=True)
    (LOCAL / "bench" / "preflight.json").write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    exit_on_failure(main)
