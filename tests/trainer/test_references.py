"""Right answers that are read after prompts that were just answered have the losses that they have alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from finetune_contract.evaluating import Baseline
from finetune_trainer.evaluate import references
from finetune_trainer.evaluate.generate import Batch, Loss, greedy_answers, supervised_losses
from finetune_trainer.evaluate.record import Evaluation
from finetune_trainer.evaluate.references import References
from finetune_trainer.train.sequences import IGNORED
from tests.trainer import tiny
from tests.trainer.conftest import Workshop
from tests.trainer.runs import evaluation_of, run

DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}

Sequence = tuple[list[int], list[int]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.build_model(tmp_path_factory.mktemp("model")).eval()


def rows_of(*lengths: tuple[int, int]) -> tuple[list[list[int]], list[Sequence]]:
    """Prompts, and with them answers of so many tokens."""
    generator = torch.Generator().manual_seed(0)
    whole = [torch.randint(3, 340, (sum(each),), generator=generator).tolist() for each in lengths]
    prompts = [ids[: each[0]] for ids, each in zip(whole, lengths, strict=True)]
    return prompts, [(ids, [IGNORED] * each[0] + ids[each[0] :]) for ids, each in zip(whole, lengths, strict=True)]


@pytest.mark.parametrize("block", [1, 3, 128])
@torch.no_grad()
def test_answers_and_losses_are_those_of_reading_twice(model: Any, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "_BLOCK", block)
    prompts, sequences = rows_of((7, 4), (1, 9), (30, 1), (12, 6), (12, 3), (5, 3))
    sequences[3][1][14] = IGNORED  # a token in the middle of an answer that is not to be learnt
    alone = greedy_answers(model, prompts, 6, [2])
    stops = [2, alone[0].ids[1], alone[2].ids[0]]  # answers that end early, one of them at once
    read = References(model, prompts, sequences)
    found = greedy_answers(model, prompts, 6, stops, batch_rows=4, after_batch=read.read)
    assert found == greedy_answers(model, prompts, 6, stops, batch_rows=4)
    expected = supervised_losses(model, sequences)
    assert [read.losses[row].tokens for row in range(6)] == [each.tokens for each in expected] == [4, 9, 1, 5, 3, 3]
    assert [read.losses[row].total for row in range(6)] == pytest.approx([each.total for each in expected], rel=1e-4)


@torch.no_grad()
def test_what_is_no_answer_to_its_prompt_is_left(model: Any) -> None:
    prompts, sequences = rows_of((7, 4), (7, 4), (7, 4), (7, 4))
    sequences[0] = sequences[1]  # another prompt
    sequences[2] = (sequences[2][0], sequences[2][0])  # the prompt is learnt, too
    sequences[3] = (sequences[3][0][:7], sequences[3][1][:7])  # nothing follows
    read = References(model, prompts, sequences)
    greedy_answers(model, prompts, 2, [2], after_batch=read.read)
    assert set(read.losses) == {1}


TINY = {
    "vocab_size": 340, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
STATES = {"vocab_size": 340, "hidden_size": 16, "num_hidden_layers": 1}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(lambda: MistralForCausalLM(MistralConfig(**TINY, sliding_window=8)), id="sliding windows"),
        pytest.param(lambda: LlamaForCausalLM(LlamaConfig(**TINY, rope_parameters=DYNAMIC)), id="dynamic angles"),
        pytest.param(lambda: MambaForCausalLM(MambaConfig(**STATES)), id="states"),
    ],
)
@torch.no_grad()
def test_a_cache_without_the_prompts_as_they_were_is_not_used(kind: Callable[[], Any]) -> None:
    """Such models read twice."""
    torch.manual_seed(0)
    other = kind().eval()
    prompts, sequences = rows_of((20, 4), (12, 4))
    read = References(other, prompts, sequences)
    assert len(greedy_answers(other, prompts, 6, [2], after_batch=read.read)) == 2
    assert read.losses == {}


@torch.no_grad()
def test_a_row_without_anything_to_learn_has_no_loss(model: Any) -> None:
    ids = list(range(5, 15))
    alone, beside = (
        supervised_losses(model, [(ids, [IGNORED] * 10)]),
        supervised_losses(model, [(ids, [IGNORED] * 10), (ids, ids)]),
    )
    assert alone == beside[:1] == [Loss(0.0, 0)]
    assert beside[1].tokens == 9


def evaluated(workshop: Workshop, key: str) -> Evaluation:
    evaluation = {"metrics": ["EvalLoss", "Accuracy", "MacroF1"], "baselines": ["ZeroShot", "FewShot"]}
    run(workshop.store, workshop.plan(run_key=key, evaluation=evaluation, hyperparameters={"epochs": 1}))
    return evaluation_of(workshop.store, key)


def test_an_evaluation_scores_the_same_whether_prompts_are_read_once_or_twice(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    reading = References.read

    def counted(self: References, batch: Batch) -> None:
        reading(self, batch)
        read.append(len(self.losses))

    monkeypatch.setattr(References, "read", counted)
    once = evaluated(workshop, "a1")
    assert max(read) == len(once.rows), "FewShot's prompts are long enough"
    monkeypatch.setattr(References, "read", lambda *_: None)
    for entry in (workshop.store.root / "baselines").glob("*/measured.json"):
        entry.unlink()
    twice = evaluated(workshop, "a2")
    assert twice.recalled == ()
    for row, again in zip(once.rows, twice.rows, strict=True):
        assert row.answers == again.answers
        assert row.losses == pytest.approx(again.losses, rel=1e-4)
    assert once.speed is not None
    assert Baseline.FEW_SHOT in {each.system for each in once.scores}
