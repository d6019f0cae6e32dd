"""What depends on one row alone: instructions, filters, personal data, tokens, band keys. Done in several processes.

The result is the same with any number of processes: rows go out in blocks, and come back in their order.
"""

import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from finetune_contract.cleaning import ChangeReason, CleaningPlan, PersonalDataKind, PersonalDataPolicy, Quality
from finetune_contract.datasets import DropReason, RowFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data import near
from finetune_trainer.data.instructions import Instruction
from finetune_trainer.data.personal import Findings, Recogniser
from finetune_trainer.data.quality import fault_of
from finetune_trainer.data.rows import Change, Drop, Row, make_row, text_of
from finetune_trainer.data.shelf import Measures, label_of
from finetune_trainer.data.tokens import Tokenizer

BLOCK = 1000
"""Rows that a process takes at a time."""

_WORTH_PROCESSES = 8
"""Blocks from which on starting processes pays."""


@dataclass(frozen=True)
class Orders:
    """What is to be done with each row."""

    plan: CleaningPlan
    row_format: RowFormat
    similarity: float | None
    """For the band keys; None: none are needed."""
    tokenizer: Path | None = None
    instruction: Instruction | None = None


@dataclass
class Block:
    """Rows that stay, with what was measured of them; and what became of the others."""

    rows: list[Row] = field(default_factory=list)
    measures: list[Measures] = field(default_factory=list)
    bands: near.Array | None = None
    drops: list[Drop] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    findings: Findings = field(default_factory=Counter)
    rows_with: Findings = field(default_factory=Counter)
    """Kind -> rows that have some of it."""
    first_found: str = ""
    """The first row with personal data: where, and which kinds."""


class Inspector:
    """Does it to a block of rows."""

    def __init__(self, orders: Orders) -> None:
        """Load what the orders need."""
        self._orders = orders
        self._filters = orders.plan.filters
        self._recogniser = Recogniser(orders.plan.regions)
        self._tokenizer = Tokenizer(orders.tokenizer, orders.row_format) if orders.tokenizer else None

    def inspect(self, rows: list[Row]) -> Block:
        """Inspect rows in their order."""
        block = Block()
        for row in rows:
            kept: Row | None = self._stripped(row, block) if self._orders.instruction else row
            if kept is not None and (kept := self._cleaned(kept, block)) is not None:
                block.rows.append(kept)
        texts = self._measure(block)
        if self._orders.similarity is not None and texts:
            block.bands = near.banding(self._orders.similarity).keys(texts)
        return block

    def _stripped(self, row: Row, block: Block) -> Row | None:
        assert self._orders.instruction is not None
        value = self._orders.instruction.stripped(row.value())
        prompt = value.get("prompt") or value.get("text") or value.get("messages")
        first = prompt if isinstance(prompt, str) else next(t["content"] for t in prompt or () if t["role"] == "user")
        if not first.strip():
            block.drops.append(Drop(row.origin, DropReason.EMPTY, "its prompt is the instruction and nothing else"))
            return None
        return make_row(row.origin, value)

    def _cleaned(self, row: Row, block: Block) -> Row | None:
        text = row.text()
        if fault := self._misfit(text):
            block.drops.append(Drop(row.origin, *fault))
            return None
        if self._orders.plan.personal_data is PersonalDataPolicy.IGNORE:
            return row
        # Almost every row has none, and its parts need not be looked at one by one.
        if not self._recogniser.spans(text) and "tool_calls" not in row.canonical:
            return row
        value, found = self._recogniser.redacted_value(row.value())
        if not found:
            return row
        block.findings.update(found)
        block.rows_with.update(found.keys())
        kinds = listed(found)
        block.first_found = block.first_found or f"{row.origin}: {kinds}"
        if self._orders.plan.personal_data is PersonalDataPolicy.DROP_ROW:
            block.drops.append(Drop(row.origin, DropReason.PERSONAL_DATA, kinds))
            return None
        if self._orders.plan.personal_data is PersonalDataPolicy.REDACT:
            block.changes.append(Change(row.origin, ChangeReason.PERSONAL_DATA_REDACTED, kinds))
            return make_row(row.origin, value)
        return row

    def _misfit(self, text: str) -> tuple[DropReason, str] | None:
        limits = self._filters
        count = len(near.words(text)) if limits.min_words is not None or limits.max_words is not None else 0
        for low, high, value, unit in (
            (limits.min_characters, limits.max_characters, len(text), "characters"),
            (limits.min_words, limits.max_words, count, "words"),
        ):
            if fault := _outside(low, high, value, unit):
                return fault
        if limits.quality is Quality.GOPHER and (said := fault_of(text)):
            return DropReason.LOW_QUALITY, said
        return None

    def _measure(self, block: Block) -> list[str]:
        """Count tokens, leave out rows with too many or too few, and answer the texts of the others."""
        values = [row.value() for row in block.rows]
        counts = self._tokenizer.counts(values) if self._tokenizer else [None] * len(values)
        rows, block.rows = block.rows, []
        texts = []
        for row, value, count in zip(rows, values, counts, strict=True):
            if count and (fault := _outside(self._filters.min_tokens, self._filters.max_tokens, count[0], "tokens")):
                block.drops.append(Drop(row.origin, *fault))
                continue
            turns = len(value["messages"]) if "messages" in value else 1
            tokens, supervised, first = count or (0, 0, 0)
            text = text_of(value)
            block.rows.append(row)
            block.measures.append(Measures(label_of(value), tokens, supervised, first, turns, len(text)))
            texts.append(text)
        return texts


