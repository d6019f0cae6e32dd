"""`make bench-batches`: a shard whose prompts begin alike, with what they begin with read once, and read for each.

Random models of two sizes below a LoRA adapter, in one process; both ways take turns. On CPU unless there is a GPU.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from finetune_trainer.train.surroundings import prepare_environment
from tools.bench import figures
from tools.bench.corpus import pairs
from tools.bench.figures import Row
from tools.bench.serving.shop import MODELS, RANK, MakeModel
from tools.console import exit_on_failure, say
from tools.demo.make_base import train_tokenizer

INSTRUCTION = 300
"""Tokens that all prompts begin with."""
QUESTION = range(20, 41)
"""Tokens of their own."""
ANSWER = 16
ROWS, ROUNDS = {"demo": 200, "llama": 64}, {"demo": 7, "llama": 2}


def loaded(make: MakeModel, directory: Path) -> Any:  # noqa: ANN401 - needs torch
    """A model with an adapter, as a batch pod loads it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from finetune_server.model import BASE, Served, load

    base, adapter = directory / "base", directory / "adapter"
    base.mkdir(parents=True)
    make(train_tokenizer([pair.completion for pair in pairs(500)], base), base)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    model.save_pretrained(adapter)
    return load([Served("base", BASE, str(base)), Served("tuned", "adapter", str(adapter))])


def asks(rows: int, instruction: int) -> list[Any]:
    """Requests that begin alike."""
    from finetune_batch.asking import Ask
    from finetune_batch.items import Item
    from finetune_server import openai_shape as shape
    from finetune_server.requests import GenerationRequest

    draw = random.Random(0)
    begun = draw.choices(range(100, 3000), k=instruction)
    prompts = [[*begun, *draw.choices(range(100, 3000), k=draw.choice(QUESTION))] for _ in range(rows)]
    return [
        Ask(Item(at, ""), GenerationRequest("tuned", "adapter", prompt, ANSWER), shape.Completion(logprobs=False))
        for at, prompt in enumerate(prompts)
    ]


def measured(model: Any, wanted: list[Any], rounds: int) -> list[tuple[float, float, float, float]]:  # noqa: ANN401
    """Seconds and processor seconds read for each and read once, of each round."""
    from finetune_batch.answering import Batches

    found = []
    for number in range(rounds + 1):
        taken: list[float] = []
        said: list[dict[int, list[int]]] = []
        for shares in (False, True):
            batches = Batches(model)
            batches.shares = shares
            wall, cpu = time.monotonic(), time.process_time()
            # The first warms up.
            part = wanted if number else wanted[:16]
            said.append({at: [token.id for token in tokens] for at, tokens in batches.answer(part)})
            taken += [time.monotonic() - wall, time.process_time() - cpu]
        assert said[0] == said[1]
        if number:
            found.append((taken[0], taken[1], taken[2], taken[3]))
    return found


def main() -> None:
    """Measure and report."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-batches-") as name:
        prepare_environment(Path(name))
        for kind, make in MODELS.items():
            model = loaded(make, Path(name, kind))
            say(f"  {kind}: {ROWS[kind]} rows after {INSTRUCTION} tokens")
            turns = measured(model, asks(ROWS[kind], INSTRUCTION), ROUNDS[kind])
            each, each_cpu, once, once_cpu = (statistics.median(column) for column in zip(*turns, strict=True))
            rows += [
                Row(f"{kind}_read_for_each_s", round(each, 2), "s"),
                Row(f"{kind}_read_once_s", round(once, 2), "s"),
                Row(f"{kind}_read_for_each_cpu_s", round(each_cpu, 2), "s of processor time"),
                Row(f"{kind}_read_once_cpu_s", round(once_cpu, 2), "s of processor time"),
            ]
            ratios = statistics.median(turn[1] / turn[3] for turn in turns)
            rows.append(Row(f"{kind}_ratio", round(ratios, 2), "times less processor time"))
    figures.report("batches", rows)


if __name__ == "__main__":
    exit_on_failure(main)
