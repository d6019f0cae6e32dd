"""A revision's digest is its rows' and nothing else's; a large split is several files."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.datasets import DatasetSource, MixturePart, RowFormat, SplitPlan
from finetune_contract.methods import Method
from finetune_trainer.data import mixture, revision
from finetune_trainer.data.revision import shards_of
from finetune_trainer.train.rows import open_revision
from tests.unit.data.conftest import Pod, jsonl, make_text
from tests.unit.data.test_files import csv_of, parquet_of, zstd

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1).filter(str.strip)
SIDES = ("train", "test")
PAIRS = st.lists(st.fixed_dictionaries({"prompt": TEXT, "completion": TEXT}), min_size=2, max_size=8)
WRITERS = [
    ("jsonl", lambda rows: jsonl(rows).encode()),
    ("json", lambda rows: json.dumps(rows, indent=2).encode()),
    ("csv", csv_of),
    ("parquet", parquet_of),
    ("jsonl.zst", lambda rows: zstd(jsonl(rows).encode())),
]


@given(PAIRS, st.data())
def test_order_files_and_types_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], data: st.DataObject
) -> None:
    pod = Pod(tmp_path_factory.mktemp("pod"))
    first = pod.prepare(jsonl(rows))
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(1, len(rows) - 1))
    for number, part in enumerate((shuffled[:cut], shuffled[cut:])):
        suffix, write = data.draw(st.sampled_from(WRITERS))
        pod.write(f"{data.draw(st.integers(0, 99))}-{number}.{suffix}", write(part))
    again = pod.prepare()
    assert again.failure is None, again.failure
    assert again.revision == first.revision


def test_a_large_split_is_several_files_of_the_same_revision(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"messages": [{"role": "user", "content": make_text(n)}, {"role": "assistant", "content": "a"}]}
        | ({"tools": "[]"} if n == 39 else {})
        for n in range(40)
    ]
    monkeypatch.setattr(revision, "_SHARD_BYTES", 1000)
    result = pod.prepare(jsonl(rows), split=SplitPlan(test=0.2))
    directory = pod.path(result)
    names = [path.name for path in shards_of(directory, "train")]
    assert len(names) > 3
    assert names[0] == f"train-00000-of-{len(names):05d}.parquet"
    # Every file of a split has the columns that any of its rows needs.
    schemas = [{tuple(parquet.read_schema(path).names) for path in shards_of(directory, split)} for split in SIDES]
    assert all(len(found) == 1 for found in schemas)
    assert {("messages", "tools")} in schemas
    read = open_revision(directory, Method.SFT)
    assert read.row_format is RowFormat.MESSAGES
    assert sum(len(read.rows(split)) for split in SIDES) == 40
    monkeypatch.undo()
    assert pod.prepare(jsonl(rows), split=SplitPlan(test=0.2)).revision == result.revision


@pytest.mark.parametrize("version", ["1.0", "2.4", "2.6"])
def test_another_writer_s_files_are_the_same_rows(pod: Pod, version: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "a"}]} for n in range(5)
    ]
    result = pod.prepare(jsonl(rows))
    assert result.revision is not None
    directory = pod.path(result)
    (shard,) = shards_of(directory, "train")
    table = parquet.read_table(shard)
    parquet.write_table(table, tmp_path / "again.parquet", version=version, compression="snappy", row_group_size=2)
    read = [row.canonical for row in mixture.rows_in("a", [tmp_path / "again.parquet"], "train")]
    assert read == [row.canonical for row in mixture.rows_in("a", [shard], "train")]
    mixed = pod.prepare(DatasetSource(mixture=(MixturePart(name="a", revision=result.revision),)))
    assert mixed.revision == result.revision