def _outside(low: int | None, high: int | None, value: int, unit: str) -> tuple[DropReason, str] | None:
    if low is not None and value < low:
        return DropReason.TOO_SHORT, f"{value} {unit}, under {low}"
    if high is not None and value > high:
        return DropReason.TOO_LONG, f"{value} {unit}, over {high}"
    return None


def listed(found: Counter[PersonalDataKind]) -> str:
    """Kinds and numbers, never what was found."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))


def inspected(rows: Iterable[Row], orders: Orders, processes: int | None = None) -> Iterator[Block]:
    """Blocks of inspected rows, in the order of `rows`.

    Args:
        rows: Read as they are needed, a few blocks ahead.
        orders: What is to be done.
        processes: How many work beside this one; None: one for each processor this pod may use.

    Raises:
        FineTuneError: HostOutOfMemory when a process was killed.
    """
    rest = iter(rows)
    blocks = iter(lambda: list(islice(rest, BLOCK)), [])
    first = list(islice(blocks, _WORTH_PROCESSES))
    wanted = processors() if processes is None else processes
    if wanted < 2 or len(first) < _WORTH_PROCESSES:
        inspector = Inspector(orders)
        for block in _both(first, blocks):
            yield inspector.inspect(block)
        return
    with ProcessPoolExecutor(wanted, multiprocessing.get_context("spawn"), _start, (orders,)) as pool:
        waiting: deque[Future[Block]] = deque()
        try:
            for block in _both(first, blocks):
                waiting.append(pool.submit(_inspect, block))
                if len(waiting) > 2 * wanted:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise FineTuneError(
                FailureReason.HOST_OUT_OF_MEMORY, "a process that inspected rows was killed, as for lack of memory"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _both(first: Iterable[list[Row]], rest: Iterable[list[Row]]) -> Iterator[list[Row]]:
    yield from first
    yield from rest


_inspector: Inspector | None = None
"""A worker process's own."""


def _start(orders: Orders) -> None:
    global _inspector  # noqa: PLW0603 - a process pool has no other place for it
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _inspector = Inspector(orders)


def _inspect(rows: list[Row]) -> Block:
    assert _inspector is not None
    return _inspector.inspect(rows)


def processors() -> int:
    """Processors that this pod may use: by its affinity, and by its cgroup's quota, which Python does not see."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, round(int(quota) / int(period))))
