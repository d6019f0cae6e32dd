"""A whole model of an adapter: merged into a freshly loaded 16-bit base, and compared before anybody gets it.

A low-rank change may be smaller than half the last bit of a 16-bit weight, and is lost then without an error. So what
was written is read again and asked the artifact's own probe prompts, beside base and adapter.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import PROBE_FILE
from finetune_contract.results import Probe
from finetune_trainer.export.artifact import copy_tokenizer
from finetune_trainer.train.model import CPU, load_model, load_tokenizer, stored_dtype

log = logging.getLogger(__name__)

LIMIT = 0.05
"""Nats per token by which a merged model may differ from base and adapter: far above what rounding does."""

_SHARE = 0.25
"""Of what the adapter changes, the share that merging may lose."""

_ROUNDING = 0.002
"""Nats per token that 16-bit weights differ by in any case: an adapter that changes less cannot be judged."""

_PLAIN_PROMPT = "The quick brown fox jumps over the lazy dog."
"""For an artifact without a probe."""


@dataclass(frozen=True)
class Difference:
    """Mean Kullback-Leibler divergences over the tokens of the probe prompts, in nats."""

    merged: float
    """Of the merged model from base and adapter."""
    base: float
    """Of the base alone from base and adapter: what the adapter does."""

    @property
    def limit(self) -> float:
        """How far the merged model may be off."""
        return min(LIMIT, max(_ROUNDING, _SHARE * self.base))

    def check(self, path: str) -> None:
        """Refuse a merged model that does not answer like base and adapter; `path` is the field that asked for it.

        Raises:
            FineTuneError: ExportFailed, with both numbers.
        """
        if not self.merged <= self.limit:
            raise FineTuneError(
                FailureReason.EXPORT_FAILED,
                f"{path}: the merged model differs by {self.merged:.4g} nats per token from base and adapter, "
                f"and {self.limit:.4g} are allowed (the adapter itself changes {self.base:.4g}): its change is too "
                "small for 16-bit weights; serve the adapter on its base instead",
            )


def sixteen_bit(base: Path) -> torch.dtype:
    """The precision of a merged model: its base's where that is one of 16 bits, else bf16."""
    dtype = stored_dtype(base)
    return dtype if dtype in (torch.float16, torch.bfloat16) else torch.bfloat16


def write_merged(base: Path, adapter: Path, directory: Path, path: str = "spec.exports") -> Difference:
    """Merge a published adapter into its base, write the model, read it again and compare.

    Args:
        base: The base model's directory.
        adapter: The artifact's directory: adapter, tokenizer, probe.
        directory: Where the model's files go.
        path: The field that asked for it, for messages.

    Raises:
        FineTuneError: ExportFailed when the merged model answers otherwise than base and adapter.
    """
    from peft import PeftModel

    dtype = sixteen_bit(base)
    prompts = _prompts(adapter)
    model = PeftModel.from_pretrained(load_model(base, dtype, CPU), str(adapter)).eval()
    tuned = _log_probabilities(model, prompts)
    with model.disable_adapter():
        untuned = _log_probabilities(model, prompts)
    merged = model.merge_and_unload()
    merged.config.use_cache = True
    merged.save_pretrained(str(directory))
    copy_tokenizer(adapter, directory)
    del model, merged
    written = _log_probabilities(load_model(directory, dtype, CPU).eval(), prompts)
    difference = Difference(merged=_divergence(tuned, written), base=_divergence(tuned, untuned))
    log.info("merged in %s: differs by %.3g nats per token, the adapter changes %.3g",
             dtype, difference.merged, difference.base)  # fmt: skip
    difference.check(path)
    return difference


def _prompts(adapter: Path) -> list[list[int]]:
    """The tokens of the probe's prompts with the tuned model's answers."""
    tokenizer = load_tokenizer(adapter)
    texts = [_PLAIN_PROMPT]
    path = adapter / PROBE_FILE
    if path.is_file():
        try:
            probe = Probe.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise FineTuneError(FailureReason.CONTRACT_VIOLATION, f"{path}: {error.errors()[0]['msg']}") from error
        texts = [prompt.prompt + prompt.tuned_text for prompt in probe.prompts] or texts
    return [list(tokenizer(text)["input_ids"]) for text in texts]


@torch.inference_mode()
def _log_probabilities(model: Any, prompts: list[list[int]]) -> list[torch.Tensor]:  # noqa: ANN401 - no types
    """Per prompt, of every next token: (tokens, vocabulary)."""
    return [torch.log_softmax(model(input_ids=torch.tensor([prompt])).logits[0].float(), dim=-1) for prompt in prompts]


def _divergence(true: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """KL(true || other), mean over all tokens of all prompts; infinite where one is not finite."""
    per_token = torch.cat([
        (ours.exp() * (ours - theirs)).sum(dim=-1) for ours, theirs in zip(true, other, strict=True)
    ])  # fmt: skip
    mean = float(per_token.mean())
    return max(mean, 0.0) if math.isfinite(mean) else math.inf
