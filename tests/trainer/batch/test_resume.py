"""What is done is not done again: resumed shards, killed pods, damaged files, changed inputs."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from finetune_batch.answering import Batches
from finetune_batch.shards import Shards
from finetune_contract.base import StoredReference
from finetune_contract.batching import BatchResult
from finetune_contract.failure import FailureReason, FineTuneError, policy_of
from tests.trainer.batch.pods import Pod
from tests.trainer.batch.requests import KEY, chat, files_of, plan_of, run, write
from tests.trainer.server.tiny import Shop

ROWS = 60


def without_times(documents: list[Any]) -> list[Any]:
    """The lines but for when they were written."""
    for document in documents:
        del document["response"]["body"]["created"]
    return documents


class Killed(BaseException):
    """As if the process ended there."""


def die_after(monkeypatch: pytest.MonkeyPatch, shards: int) -> None:
    """End the process in the shard after some."""
    sealed: list[int] = []
    real = Shards.seal

    def seal(self: Shards, shard: Any) -> None:
        if len(sealed) == shards:
            raise Killed
        sealed.append(shard.first)
        real(self, shard)

    monkeypatch.setattr(Shards, "seal", seal)


def shard_files(shop: Shop) -> list[Path]:
    return sorted((shop.store.root / "runs" / KEY / "shards").glob("*/*"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests each shard asked the model."""
    numbers: list[int] = []
    real = Batches.answer

    def answer(self: Batches, asks: Any) -> Any:
        numbers.append(len(asks))
        return real(self, asks)

    monkeypatch.setattr(Batches, "answer", answer)
    return numbers


@pytest.fixture
def source(tmp_path: Path) -> Path:
    lines: list[Any] = [chat(number, f"The operator {number}") for number in range(ROWS)]
    lines[30] = "nonsense"
    return write(tmp_path / "source/a.jsonl", lines).parent


@pytest.mark.parametrize("shards", [0, 1, 4])
def test_a_killed_batch_goes_on_after_its_last_shard(
    shop: Shop, adapter: StoredReference, source: Path, monkeypatch: pytest.MonkeyPatch, asked: list[int], shards: int
) -> None:
    plan = plan_of(shop, adapter, max_error_share=0.1)
    whole, _ = files_of(shop, run(shop, plan.model_copy(update={"key": "whole"}), source))
    asked.clear()
    with monkeypatch.context() as patch:
        die_after(patch, shards)
        with pytest.raises(Killed):
            run(shop, plan, source)
    assert sum(asked) <= (shards + 1) * 8
    asked.clear()
    result = run(shop, plan, source)
    output, errors = files_of(shop, result)
    assert result.resumed_rows == shards * 8
    assert sum(asked) == ROWS - 1 - shards * 8 + (1 if shards * 8 > 30 else 0)
    assert [line["custom_id"] for line in output] == [f"ask-{number}" for number in range(ROWS) if number != 30]
    assert [line["error"]["code"] for line in errors] == ["invalid_json_line"]
    for mine, theirs in zip(output, whole, strict=True):
        assert mine["response"]["body"]["choices"] == theirs["response"]["body"]["choices"]


def test_what_was_published_is_found_again(
    shop: Shop, adapter: StoredReference, source: Path, asked: list[int]
) -> None:
    plan = plan_of(shop, adapter, max_error_share=0.1)
    first = run(shop, plan, source)
    asked.clear()
    again = run(shop, plan, source)
    assert (again.reused, again.output, again.counts) == (True, first.output, first.counts)
    assert asked == []


def test_an_output_that_was_lost_is_put_together_from_its_shards(
    shop: Shop, adapter: StoredReference, source: Path, asked: list[int]
) -> None:
    plan = plan_of(shop, adapter, max_error_share=0.1)
    first = run(shop, plan, source)
    assert first.output is not None
    (shop.store.path(first.output) / "output.jsonl").write_text("torn")
    asked.clear()
    again = run(shop, plan, source)
    assert (again.reused, again.output, again.resumed_rows) == (False, first.output, ROWS)
    assert asked == []
    files_of(shop, again)


