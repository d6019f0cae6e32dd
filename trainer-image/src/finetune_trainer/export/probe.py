"""`probe.json`: how to tell that an artifact is really served.

A few held-out prompts, with what the tuned model and its base answer greedily and how sure they are of each token. A
server that loaded the artifact answers like the first; one that silently ignored it answers like the second.
"""

from pathlib import Path
from typing import Any

from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import TUNED, Baseline
from finetune_contract.paths import PROBE_FILE
from finetune_contract.results import Probe, ProbePrompt
from finetune_contract.training import TrainingPlan
from finetune_trainer.evaluate.generate import Answer, greedy_answers
from finetune_trainer.evaluate.systems import Systems
from finetune_trainer.train.render import Example
from finetune_trainer.train.workbench import Workbench

_PROMPTS = 4
_CANDIDATES = 16
"""Prompts that are tried; those on which tuned and base model differ are kept first."""
_TOKENS = 8
_TEXT_PROMPT_TOKENS = 16
"""Of a plain text, the beginning is the prompt."""
_DIGITS = 5
"""Decimals of a log-probability: far below what differs between servers, and the same bytes for the same weights."""


def write_probe(plan: TrainingPlan, bench: Workbench, systems: Systems, directory: Path) -> None:
    """Write `probe.json` into the artifact's directory; without any row there is nothing to ask, and no file."""
    prompts = [prompt for prompt in _prompts(plan, bench) if _ids(bench, prompt)]
    if not prompts:
        return
    base = _answers(bench, systems, Baseline.ZERO_SHOT, prompts)
    tuned = _answers(bench, systems, TUNED, prompts)
    asked = [
        ProbePrompt(
            prompt=prompt,
            tuned_text=bench.tokenizer.decode(ours.ids, skip_special_tokens=True),
            tuned_logprobs=tuple(round(value, _DIGITS) for value in ours.logprobs),
            base_text=bench.tokenizer.decode(theirs.ids, skip_special_tokens=True),
            base_logprobs=tuple(round(value, _DIGITS) for value in theirs.logprobs),
        )
        for prompt, ours, theirs in zip(prompts, tuned, base, strict=True)
    ]
    telling = sorted(asked, key=lambda each: each.tuned_text == each.base_text)
    probe = Probe(prompts=tuple(telling[:_PROMPTS]))
    (directory / PROBE_FILE).write_text(probe.to_json() + "\n", encoding="utf-8")


def _prompts(plan: TrainingPlan, bench: Workbench) -> list[str]:
    """Prompts as a server gets them: it adds the beginning-of-sequence token itself."""
    rows = bench.revision.rows(plan.evaluation.split) or bench.revision.rows("train")
    examples = [bench.renderer.example(row) for row in rows[:_CANDIDATES]]
    if bench.revision.row_format is RowFormat.TEXT:
        return [_beginning(bench, example) for example in examples]
    begin = bench.tokenizer.bos_token or ""
    adds_begin = bool(begin) and bench.tokenizer("")["input_ids"][:1] == [bench.tokenizer.bos_token_id]
    fitting = [each.prompt for each in examples if len(_ids(bench, each.prompt)) + _TOKENS <= bench.context]
    return [prompt.removeprefix(begin) if adds_begin else prompt for prompt in fitting]


def _beginning(bench: Workbench, example: Example) -> str:
    ids = bench.tokenizer(example.answer, add_special_tokens=False)["input_ids"][:_TEXT_PROMPT_TOKENS]
    return str(bench.tokenizer.decode(ids))


def _ids(bench: Workbench, prompt: str) -> list[int]:
    """What a server's tokenizer makes of the prompt."""
    return list(bench.tokenizer(prompt)["input_ids"])


def _answers(bench: Workbench, systems: Systems, system: str, prompts: list[str]) -> list[Answer]:
    """One prompt at a time, as a server would be asked: padding changes the last digits."""
    stop_ids = bench.renderer.stop_ids()
    with systems.model(system) as model:
        return [_answer(model, _ids(bench, prompt), stop_ids) for prompt in prompts]


def _answer(model: Any, prompt: list[int], stop_ids: list[int]) -> Answer:  # noqa: ANN401 - transformers has no types
    return greedy_answers(model, [prompt], _TOKENS, stop_ids, with_logprobs=True)[0]
