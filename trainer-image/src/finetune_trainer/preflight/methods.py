"""What a method holds beside the model that it trains: sequences of a row, references, reward models, answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune_contract.base import StoredReference
from finetune_contract.methods import Method
from finetune_contract.training import TrainingPlan
from finetune_store.store import Store
from finetune_trainer.preflight.dryrun import Inventory
from finetune_trainer.preflight.heads import Head


@dataclass(frozen=True)
class Kind:
    """What one row of a method becomes in a forward pass."""

    head: Head
    learnt: int = 1
    """Sequences that have gradients."""
    counted: int = 1
    """Sequences that the trainer reckons with when it chooses a micro batch."""
    looked_at: int = 0
    """Sequences that are computed without gradients, by the model or its reference: time, and what one pass takes."""


_PAIR = Kind(Head.TILED, learnt=2, counted=2, looked_at=2)

KINDS = {
    Method.SFT: Kind(Head.SUPERVISED),
    Method.CPT: Kind(Head.SUPERVISED),
    Method.DPO: _PAIR,
    # The row and, with a neighbour's answer, its comparison: the reference reads both, the model reads the second too.
    Method.KTO: Kind(Head.TILED, learnt=1, counted=2, looked_at=3),
    Method.REWARD: Kind(Head.SCORE, learnt=2, counted=2),
    Method.GRPO: Kind(Head.TILED),
    Method.RLOO: Kind(Head.TILED),
}
"""Methods whose memory is predicted. ORPO's and SimPO's trainers, experimental in TRL, hold all logits several times;
what a teacher's probabilities take in Distillation has not been looked into."""


def kind_of(plan: TrainingPlan) -> Kind:
    """What one row becomes under a plan's own settings."""
    kind = KINDS[plan.method]
    if plan.online and plan.online.beta:
        return Kind(kind.head, looked_at=1)
    return kind


def mask_bytes(kind: Kind, rows: int, length: int, *, on_gpu: bool, layers: int) -> int:
    """Padded rows have a mask of length x length; torch's attention makes numbers of it in each layer that it keeps."""
    if kind.head is Head.SUPERVISED:
        return 0
    number = 2 if on_gpu else 4
    return rows * kind.learnt * length * length * (1 + number * layers)


def beside_bytes(plan: TrainingPlan, store: Store, whole: Inventory, *, on_gpu: bool) -> int:
    """What the reference and reward models take, all the time.

    Args:
        plan: Its method and settings.
        store: Where the reward models are.
        whole: What the model takes that is trained.
        on_gpu: Models that are not trained are held in bf16 there, in fp32 on CPU.
    """
    number = 2 if on_gpu else 4
    found = 0
    if kind_of(plan).looked_at and plan.adapter is None:
        found += whole.parameters * number
    elif kind_of(plan).looked_at and plan.start is not None:
        found += whole.gradients  # the adapter as it was
    for each in plan.online.rewards if plan.online else ():
        found += _parameters(each.model, store) * number if each.model else 0
    return found


def answering_bytes(config: Any, rows: int, prompt: int, answer: int, *, on_gpu: bool) -> int:  # noqa: ANN401
    """What is held when answers are written: keys and values of all layers, and the next token's logits.

    Args:
        config: transformers' configuration of the model.
        rows: Answers that are written at once.
        prompt: Tokens of the longest prompt.
        answer: Tokens of an answer, at most.
        on_gpu: Keys and values are in bf16 there.
    """
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    cache = 2 * text.num_hidden_layers * heads * width * (prompt + answer) * (2 if on_gpu else 4)
    # In fp32: as they are, after temperature, as probabilities.
    logits = 3 * text.vocab_size * 4
    return int(rows * (cache + logits))


def _parameters(reference: StoredReference, store: Store) -> int:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    directory: Path = store.without_weights(reference)
    config = AutoConfig.from_pretrained(str(directory), local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    return int(model.num_parameters())
