"""Whether a reward model tells the better answer from the worse."""

import math
from pathlib import Path

from finetune_contract.evaluating import TUNED, Metric, Score
from finetune_contract.training import TrainingPlan
from finetune_trainer.evaluate.heldout import held_out
from finetune_trainer.evaluate.measures import Mean
from finetune_trainer.evaluate.record import EvaluatedRow, Evaluation
from finetune_trainer.evaluate.scores import score
from finetune_trainer.train import reward
from finetune_trainer.train.render import Example
from finetune_trainer.train.rows import with_answer
from finetune_trainer.train.workbench import Workbench


def evaluate_reward_model(plan: TrainingPlan, bench: Workbench, directory: Path) -> Evaluation:
    """EvalLoss (pairwise, in nats) and PreferenceAccuracy of the model that will be published."""
    wanted = plan.evaluation
    rows = held_out(plan, bench)
    if not wanted.metrics or not rows.examples:
        return Evaluation(split=wanted.split)
    model = reward.load(directory, bench.device.dtype(trained=False), bench.device).eval()
    worse = [bench.renderer.example(with_answer(row, row["rejected"])) for row in rows.rows]
    pad = bench.tokenizer.pad_token_id
    chosen = reward.rewards_of(model, _sequences(bench, rows.examples), pad)
    rejected = reward.rewards_of(model, _sequences(bench, worse), pad)
    margins = [good - bad for good, bad in zip(chosen, rejected, strict=True)]
    # -log sigmoid(margin), in the form that cannot overflow.
    losses = [max(-margin, 0.0) + math.log1p(math.exp(-abs(margin))) for margin in margins]
    seed = plan.hyperparameters.seed
    found: list[Score] = []
    if Metric.EVAL_LOSS in wanted.metrics:
        found.append(score(Metric.EVAL_LOSS, TUNED, Mean.over(losses), seed))
    if Metric.PREFERENCE_ACCURACY in wanted.metrics:
        found.append(score(Metric.PREFERENCE_ACCURACY, TUNED, Mean.over([float(m > 0) for m in margins]), seed))
    record = tuple(
        EvaluatedRow(prompt=example.prompt, reference=example.answer, losses={TUNED: round(loss, 6)})
        for example, loss in zip(rows.examples, losses, strict=True)
    )
    return Evaluation(split=wanted.split, scores=tuple(found), rows=record)


def _sequences(bench: Workbench, examples: list[Example]) -> list[list[int]]:
    return [tokens.ids for tokens in bench.renderer.example_tokens(examples)]
