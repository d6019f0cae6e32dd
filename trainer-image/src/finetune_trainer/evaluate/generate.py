"""What a model answers, and how likely it finds the right answer: in batches of like length."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig

from finetune_trainer.openings import Reader, openings
from finetune_trainer.train.sequences import IGNORED

BATCH_TOKENS = 4096
"""Tokens of a batch, padding included; twice as many were a third slower on CPU, where caches are small."""

CACHED_TOKENS = 4 * BATCH_TOKENS
"""Tokens of a batch with those of its opening, whose keys and values every row holds (2 GiB of an 8 B model's)."""

BATCH_LOGITS = 64 * 1024 * 1024
"""Elements of the logits of a batch (256 MiB in fp32)."""

BATCH_ROWS = 64
"""Rows of a batch, where its tokens allow them."""


Ids = Sequence[int] | np.ndarray[Any, np.dtype[np.int32]]
"""Token ids, or labels, of one sequence."""


class Loss(NamedTuple):
    """Summed loss of one row's supervised tokens, in nats, and how many they are."""

    total: float
    tokens: int


class Answer(NamedTuple):
    """A greedy answer without the token that ends it."""

    ids: list[int]
    logprobs: list[float]
    """Of each id, under the model that chose it; empty where they were not asked for."""


class Batch(NamedTuple):
    """Prompts that were answered together."""

    rows: list[int]
    """Which of the prompts they are."""
    ids: torch.Tensor
    """Rows x longest prompt, padded at the left, or behind the opening that they share."""
    mask: torch.Tensor
    """Which of them are no padding."""
    cache: Any
    """Keys and values of prompts and answers, as transformers keeps them."""


def greedy_answers(
    model: Any,  # noqa: ANN401 - transformers has no types
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: Sequence[int],
    *,
    with_logprobs: bool = False,
    batch_rows: int = BATCH_ROWS,
    after_batch: Callable[[Batch], None] | None = None,
) -> list[Answer]:
    """The most likely continuation of each prompt, in the prompts' order.

    Args:
        model: In evaluation mode.
        prompts: Token ids, none of them empty.
        max_new_tokens: Where an answer ends that does not end by itself.
        stop_ids: Tokens that end an answer.
        with_logprobs: Whether to say how likely each token was: keeps the logits of a whole batch.
        batch_rows: Prompts that are answered at once, where their tokens allow it.
        after_batch: Called with each batch that was answered; it may change the batch's cache.
    """
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_ids),
        pad_token_id=stop_ids[0],
        return_dict_in_generate=True,
        output_logits=with_logprobs,
    )
    answers: dict[int, Answer] = {}
    kept = max_new_tokens if with_logprobs else 1
    most_rows = min(batch_rows, BATCH_LOGITS // (kept * model.config.get_text_config().vocab_size) or 1)
    own_settings, model.generation_config = model.generation_config, settings
    try:
        for batch in _prompts_in_batches(model, prompts, max_new_tokens, most_rows, stop_ids[0]):
            out = model.generate(
                input_ids=batch.ids,
                attention_mask=batch.mask,
                generation_config=settings,
                past_key_values=batch.cache,
            )
            chosen = out.sequences[:, batch.ids.shape[1] :].cpu()
            logprobs = _logprobs(out.logits, chosen) if with_logprobs else [[] for _ in batch.rows]
            for row, tokens, values in zip(batch.rows, chosen.tolist(), logprobs, strict=True):
                end = next((at for at, token in enumerate(tokens) if token in stop_ids), len(tokens))
                answers[row] = Answer(tokens[:end], values[:end])
            if after_batch is not None:
                after_batch(batch._replace(cache=out.past_key_values))
    finally:
        model.generation_config = own_settings
    return [answers[row] for row in range(len(prompts))]


def _prompts_in_batches(
    model: Any,  # noqa: ANN401
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    most_rows: int,
    fill: int,
) -> Iterator[Batch]:
    """The prompts, those that begin alike together; their opening is in the cache, which is None without one."""
    for opening in openings(prompts):
        reader = Reader(model, opening)
        begun = len(reader.ids)
        lengths = [len(prompts[row]) - begun + max_new_tokens for row in opening.rows]
        fitting = CACHED_TOKENS // (begun + max(lengths)) if begun else most_rows
        for places in _batches(lengths, max(1, min(most_rows, fitting))):
            rows = [opening.rows[place] for place in places]
            ids, mask = _left_padded([prompts[row][begun:] for row in rows], fill)
            ids = torch.cat([torch.tensor([reader.ids] * len(rows), dtype=torch.long), ids], 1)
            mask = torch.cat([torch.ones(len(rows), begun, dtype=torch.long), mask], 1)
            yield Batch(rows, ids.to(model.device), mask.to(model.device), reader.cache(len(rows)))


def _logprobs(logits: Sequence[torch.Tensor], chosen: torch.Tensor) -> list[list[float]]:
    whole = torch.stack(tuple(logits), dim=1).float().log_softmax(-1).cpu()
    found: list[list[float]] = whole.gather(2, chosen[:, :, None])[..., 0].tolist()
    return found


def supervised_losses(
    model: Any,  # noqa: ANN401
    sequences: Sequence[tuple[Ids, Ids]],
) -> list[Loss]:
    """The loss of each (ids, labels), labels not shifted, in their order."""
    most_tokens = max(1, BATCH_LOGITS // model.config.get_text_config().vocab_size)
    losses: dict[int, Loss] = {}
    for batch in _batches([len(ids) for ids, _ in sequences], BATCH_ROWS, most_tokens):
        ids, mask = _left_padded([sequences[row][0] for row in batch], 0)
        labels, _ = _left_padded([sequences[row][1] for row in batch], IGNORED)
        # Answers are at the end, so only the last positions have to reach the vocabulary.
        first = int((labels != IGNORED).any(0).float().argmax())
        keep = ids.shape[1] - max(first - 1, 0)
        logits = model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0).to(model.device),
            use_cache=False,
            logits_to_keep=keep,
        ).logits
        found = losses_from(logits[:, :-1], labels[:, -keep:][:, 1:].to(model.device))
        losses.update(zip(batch, found, strict=True))
    return [losses[row] for row in range(len(sequences))]


def losses_from(logits: torch.Tensor, labels: torch.Tensor) -> list[Loss]:
    """The summed loss of each row.

    Args:
        logits: Rows x tokens x vocabulary.
        labels: What each of them should have predicted, or IGNORED; rows x tokens.
    """
    learnt = labels != IGNORED
    # Only where there is a label: padding would cost as much, and rows of a vocabulary are contiguous this way.
    each = torch.zeros(labels.shape, dtype=torch.float64, device=labels.device)
    each[learnt] = cross_entropy(logits[learnt].float(), labels[learnt], reduction="none").double()
    return [Loss(*found) for found in zip(each.sum(1).tolist(), learnt.sum(1).tolist(), strict=True)]


def _batches(lengths: Sequence[int], most_rows: int, most_tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Rows, longest first, so that a batch pads little and memory runs out at once or never."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    limit = min(most_tokens, BATCH_TOKENS)
    while order:
        size = max(1, min(most_rows, limit // max(1, lengths[order[0]])))
        yield order[:size]
        order = order[size:]


def _left_padded(rows: Sequence[Ids], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as one tensor, rows x longest, their ends aligned; and the mask of what is not padding."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, width - len(row) :] = torch.tensor(list(row), dtype=torch.long)
        mask[at, width - len(row) :] = 1
    return ids, mask
