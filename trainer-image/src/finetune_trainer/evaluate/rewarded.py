"""What a model's greedy answers earn: by the rewards that it is trained on, or by a reward model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_contract.methods import OnlinePlan
from finetune_trainer.evaluate.heldout import HeldOut
from finetune_trainer.evaluate.subject import Subject
from finetune_trainer.train import reward
from finetune_trainer.train.model import context_of, load_tokenizer
from finetune_trainer.train.render import Renderer
from finetune_trainer.train.rewards import judges_of
from finetune_trainer.train.rows import with_answer
from finetune_trainer.train.workbench import Workbench


def mean_rewards(
    online: OnlinePlan,
    bench: Workbench,
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    rows: HeldOut,
    answers: Sequence[Sequence[int]] | None,
) -> list[float]:
    """The weighted sum of all rewards, for each row; `answers` are greedy ones of `max_new_tokens` that are there."""
    longest = min(online.max_completion_length, rows.max_new_tokens)
    greedy = subject.answers(prompts, longest) if answers is None else [answer[:longest] for answer in answers]
    texts = [bench.tokenizer.decode(answer, skip_special_tokens=True) for answer in greedy]
    # As in training: the mark that ends an answer is its own, where it was not cut off.
    stop = bench.renderer.stop_ids()[:1]
    ids = [[*answer, *stop] if len(answer) < longest else answer for answer in greedy]
    wanted = [example.answer for example in rows.examples]
    judges = judges_of(online.rewards, bench.store, bench.tokenizer, bench.device)
    judged = [judge(texts, prompts, ids, wanted) for judge in judges]
    weights = [reward.weight for reward in online.rewards]
    return [sum(weight * each for weight, each in zip(weights, row, strict=True)) for row in zip(*judged, strict=True)]


class RewardModel:
    """A reward model that reads rows and answers as text, with its own tokenizer and chat template."""

    def __init__(self, directory: Path, bench: Workbench) -> None:
        """Load it.

        Raises:
            FineTuneError: ModelNotFound, or TokenizerMismatch where it cannot read such rows.
        """
        self._tokenizer = load_tokenizer(directory)
        self._renderer = Renderer(self._tokenizer, bench.revision.row_format)
        self._context = context_of(directory)
        self._model = reward.load(directory, bench.device.dtype(trained=False), bench.device).eval()

    def scores(self, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> list[float]:
        """The score of each row's answer; of a text over its context, the end is read."""
        examples = [self._renderer.example(with_answer(row, said)) for row, said in zip(rows, answers, strict=True)]
        ids = [tokens.ids[-self._context :] for tokens in self._renderer.example_tokens(examples)]
        return reward.rewards_of(self._model, ids, self._tokenizer.pad_token_id)
