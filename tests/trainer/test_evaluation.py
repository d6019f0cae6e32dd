from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_contract.datasets import RowFormat
from finetune_trainer.evaluate.generate import greedy_answers, supervised_losses
from finetune_trainer.evaluate.heldout import HeldOut, held_out
from finetune_trainer.train.render import Renderer
from finetune_trainer.train.sequences import IGNORED
from finetune_trainer.train.workbench import open_workbench
from tests.trainer import tiny
from tests.trainer.conftest import Workshop


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.build_model(tmp_path_factory.mktemp("model")).eval()


@pytest.fixture
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 340, (length,), generator=generator).tolist() for length in (7, 1, 30, 12, 12)]


def naive_answer(model: Any, prompt: list[int], tokens: int, stops: list[int]) -> tuple[list[int], list[float]]:
    """One token at a time, no cache, no batch."""
    ids, logprobs = list(prompt), []
    for _ in range(tokens):
        found = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        token = int(found.argmax())
        if token in stops:
            break
        ids.append(token)
        logprobs.append(float(found[token]))
    return ids[len(prompt) :], logprobs


@torch.no_grad()
def test_batched_greedy_answers_are_those_of_one_prompt_at_a_time(model: Any, prompts: list[list[int]]) -> None:
    first, _ = naive_answer(model, prompts[0], 6, [])
    stops = [2, first[3]]  # an answer that ends early among answers that do not
    answers = greedy_answers(model, prompts, 6, stops, with_logprobs=True)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids, logprobs = naive_answer(model, prompt, 6, stops)
        assert answer.ids == ids
        assert answer.logprobs == pytest.approx(logprobs, abs=1e-4)
    assert len(answers[0].ids) <= 3


@torch.no_grad()
def test_batched_losses_are_those_of_one_row_at_a_time(model: Any, prompts: list[list[int]]) -> None:
    rows = [(ids, [IGNORED, *ids[1:]]) for ids in prompts if len(ids) > 1]
    rows[0] = (rows[0][0], [IGNORED] * 4 + rows[0][0][4:])
    losses = supervised_losses(model, rows)
    for (ids, labels), loss in zip(rows, losses, strict=True):
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = [-float(logprobs[at - 1, label]) for at, label in enumerate(labels) if label != IGNORED]
        assert loss.tokens == len(expected)
        assert loss.total == pytest.approx(sum(expected), rel=1e-4)


def test_the_settings_of_the_model_survive(model: Any, prompts: list[list[int]]) -> None:
    before = model.generation_config
    with torch.inference_mode():
        greedy_answers(model, prompts[:1], 2, [2])
    assert model.generation_config is before


def rows_of(workshop: Workshop, **evaluation: Any) -> HeldOut:
    plan = workshop.plan(evaluation={"metrics": ["ExactMatch"], **evaluation})
    return held_out(plan, open_workbench(plan, workshop.store))


def test_all_rows_are_used_when_they_are_few(workshop: Workshop) -> None:
    assert [row["text"] for row in rows_of(workshop).rows] == [row["text"] for row in tiny.classification_rows(24, 2)]


def test_a_sample_is_the_same_every_time_and_in_order(workshop: Workshop) -> None:
    texts = [row["text"] for row in rows_of(workshop, max_rows=5).rows]
    assert texts == [row["text"] for row in rows_of(workshop, max_rows=5).rows]
    assert texts == [row["text"] for row in tiny.classification_rows(24, 2) if row["text"] in texts][:5]
    assert len(texts) == 5


def test_answers_may_be_as_long_as_the_longest_label(workshop: Workshop) -> None:
    plan = workshop.plan()
    renderer = open_workbench(plan, workshop.store).renderer
    longest = max(
        sum(renderer.tokens([{"text": "x", "label": label}])[0].supervised) for label in ("fruit", "animal", "metal")
    )
    assert rows_of(workshop, max_new_tokens=64).max_new_tokens == longest


def test_solved_rows_come_from_training_rows_and_only_as_many_as_fit(workshop: Workshop) -> None:
    rows = rows_of(workshop)
    solved = rows.with_shots(3)
    for example, plain in zip(solved, rows.examples, strict=True):
        assert example.prompt.endswith(plain.prompt)
        assert example.prompt.count("<|im_start|>assistant") == 4
        assert example.answer == plain.answer
    crowded = rows.with_shots(200)
    assert all(rows.fits(example) for example in crowded)
    assert all(len(few.prompt) < len(many.prompt) for few, many in zip(solved, crowded, strict=True))
    assert rows.with_shots(3) == solved
    before = [example.prompt.removesuffix(plain.prompt) for example, plain in zip(solved, rows.examples, strict=True)]
    assert before == [before[at % 4] for at in range(len(before))]
    assert len(set(before)) == 4, "one lucky choice decides less"


def test_rows_that_do_not_fit_are_left_out_for_every_system(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*tiny.classification_rows(3, 5), {"text": "iron " * 400, "label": "metal"}]
    dataset = tiny.publish_dataset(workshop.store, RowFormat.CLASSIFICATION, {"train": rows[:2], "test": rows})
    plan = workshop.plan(dataset=dataset)
    found = held_out(plan, open_workbench(plan, workshop.store))
    assert len(found.rows) == len(found.examples) == 3
    assert "1 rows do not fit" in caplog.text


def test_the_reference_of_a_plain_prompt_is_compared_trimmed(tmp_path: Path) -> None:
    tokenizer = tiny.build_tokenizer(tmp_path, chat_template=None)
    example = Renderer(tokenizer, RowFormat.CLASSIFICATION).example({"text": "tin", "label": "metal"})
    assert example.answer.strip() == "metal"
