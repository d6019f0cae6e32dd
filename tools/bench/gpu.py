"""An 8 B model on one GPU: `python -m tools.bench.gpu DIRECTORY`.

The shape of Llama 3.1 8B with random weights, LoRA r16 on all linear layers, bf16, packs of 4,096 tokens filled with
docstrings of mixed lengths, two packs per optimiser step.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path

from finetune_trainer.train.surroundings import prepare_environment

PACK = 4096
PACKS_PER_STEP = 2
STEPS = 40
LLAMA_3_1_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
}
"""config.json of meta-llama/Llama-3.1-8B, with a shorter context."""


def is_there() -> bool:
    """Whether this machine has a GPU that torch can use."""
    import torch

    return bool(torch.cuda.is_available())


def main() -> None:
    """Train some steps with our trainer and write the figures."""
    directory = Path(sys.argv[1])
    prepare_environment(directory)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PrinterCallback

    from finetune_contract.datasets import RowFormat
    from finetune_contract.training import Hyperparameters, LoraPlan
    from finetune_trainer.progress import ProgressBoard
    from finetune_trainer.train.adapters import attach
    from finetune_trainer.train.attention import SEGMENTED, register
    from finetune_trainer.train.batching import BatchPlan
    from finetune_trainer.train.callbacks import Guard, Reporting, TokenClock
    from finetune_trainer.train.memory import peak_memory
    from finetune_trainer.train.meters import Meter
    from finetune_trainer.train.model import Device
    from finetune_trainer.train.order import GlobalBatches
    from finetune_trainer.train.ranks import ALONE
    from finetune_trainer.train.render import Renderer
    from finetune_trainer.train.sequences import build_training_data
    from finetune_trainer.train.trainer import PackedTrainer, build_config

    register()
    tokenizer = AutoTokenizer.from_pretrained(directory / "base")
    renderer = Renderer(tokenizer, RowFormat.PROMPT_COMPLETION)
    rows = [json.loads(line) for line in (directory / "train.jsonl").read_text().splitlines()]
    settings = Hyperparameters(
        epochs=1, learning_rate=1e-4, global_batch_size=PACKS_PER_STEP, max_length=PACK, packing=True
    )
    needed = PACK * PACKS_PER_STEP * STEPS
    tokens = renderer.tokens(rows)
    tokens = random.Random(0).choices(tokens, k=2 * needed * len(tokens) // sum(len(row.ids) for row in tokens))
    data = build_training_data(tokens, settings, PACK, 0.0, split_long=False)
    with torch.device("cuda"):
        config = LlamaConfig(**LLAMA_3_1_8B, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    base.set_attn_implementation(SEGMENTED)
    model = attach(base, LoraPlan(rank=16, alpha=32, dropout=0.0), start=None)
    batches = BatchPlan(PACKS_PER_STEP, 1)
    meter, clock = Meter.of(model), TokenClock()
    with tempfile.TemporaryDirectory() as output:
        arguments = build_config(
            settings, output_dir=output, total_steps=STEPS, batches=batches, device=Device("cuda"),
            packed_attention=True, recomputes=True,
        )  # fmt: skip
        trainer = PackedTrainer(
            order=GlobalBatches(len(data.dataset), settings.global_batch_size, batches, ALONE, settings.seed),
            ranks=ALONE, clock=clock, model=model, args=arguments, train_dataset=data.dataset,
            processing_class=tokenizer,
            callbacks=[Guard(), Reporting(ProgressBoard("bench", 1), clock, meter)],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    figures = [
        ("gpu_useful_tokens_per_s", meter.tokens_per_second, "tokens/s"),
        ("gpu_mfu", meter.mfu, "share"),
        ("gpu_peak_gb", round(peak_memory() / 1e9, 1), "GB"),
        ("gpu_name", torch.cuda.get_device_name(), ""),
    ]
    rows_out = [{"name": name, "value": value, "unit": unit} for name, value, unit in figures if value is not None]
    (directory / "gpu.json").write_text(json.dumps(rows_out))


if __name__ == "__main__":
    main()
