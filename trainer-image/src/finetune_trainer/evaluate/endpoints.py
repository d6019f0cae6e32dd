"""Baselines behind an OpenAI-compatible endpoint: the same rows as conversations, their answers as text."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from finetune_contract.evaluating import EndpointPlan
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.instructions import Stripped
from finetune_trainer.evaluate.asking import Endpoint, Settings, Turns


def conversation(row: Mapping[str, Any], instruction: Stripped | None, system_prompt: str | None) -> Turns:
    """What an endpoint is asked for a row.

    Args:
        row: As the dataset revision has it.
        instruction: What was cut off the rows: it goes back where no system prompt stands for it.
        system_prompt: Said instead of the row's own system turn.
    """
    whole = instruction.restored(dict(row)) if instruction and system_prompt is None else row
    if "messages" not in whole:
        turns = [{"role": "user", "content": whole["prompt"] if "prompt" in whole else whole["text"]}]
    else:
        last = max(at for at, turn in enumerate(whole["messages"]) if turn["role"] == "assistant")
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in whole["messages"][:last]]
    if system_prompt is None:
        return turns
    return [{"role": "system", "content": system_prompt}, *(turn for turn in turns if turn["role"] != "system")]


def endpoint_of(name: str, plan: EndpointPlan, max_tokens: int) -> Endpoint:
    """Where a baseline is asked; a context that closes its connections."""
    return Endpoint(
        Settings(
            path=f"evaluation.namedBaselines[{name}].endpoint",
            url=plan.url,
            model=plan.model,
            key_variable=plan.key_variable,
            max_tokens=max_tokens,
            concurrency=plan.concurrency,
            timeout_seconds=plan.timeout_seconds,
            retries=plan.retries,
        )
    )


def answers_of(name: str, plan: EndpointPlan, endpoint: Endpoint, conversations: Sequence[Turns]) -> list[str]:
    """The endpoint's answer to each conversation.

    Raises:
        FineTuneError: EvaluationFailed where one stays without an answer: a comparison needs the same rows.
    """
    given_up = threading.Event()

    def answer(turns: Turns) -> str:
        if given_up.is_set():
            return ""
        try:
            return asked(turns)
        except FineTuneError:
            given_up.set()
            raise

    def asked(turns: Turns) -> str:
        found = endpoint.ask(turns, lambda words: words, "answer")
        if found is None:
            raise FineTuneError(
                FailureReason.EVALUATION_FAILED,
                f"evaluation.namedBaselines[{name}].endpoint: {plan.url} ({plan.model}) left a row without an answer "
                f"after {plan.retries} retries; the last: {endpoint.last_trouble}; the artifact is kept",
            )
        return found

    pool = ThreadPoolExecutor(plan.concurrency)
    try:
        return list(pool.map(answer, conversations))
    finally:
        pool.shutdown(cancel_futures=True)
