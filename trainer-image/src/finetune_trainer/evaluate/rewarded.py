"""What a model's greedy answers earn by the rewards that it is trained on."""

from collections.abc import Sequence

from finetune_contract.methods import OnlinePlan
from finetune_trainer.evaluate.heldout import HeldOut
from finetune_trainer.evaluate.subject import Subject
from finetune_trainer.train.rewards import judges_of
from finetune_trainer.train.workbench import Workbench


def mean_rewards(
    online: OnlinePlan,
    bench: Workbench,
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    rows: HeldOut,
) -> list[float]:
    """The weighted sum of all rewards, for each row."""
    greedy = subject.answers(prompts, min(online.max_completion_length, rows.max_new_tokens))
    texts = [bench.tokenizer.decode(answer, skip_special_tokens=True) for answer in greedy]
    # A reward model has learnt answers with the mark that ends them.
    ids = [[*answer, bench.renderer.stop_ids()[0]] for answer in greedy]
    wanted = [example.answer for example in rows.examples]
    judges = judges_of(online.rewards, bench.store, bench.tokenizer, bench.device)
    judged = [judge(texts, prompts, ids, wanted) for judge in judges]
    weights = [reward.weight for reward in online.rewards]
    return [sum(weight * each for weight, each in zip(weights, row, strict=True)) for row in zip(*judged, strict=True)]
