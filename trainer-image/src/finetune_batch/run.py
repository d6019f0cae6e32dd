"""One batch, from its plan to two published files: reads top to bottom.

read the input once -> follow the chain of shards that are done -> answer the rest, shard by shard -> publish
"""

import logging
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from peft import PeftConfig

from finetune_batch.answering import Batches
from finetune_batch.asking import Ask, Asker
from finetune_batch.board import BatchBoard
from finetune_batch.items import Fault, Input, Item
from finetune_batch.lines import Requests
from finetune_batch.publishing import found_before, publish
from finetune_batch.rows import Rows
from finetune_batch.shards import Pace, Shard, Shards, Tally
from finetune_batch.writing import answer_line, error_line
from finetune_contract.batching import BatchCounts, BatchPhase, BatchPlan, BatchResult
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import LOG_FILE, attempt_path
from finetune_server.adapters import unfit_settings
from finetune_server.model import BASE, LanguageModel, Served, load
from finetune_server.requests import FinishReason
from finetune_store.opening import open_store
from finetune_store.store import Store
from finetune_trainer.data.sourcefile import SourceFile
from finetune_trainer.data.sources import fetch
from finetune_trainer.keptlog import kept
from finetune_trainer.train.workbench import merged_base

log = logging.getLogger(__name__)

_NOT_FINITE = Fault("server_error", "the model answered with numbers that are not finite", None, 500)


def batch(plan: BatchPlan, root: Path, mount: Path, scratch: Path, board: BatchBoard) -> BatchResult:
    """Answer what has not been answered, and publish all of it.

    Args:
        plan: What is asked for.
        root: Where the store's claim is mounted.
        mount: Where the claim or ConfigMap of the JSONL files is mounted.
        scratch: For files that have to be downloaded.
        board: Told how far it is.

    Raises:
        FineTuneError: RequestsFailed when more rows fail than `max_error_share` allows; any of the reasons that inputs
            cannot be read for.
    """
    store = open_store(plan, root)
    store.register(plan.namespace)
    with kept(store, plan.key, attempt_path(plan.attempt, LOG_FILE)):
        return _batch(plan, store, mount, scratch, board)


def _batch(plan: BatchPlan, store: Store, mount: Path, scratch: Path, board: BatchBoard) -> BatchResult:
    log.info("batch %s: %s", plan.key[:12], plan.name)
    source = _input(plan, store, mount, scratch)
    board.update(total_rows=source.rows)
    if found := found_before(store, plan, source):
        log.info("it was answered before: %s", found.output.uri if found.output else "")
        return found
    _refuse_faults(plan, source, source.faults, source.first_fault)
    shards, tally = Shards(store, plan.key, source.digest), Tally()
    for shard in shards.chain():
        tally.add(shard)
    resumed = tally.counts.rows
    log.info("%d rows, of which %d are done", source.rows, resumed)
    board.update(resumed_rows=resumed)
    board.keep(tally.counts)
    device: str | None = None
    if resumed < source.rows:
        board.update(phase=BatchPhase.LOADING)
        model, served = _load(plan, store)
        device = torch.cuda.get_device_name() if model.device.type == "cuda" else model.device.type
        board.answering_begins()
        _answer(plan, source, shards, tally, Work(plan, model, served, board))
    board.update(phase=BatchPhase.PUBLISHING)
    return publish(store, plan, source, shards, resumed, device)


def _input(plan: BatchPlan, store: Store, mount: Path, scratch: Path) -> Input:
    if plan.input.dataset is not None:
        return Rows(plan.input.dataset, store.verify(plan.input.dataset.revision))
    assert plan.input.jsonl is not None
    try:
        files = fetch(plan.input.jsonl, mount, scratch).files
    except FineTuneError as error:
        # The reader of sources names the field of a Dataset.
        raise FineTuneError(error.reason, str(error).replace("spec.source", "spec.input.jsonl")) from error
    return Requests([SourceFile(file.name.replace("spec.source", "spec.input.jsonl"), file.path) for file in files])


