"""What answers are rewarded for: declared functions, and models that a Reward job made."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
from jsonschema.exceptions import ValidationError

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.methods import RewardFunction, RewardPlan
from finetune_store.store import Store
from finetune_trainer.train import reward
from finetune_trainer.train.model import Device, load_tokenizer

Judge = Callable[[Sequence[str], Sequence[Sequence[int]], Sequence[Sequence[int]], Sequence[str]], list[float]]
"""From answers as text, their prompts' tokens, their own tokens, and the wanted answers, to a reward for each."""


def judges_of(plans: Sequence[RewardPlan], store: Store, tokenizer: Any, device: Device) -> list[Judge]:  # noqa: ANN401
    """One judge for each of the plan's rewards, unweighted.

    Raises:
        FineTuneError: InvalidPlan for a pattern or schema that is none; StorageUnavailable, TokenizerMismatch.
    """
    return [_judge(at, plan, store, tokenizer, device) for at, plan in enumerate(plans)]


def _judge(at: int, plan: RewardPlan, store: Store, tokenizer: Any, device: Device) -> Judge:  # noqa: ANN401
    if plan.model is not None:
        return _model(at, plan, store, tokenizer, device)
    if plan.function is RewardFunction.EXACT_MATCH:
        return lambda texts, _prompts, _ids, wanted: [
            float(text.strip() == answer.strip()) for text, answer in zip(texts, wanted, strict=True)
        ]
    if plan.function is RewardFunction.LENGTH:
        low, high = plan.min_tokens, plan.max_tokens
        return lambda _texts, _prompts, ids, _wanted: [
            float(low <= len(each) and (high is None or len(each) <= high)) for each in ids
        ]
    if plan.function is RewardFunction.REGEX:
        passes = has_match(plan.pattern, f"rewards[{at}].regex.pattern")
    else:
        passes = fits_schema(plan.json_schema, f"rewards[{at}].jsonSchema.schema")
    return lambda texts, _prompts, _ids, _wanted: [float(passes(text)) for text in texts]


def has_match(pattern: str | None, path: str) -> Callable[[str], bool]:
    """Whether a regular expression finds a match in a text.

    Raises:
        FineTuneError: InvalidPlan, naming the path, for a pattern that is none.
    """
    try:
        compiled = re.compile(pattern or "")
    except re.error as error:
        raise _invalid(f"{path}: {pattern!r} is no regular expression: {error}") from error
    return lambda text: compiled.search(text) is not None


def fits_schema(text: str | None, path: str) -> Callable[[str], bool]:
    """Whether a text is JSON and fits a schema.

    Raises:
        FineTuneError: InvalidPlan, naming the path, for a schema that is none.
    """
    try:
        schema = json.loads(text or "")
        Draft202012Validator.check_schema(schema)
    except (ValueError, SchemaError) as error:
        raise _invalid(f"{path}: is no JSON schema: {str(error).splitlines()[0]}") from error
    validator = Draft202012Validator(schema)

    def passes(answer: str) -> bool:
        try:
            validator.validate(json.loads(answer))
        except (ValueError, ValidationError, RecursionError):
            return False
        return True

    return passes


def _model(at: int, plan: RewardPlan, store: Store, tokenizer: Any, device: Device) -> Judge:  # noqa: ANN401
    assert plan.model is not None
    directory = store.verify(plan.model)
    theirs = load_tokenizer(directory)
    if theirs.get_vocab() != tokenizer.get_vocab():
        raise FineTuneError(
            FailureReason.TOKENIZER_MISMATCH,
            f"rewards[{at}].fineTuneJob: the reward model has another vocabulary than the model that is trained; "
            "train it on a base of the same family",
        )
    model = reward.load(directory, device.dtype(trained=False), device).eval().requires_grad_(requires_grad=False)

    def judge(
        _texts: Sequence[str], prompts: Sequence[Sequence[int]], ids: Sequence[Sequence[int]], _wanted: Sequence[str]
    ) -> list[float]:
        whole = [[*prompt, *answer] for prompt, answer in zip(prompts, ids, strict=True)]
        return reward.rewards_of(model, whole, tokenizer.pad_token_id)

    return judge


def _invalid(message: str) -> FineTuneError:
    return FineTuneError(FailureReason.INVALID_PLAN, message)
