"""A Dataset's split: prompts as training renders them, without their answers; any row can be begun with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune_batch.items import Item
from finetune_batch.rows import Rows
from finetune_contract.base import StoredReference
from finetune_contract.batching import DatasetRows
from finetune_contract.datasets import RowFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_server.model import BASE, LanguageModel, Served, load
from finetune_trainer.data import revision
from tests.trainer import tiny as trainer_tiny
from tests.trainer.batch.requests import content, files_of, plan_of, run
from tests.trainer.server.tiny import Shop, greedy, quiet

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "json?"}]
ROWS: dict[RowFormat, tuple[dict[str, Any], str]] = {
    RowFormat.CLASSIFICATION: ({"text": "json is", "label": "module"}, "<|im_start|>user\njson is<|im_end|>\n"),
    RowFormat.MESSAGES: (
        {"messages": [*QUESTION, {"role": "assistant", "content": "A module."}]},
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\njson?<|im_end|>\n",
    ),
    RowFormat.PROMPT_COMPLETION: ({"prompt": "The operator", "completion": " tunes"}, "The operator"),
    RowFormat.PROMPTS: ({"prompt": "The operator"}, "The operator"),
    RowFormat.PREFERENCE: ({"prompt": "The operator", "chosen": " a", "rejected": " b"}, "The operator"),
}
"""A row of each format -> its prompt, but for the mark that an answer begins with."""


def numbered(row: dict[str, Any], number: int) -> dict[str, Any]:
    """The row with a prompt of its own."""
    if "messages" in row:
        first, second, answer = row["messages"]
        return {"messages": [first, {**second, "content": f"{second['content']} {number}"}, answer]}
    field = "text" if "text" in row else "prompt"
    return {**row, field: f"{row[field]} {number}"}


@pytest.fixture
def model(shop: Shop) -> LanguageModel:
    with quiet():
        return load([Served("base", BASE, str(shop.base_path))])


@pytest.mark.parametrize("row_format", ROWS, ids=str)
def test_each_formats_prompt_is_what_training_shows(shop: Shop, model: LanguageModel, row_format: RowFormat) -> None:
    row, prompt = ROWS[row_format]
    reference = trainer_tiny.publish_dataset(shop.store, row_format, {"test": [row]})
    found = Rows(DatasetRows(revision=reference, split="test"), shop.store.verify(reference))
    (item,) = found.items(0, 1, model)
    assert item.prompt is not None
    said = model.tokenizer.decode(item.prompt)
    assert said == (f"{prompt}<|im_start|>assistant\n" if prompt.startswith("<|im_start|>") else prompt)
    assert (item.custom_id, found.rows, found.digest) == ("test-0", 1, reference.digest)


def test_a_split_is_answered_in_its_order(shop: Shop, adapter: StoredReference, tmp_path: Path) -> None:
    row, _ = ROWS[RowFormat.CLASSIFICATION]
    rows = [numbered(row, number) for number in range(21)]
    reference = trainer_tiny.publish_dataset(shop.store, RowFormat.CLASSIFICATION, {"train": rows[:3], "test": rows})
    wanted = {"dataset": {"revision": reference, "split": "test"}}
    plan = plan_of(shop, adapter, input=wanted, sampling={"max_tokens": 5})
    (tmp_path / "source").mkdir()
    result = run(shop, plan, tmp_path / "source")
    output, errors = files_of(shop, result)
    assert [line["custom_id"] for line in output] == [f"test-{number}" for number in range(21)]
    assert (errors, result.input_digest) == ([], reference.digest)
    tokenizer: Any = AutoTokenizer.from_pretrained(shop.base_path)
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(shop.base_path, dtype=torch.float32)
        tuned = PeftModel.from_pretrained(base, shop.store.path(adapter)).eval()
    for line, asked in zip(output, rows, strict=True):
        prompt = f"<|im_start|>user\n{asked['text']}<|im_end|>\n<|im_start|>assistant\n"
        assert content(line) == greedy(tuned, tokenizer, prompt, 5)[0]


@pytest.mark.parametrize(("first", "count"), [(0, 3), (2, 4), (6, 9), (9, 1), (0, 10)])
def test_rows_are_read_from_any_place_over_all_files(
    shop: Shop, model: LanguageModel, monkeypatch: pytest.MonkeyPatch, first: int, count: int
) -> None:
    monkeypatch.setattr("finetune_batch.rows._AT_ONCE", 2)
    rows = [{"prompt": f"prompt {number}", "completion": " x"} for number in range(10)]
    names = [revision.shard_name("test", number, 3) for number in range(3)]
    files = {names[0]: rows[:4], names[1]: rows[4:5], names[2]: rows[5:]}
    splits = {name.removesuffix(".parquet"): part for name, part in files.items()}
    reference = trainer_tiny.publish_dataset(shop.store, RowFormat.PROMPT_COMPLETION, splits)
    found = Rows(DatasetRows(revision=reference, split="test"), shop.store.verify(reference))

    def shown(item: Item) -> tuple[int, str]:
        return item.number, model.tokenizer.decode(item.prompt)

    there = range(first, min(first + count, 10))
    assert [shown(item) for item in found.items(first, count, model)] == [(at, f"prompt {at}") for at in there]


def test_rows_without_prompts_and_splits_without_rows_are_refused(shop: Shop) -> None:
    text = trainer_tiny.publish_dataset(shop.store, RowFormat.TEXT, {"test": [{"text": "a"}]})
    with pytest.raises(FineTuneError, match="Text rows have no prompt") as caught:
        Rows(DatasetRows(revision=text), shop.store.verify(text))
    assert caught.value.reason is FailureReason.INVALID_PLAN
    row, _ = ROWS[RowFormat.PROMPT_COMPLETION]
    train = trainer_tiny.publish_dataset(shop.store, RowFormat.PROMPT_COMPLETION, {"train": [row]})
    with pytest.raises(FineTuneError, match="has no test rows; it has train") as caught:
        Rows(DatasetRows(revision=train), shop.store.verify(train))
    assert caught.value.reason is FailureReason.DATASET_INVALID
