"""The report of one reading: `report.html` for people, `statistics.json` for programs, and the list of rows."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from finetune_contract.datasets import RowFormat
from finetune_trainer.data.clean import Part
from finetune_trainer.data.page import Sample, page
from finetune_trainer.data.personal import Recogniser
from finetune_trainer.data.revision import DROPPED_FILE, write_account
from finetune_trainer.data.rows import Account, Row
from finetune_trainer.data.split import TRAIN
from finetune_trainer.data.statistics import Statistics
from finetune_trainer.data.tokens import Tokenizer
from finetune_trainer.data.turns import WEIGHT

REPORT_FILE = "report.html"
STATISTICS_FILE = "statistics.json"

_SAMPLES = 10
_SAMPLE_CHARACTERS = 4000


def write_report(
    directory: Path,
    statistics: Statistics,
    parts: Mapping[str, Part],
    account: Account,
    tokenizer: Path | None,
    lineage: Mapping[str, str],
) -> None:
    """Write the report's files."""
    (directory / STATISTICS_FILE).write_text(statistics.to_json() + "\n", encoding="utf-8")
    write_account(directory / DROPPED_FILE, account)
    loaded = Tokenizer(tokenizer, statistics.format) if tokenizer else None
    samples = list(_samples(islice(parts[TRAIN], _SAMPLES), statistics.format, loaded))
    (directory / REPORT_FILE).write_text(page(statistics, samples, lineage), encoding="utf-8")


def _samples(rows: Iterator[Row], row_format: RowFormat, tokenizer: Tokenizer | None) -> Iterator[Sample]:
    """Rows as the model will see them: the first by digest, so by chance, and the same in every report.

    Personal data is replaced here whatever the policy: reports are passed on.
    """
    recogniser = Recogniser()
    for row in rows:
        value, _ = recogniser.redacted_value(row.value())
        if tokenizer is None:
            yield Sample(str(row.origin), _plain(value, row_format))
            continue
        (tokens,) = tokenizer.tokens([value])
        pieces = [(text, is_learnt) for text, is_learnt in tokenizer.pieces(tokens)]
        yield Sample(str(row.origin), _cut(pieces), len(tokens.ids), sum(tokens.supervised))


def _plain(value: dict[str, Any], row_format: RowFormat) -> list[tuple[str, bool]]:
    """A row's texts without a tokenizer: what is learnt is known, how it is marked is not."""
    pieces: list[tuple[str, bool]] = []
    learnt = {"completion", "chosen"} | ({"text"} if row_format is RowFormat.TEXT else set())
    learnt |= {"label"} if row_format is RowFormat.CLASSIFICATION else set()
    for column, part in sorted(value.items(), key=lambda item: item[0] in learnt):
        if isinstance(part, list):
            pieces += [(f"{turn['role']}: {turn['content']}\n", _is_learnt(turn)) for turn in part]
        else:
            pieces.append((f"{column}: {part}\n", column in learnt))
    return _cut(pieces)


def _is_learnt(turn: dict[str, Any]) -> bool:
    return turn["role"] == "assistant" and turn.get(WEIGHT) != 0


def _cut(pieces: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """At most so much of a row as a person reads; the middle of long texts is left out."""
    limit = max(200, _SAMPLE_CHARACTERS // max(1, len(pieces)))
    return [
        (text if len(text) <= limit else f"{text[: limit // 2]} [\u2026] {text[-limit // 2 :]}", is_learnt)
        for text, is_learnt in pieces[:40]
    ]