def _load(plan: BatchPlan, store: Store) -> tuple[LanguageModel, Served]:
    """The model, and what of it answers."""
    base, adapter = store.verify(plan.base), store.verify(plan.adapter) if plan.adapter else None
    if adapter is not None and unfit_settings(PeftConfig.from_pretrained(str(adapter))):
        # Such an adapter cannot share a batch with another one; here there is none, so it may go into the weights.
        base, adapter = merged_base(base, adapter), None
    served = [Served(plan.name, BASE, str(base))]
    if adapter is not None:
        served.append(Served(plan.name, "adapter", str(adapter)))
    return load(served), served[-1]


class Work:
    """What a shard is answered with."""

    def __init__(self, plan: BatchPlan, model: LanguageModel, served: Served, board: BatchBoard) -> None:
        self._plan = plan
        self._model = model
        self._asker = Asker(plan, model, served)
        self._batches = Batches(model)
        self.board = board
        self.first_fault: Item | None = None
        """The first row that was not answered."""

    def shard(self, source: Input, first: int, count: int) -> Shard:
        """Answer some rows."""
        began, created = time.monotonic(), int(datetime.now(UTC).timestamp())
        lines: dict[int, str] = {}
        failed: dict[int, Fault] = {}
        asks: list[Ask] = []
        for item in source.items(first, count, self._model):
            asked = self._asker.ask(item)
            if isinstance(asked, Ask):
                asks.append(asked)
            else:
                self._fail(item, asked, failed, lines)
        prompt_tokens = generated_tokens = 0
        self.board.batch_ends(len(failed), 0, 0, failed=len(failed))
        for at, tokens in self._batches.answer(asks):
            ask = asks[at]
            is_failed = tokens[-1].finish is FinishReason.FAILED
            if is_failed:
                self._fail(ask.item, _NOT_FINITE, failed, lines)
            else:
                lines[ask.item.number] = answer_line(self._plan.key, ask, tokens, created)
                prompt_tokens += len(ask.request.prompt)
                generated_tokens += len(tokens)
            self.board.batch_ends(1, len(ask.request.prompt), len(tokens), failed=int(is_failed))
        counts = BatchCounts(
            rows=len(lines),
            succeeded=len(lines) - len(failed),
            failed=len(failed),
            prompt_tokens=prompt_tokens,
            generated_tokens=generated_tokens,
            seconds=round(time.monotonic() - began, 3),
        )
        return Shard(
            first=first,
            counts=counts,
            errors=Counter(fault.code for fault in failed.values()),
            output=[lines[number] for number in sorted(lines) if number not in failed],
            failures=[lines[number] for number in sorted(failed)],
        )

    def _fail(self, item: Item, fault: Fault, failed: dict[int, Fault], lines: dict[int, str]) -> None:
        failed[item.number] = fault
        lines[item.number] = error_line(self._plan.key, item, fault)
        self.first_fault = self.first_fault or replace(item, fault=fault)


def _answer(plan: BatchPlan, source: Input, shards: Shards, tally: Tally, work: Work) -> None:
    """Answer and seal what is left; a pod that is killed loses the shard in hand."""
    pace = Pace(plan.shard_rows)
    while (first := tally.counts.rows) < source.rows:
        shard = work.shard(source, first, min(pace.rows, source.rows - first))
        shards.seal(shard)
        tally.add(shard)
        pace.learn(shard)
        work.board.keep(tally.counts)
        log.info(
            "%d of %d rows, %d failed, %.1f tokens/s",
            tally.counts.rows, source.rows, tally.counts.failed,
            shard.counts.generated_tokens / max(shard.counts.seconds, 1e-3),
        )  # fmt: skip
        _refuse_faults(plan, source, tally.counts.failed, work.first_fault)


def _refuse_faults(plan: BatchPlan, source: Input, failed: int, first: Item | None) -> None:
    if failed <= plan.max_error_share * source.rows:
        return
    example = f"; {first.place}: {first.fault.message}" if first and first.fault else ""
    raise FineTuneError(
        FailureReason.REQUESTS_FAILED,
        f"maxErrorShare: {failed} of {source.rows} rows have no answer, and a share of {plan.max_error_share:g} is "
        f"allowed{example}",
    )
