"""The rows that a model is judged on, and the solved rows that FewShot shows before them."""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune_contract.datasets import RowFormat
from finetune_contract.training import TrainingPlan
from finetune_trainer.data.instructions import Stripped
from finetune_trainer.train.render import Example, Renderer, Row
from finetune_trainer.train.workbench import Workbench

log = logging.getLogger(__name__)

_DRAWS = 4
"""How often FewShot draws its solved rows."""


@dataclass(frozen=True)
class HeldOut:
    """Rendered rows; each fits the model's context together with its answer."""

    renderer: Renderer
    rows: list[dict[str, Any]]
    examples: list[Example]
    """The rows without solved ones before them."""
    train: list[dict[str, Any]]
    """Rows that FewShot may show."""
    max_new_tokens: int
    context: int
    seed: int

    def with_shots(self, count: int) -> list[Example]:
        """The rows after `count` solved training rows each, or as many as the context holds; every fourth the same."""
        return [self._with_shots(at, row, count) for at, row in enumerate(self.rows)]

    def _with_shots(self, at: int, row: Row, count: int) -> Example:
        # Several draws, so that the baseline does not hang on one lucky choice; few, so that what prompts share is read
        # once for many (`openings`).
        pick = random.Random(f"{self.seed}:{at % _DRAWS}")
        shots = pick.sample(self.train, min(count, len(self.train)))
        while True:
            example = self.renderer.example(row, shots)
            if not shots or self.fits(example):
                return example
            shots.pop()

    def with_instruction(self, instruction: Stripped) -> list[Example]:
        """The rows with what was cut off all of them."""
        return [self.renderer.example(instruction.restored(row)) for row in self.rows]

    def fits(self, example: Example) -> bool:
        """Whether the context holds a prompt, its reference and the longest answer."""
        return _fits(self.renderer, example, self.max_new_tokens, self.context)


def held_out(plan: TrainingPlan, bench: Workbench) -> HeldOut:
    """All rows of the plan's split or a seeded sample of them, in their stored order.

    Rows that do not fit the context are left out for every system, and logged.
    """
    seed = plan.hyperparameters.seed
    rows = _sample(_wanted(bench.revision.rows(plan.evaluation.split)), plan.evaluation.max_rows, seed)
    train = _wanted(bench.revision.rows("train"))
    is_text = bench.revision.row_format is RowFormat.TEXT
    longest = _longest_answer(bench, [*train, *rows], plan.evaluation.max_new_tokens)
    examples = [bench.renderer.example(row) for row in rows]
    fitting = [at for at, each in enumerate(examples) if is_text or _fits(bench.renderer, each, longest, bench.context)]
    if len(fitting) < len(rows):
        log.warning("%d rows do not fit the model's context and are not evaluated", len(rows) - len(fitting))
    return HeldOut(
        renderer=bench.renderer,
        rows=[rows[at] for at in fitting],
        examples=[examples[at] for at in fitting],
        train=train,
        max_new_tokens=longest,
        context=bench.context,
        seed=seed,
    )


def _wanted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose answer is one to be given: no preference that is marked as a bad one."""
    return [row for row in rows if row.get("label") is not False]


def _sample(rows: list[dict[str, Any]], most: int, seed: int) -> list[dict[str, Any]]:
    if len(rows) <= most:
        return rows
    return [rows[at] for at in sorted(random.Random(seed).sample(range(len(rows)), most))]


def _longest_answer(bench: Workbench, rows: Sequence[Row], limit: int) -> int:
    """Tokens that an answer may have: of the longest label where there are labels, else the plan's limit."""
    if bench.revision.row_format is not RowFormat.CLASSIFICATION:
        return limit
    one_per_label = {row["label"]: row for row in rows}.values()
    tokens = bench.renderer.example_tokens([bench.renderer.example(row) for row in one_per_label])
    return max((sum(each.supervised) for each in tokens), default=limit)


def _fits(renderer: Renderer, example: Example, max_new_tokens: int, context: int) -> bool:
    tokens = renderer.example_tokens([example])[0]
    prompt = len(tokens.ids) - sum(tokens.supervised)
    return max(len(tokens.ids), prompt + max_new_tokens) <= context