@pytest.mark.parametrize("damage", ["torn", "another count", "empty"])
def test_a_damaged_shard_and_what_follows_is_answered_again(
    shop: Shop, adapter: StoredReference, source: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    plan = plan_of(shop, adapter, max_error_share=0.1)
    with monkeypatch.context() as patch:
        die_after(patch, 3)
        with pytest.raises(Killed):
            run(shop, plan, source)
    second = shard_files(shop)[1]
    text = second.read_text()
    second.write_text({"torn": text[:-20], "another count": text.replace('"rows":8', '"rows":7'), "empty": ""}[damage])
    result = run(shop, plan, source)
    assert result.resumed_rows == 8
    assert [line["custom_id"] for line in files_of(shop, result)[0]] == [
        f"ask-{number}" for number in range(ROWS) if number != 30
    ]


def test_files_that_changed_between_two_pods_are_another_input(
    shop: Shop, adapter: StoredReference, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(shop, adapter, max_error_share=0.1)
    with monkeypatch.context() as patch:
        die_after(patch, 3)
        with pytest.raises(Killed):
            run(shop, plan, source)
    write(source / "a.jsonl", [chat(number, f"A dataset {number}") for number in range(9)])
    result = run(shop, plan, source)
    assert (result.resumed_rows, result.total_rows) == (0, 9)


def test_a_file_that_changes_while_it_is_read_ends_the_batch(
    shop: Shop, adapter: StoredReference, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Shards.seal

    def seal(self: Shards, shard: Any) -> None:
        real(self, shard)
        write(source / "a.jsonl", [chat(0)])

    monkeypatch.setattr(Shards, "seal", seal)
    with pytest.raises(FineTuneError, match="leave it alone until the batch has ended") as caught:
        run(shop, plan_of(shop, adapter, max_error_share=0.1), source)
    assert caught.value.reason is FailureReason.SOURCE_CHANGED


def test_batches_shrink_until_memory_suffices(
    shop: Shop, adapter: StoredReference, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from finetune_batch import answering
    from finetune_server.decoding import decode as real

    sizes: list[int] = []

    def decode(model: Any, rows: Any, opened: Any) -> Any:
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, rows, opened)

    monkeypatch.setattr(answering, "decode", decode)
    result = run(shop, plan_of(shop, adapter, max_error_share=0.1), source)
    assert result.counts.succeeded == ROWS - 1
    assert sizes[:3] == [8, 4, 2]
    assert max(sizes[2:]) <= 2


# --- as a process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_pod_that_is_stopped_loses_the_shard_in_hand_at_most(
    shop: Shop, adapter: StoredReference, tmp_path: Path, number: signal.Signals
) -> None:
    rows = 400
    source = write(tmp_path / "source/a.jsonl", [chat(row, max_tokens=40) for row in range(rows)]).parent
    plan = plan_of(shop, adapter)
    pod = Pod(tmp_path / "pod", shop.store.root, plan, source)
    pod.wait_until(lambda: len(shard_files(shop)) >= 3)
    progress = pod.progress()
    pod.signal(number)
    preempted = policy_of(FailureReason.PREEMPTED).exit_code
    assert pod.exit_code() == (-signal.SIGKILL if number is signal.SIGKILL else preempted)
    assert progress is not None
    assert (progress.total_rows, progress.phase.value) == (rows, "Answering")
    assert 0 < progress.counts.rows < rows
    assert progress.estimated_completion_time is not None
    kept = 8 * len(shard_files(shop))
    if number is signal.SIGTERM:
        stopped = pod.result()
        assert stopped.failure is not None
        assert stopped.failure.reason is FailureReason.PREEMPTED
        assert stopped.counts.rows == kept
    second = Pod(tmp_path / "pod", shop.store.root, plan, source)
    assert second.exit_code() == 0
    result = second.result()
    assert (result.resumed_rows, result.counts.rows) == (kept, rows)
    output, _ = files_of(shop, result)
    assert [line["custom_id"] for line in output] == [f"ask-{row}" for row in range(rows)]


def test_a_plan_of_another_release_is_named(tmp_path: Path) -> None:
    from finetune_batch.__main__ import main

    (tmp_path / "plan.json").write_text(json.dumps({"version": 2}))
    log = tmp_path / "log"
    assert main([f"--plan={tmp_path}/plan.json", f"--scratch={tmp_path}", f"--termination-log={log}"]) == 65
    failure = BatchResult.model_validate_json(log.read_text()).failure
    assert failure is not None
    assert failure.reason is FailureReason.CONTRACT_VIOLATION
