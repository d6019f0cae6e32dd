"""Preferences as token sequences: prompts and answers apart, as TRL's collators read them, nothing cut uncounted."""

import logging
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.methods import Method
from finetune_contract.training import TrainingPlan
from finetune_trainer.train.rows import with_answer
from finetune_trainer.train.sequences import TrainingData
from finetune_trainer.train.workbench import Workbench

log = logging.getLogger(__name__)


@dataclass
class Cuts:
    """What a limit on tokens took away."""

    length: int
    """Tokens of prompt and answer together."""
    total: int = 0
    kept: int = 0
    supervised: int = 0
    rows: int = 0
    dropped: int = 0
    """Rows of which nothing would be left to compare."""
    longest: int = 0

    def fitting(self, prompt: list[int], answer: list[int]) -> list[int]:
        """The answer, cut where prompt and answer are too long together; empty when nothing of it is left."""
        whole = len(prompt) + len(answer)
        self.longest = max(self.longest, whole)
        self.total += whole
        left = answer[: max(0, self.length - len(prompt))]
        self.kept += len(prompt) + len(left) if left else 0
        self.supervised += len(left)
        self.rows += len(left) < len(answer)
        return left

    def refuse(self, share: float) -> None:
        """Refuse to lose more than a share of the tokens.

        Raises:
            FineTuneError: DataTruncated.
        """
        lost = self.total - self.kept
        if self.total and lost / self.total > share:
            raise FineTuneError(
                FailureReason.DATA_TRUNCATED,
                f"spec.hyperparameters.maxLength: {self.length} tokens would cut {lost} of {self.total} tokens "
                f"({lost / self.total:.1%}) in {self.rows} answers; limits.truncatedShare allows {share:.1%}. "
                f"The longest prompt and answer have {self.longest} tokens",
            )


def length_limit(plan: TrainingPlan, bench: Workbench) -> int:
    """Tokens of prompt and answer; Auto cuts nothing that the model's context holds.

    Raises:
        FineTuneError: InvalidPlan when maxLength is beyond the context.
    """
    wanted = plan.hyperparameters.max_length
    if wanted is not None and wanted > bench.context:
        raise FineTuneError(
            FailureReason.INVALID_PLAN,
            f"spec.hyperparameters.maxLength: {wanted} is beyond the model's context; use at most {bench.context}",
        )
    return wanted or bench.context


def build_preference_data(plan: TrainingPlan, bench: Workbench) -> TrainingData:
    """The train split for DPO, ORPO, SimPO, KTO or Reward.

    Raises:
        FineTuneError: DataTruncated, InvalidPlan (maxLength), DatasetInvalid (nothing to learn from).
    """
    rows = bench.revision.rows("train")
    # KTO compares neighbours, so that the order has to be the same in every epoch; the others are shuffled by TRL, too.
    random.Random(plan.hyperparameters.seed).shuffle(rows)
    cuts = Cuts(length_limit(plan, bench))
    found = list(tokenised(rows, plan.method, bench, cuts))
    cuts.refuse(plan.truncated_share)
    if not found:
        raise FineTuneError(FailureReason.DATASET_INVALID, "the dataset's train split has no row to learn from")
    if plan.method is Method.KTO:
        _refuse_one_sided(found)
    log.info(
        "%d rows, %d tokens (%d supervised, %d cut from %d answers), the longest has %d",
        len(found), cuts.kept, cuts.supervised, cuts.total - cuts.kept, cuts.rows, min(cuts.longest, cuts.length),
    )  # fmt: skip
    from datasets import Dataset

    return TrainingData(
        dataset=Dataset.from_list(found),
        # What a batch holds of a row: both answers, or the answer and the one that KTO compares it with.
        sequence_length=2 * min(cuts.longest, cuts.length),
        tokens=cuts.kept,
        supervised_tokens=cuts.supervised,
        truncated_tokens=cuts.total - cuts.kept,
        truncated_rows=cuts.rows,
        dropped_rows=cuts.dropped,
        is_packed=False,
    )


def tokenised(
    rows: Iterable[Mapping[str, Any]], method: Method, bench: Workbench, cuts: Cuts
) -> Iterable[dict[str, Any]]:
    """Rows as the columns that TRL's collators read; a row of which nothing would be left is counted, not kept."""
    for row in rows:
        prompt, wanted = _ids(bench, row)
        wanted = cuts.fitting(prompt, wanted)
        if "rejected" not in row:
            if wanted:
                yield {"prompt_ids": prompt, "completion_ids": wanted, "label": row["label"]}
            cuts.dropped += not wanted
            continue
        unwanted = cuts.fitting(prompt, _ids(bench, with_answer(row, row["rejected"]))[1])
        if not wanted or not unwanted:
            cuts.dropped += 1
            continue
        if method is Method.KTO:
            yield {"prompt_ids": prompt, "completion_ids": wanted, "label": True}
            yield {"prompt_ids": prompt, "completion_ids": unwanted, "label": False}
        elif method is Method.REWARD:
            yield {"chosen_ids": prompt + wanted, "rejected_ids": prompt + unwanted}
        else:
            yield {"prompt_ids": prompt, "chosen_ids": wanted, "rejected_ids": unwanted}


def _ids(bench: Workbench, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Prompt and answer, tokenised apart as they are when the model answers."""
    example = bench.renderer.example(row)
    tokens = bench.renderer.example_tokens([example])[0]
    begin = len(tokens.ids) - sum(tokens.supervised)
    return tokens.ids[:begin], tokens.ids[begin:]


def _refuse_one_sided(rows: list[dict[str, Any]]) -> None:
    good = sum(row["label"] for row in rows)
    if good in (0, len(rows)):
        kind = "bad" if good == 0 else "good"
        raise FineTuneError(
            FailureReason.DATASET_INVALID,
            f"all {len(rows)} rows are marked as {kind}; KTO learns from the difference: add the others",
        )
