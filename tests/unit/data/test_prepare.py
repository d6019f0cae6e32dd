"""From a source to a revision, through the command that the pod runs."""

import gzip
import os
import time
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.datasets import DatasetSource, Dropped, DropReason, RowFormat, SplitPlan
from finetune_contract.failure import FailureReason
from finetune_store import retention
from finetune_store.manifests import read_manifest
from tests.unit.data.conftest import Pod, jsonl, make_text

TEXTS = [{"text": make_text(number)} for number in range(40)]


def test_a_revision_is_published_with_its_lineage(pod: Pod) -> None:
    result = pod.prepare(jsonl(TEXTS), license="CC-BY-4.0", split=SplitPlan(validation=0.2, test=0.2))
    assert pod.code == 0
    assert result.format is RowFormat.TEXT
    assert (result.rows_read, result.rows_kept, result.dropped) == (40, 40, ())
    splits = {split.name: split.rows for split in result.splits}
    assert list(splits) == ["train", "validation", "test"]
    assert sum(splits.values()) == 40
    read = [row for split in splits for row in pod.rows(result, split)]
    assert sorted(row["text"] for row in read) == sorted(row["text"] for row in TEXTS)
    assert read_manifest(pod.path(result)).lineage == {
        "name": "team-a/tickets",
        "format": "Text",
        "source": "inline",
        "sourceRevision": result.source_revision,
        "license": "CC-BY-4.0",
    }


def test_the_same_rows_are_the_same_revision_however_they_come(pod: Pod) -> None:
    first = pod.prepare(jsonl(TEXTS), split=SplitPlan(test=0.2)).revision
    pod.write("b.jsonl", jsonl(reversed(TEXTS[:25])))
    pod.write("a/c.jsonl.gz", gzip.compress(jsonl(TEXTS[20:]).replace("\n", "\r\n").encode()))
    assert pod.prepare(DatasetSource(files="**/*.jsonl*"), split=SplitPlan(test=0.2)).revision == first
    assert pod.prepare(jsonl(TEXTS), split=SplitPlan(test=0.2, seed=1)).revision != first
    assert pod.prepare(jsonl(TEXTS[1:]), split=SplitPlan(test=0.2)).revision != first


def test_a_revision_that_is_found_is_in_use_again(pod: Pod) -> None:
    path = pod.path(pod.prepare(jsonl(TEXTS)))
    long_ago = time.time() - 1e6
    os.utime(path, (long_ago, long_ago))
    pod.prepare(jsonl(TEXTS))
    assert retention.last_use(path) > time.time() - 1000
    assert retention.namespaces(pod.store.root) == {"team-a"}


def test_what_is_dropped_is_counted_and_listed(pod: Pod) -> None:
    long = make_text(1) + " " + make_text(2) + " " + make_text(3)
    near = long.upper() + "!"
    rows = [{"text": long}, {"text": "  "}, {"text": make_text(9)}, {"text": make_text(9)}, {"text": near}]
    text = jsonl(rows) + "nonsense\n"
    pod.write("tickets.jsonl", text)
    result = pod.prepare(near_duplicate_similarity=0.8, max_bad_rows=1)
    assert (result.rows_read, result.rows_kept) == (6, 2)
    reasons = (DropReason.EXACT_DUPLICATE, DropReason.NEAR_DUPLICATE, DropReason.BAD_ROW, DropReason.EMPTY)
    assert set(result.dropped) == {Dropped(reason=reason, rows=1) for reason in reasons}
    listed = {entry["reason"]: (entry["file"], entry["line"], entry["detail"]) for entry in pod.dropped(result)}
    assert listed["BadRow"] == ("tickets.jsonl", 6, "Expecting value at column 1")
    assert listed["Empty"] == ("tickets.jsonl", 2, "")
    assert listed["ExactDuplicate"] == ("tickets.jsonl", 4, "tickets.jsonl line 3")
    assert listed["NearDuplicate"] in [
        ("tickets.jsonl", 1, "tickets.jsonl line 5"),
        ("tickets.jsonl", 5, "tickets.jsonl line 1"),
    ]


def test_exact_duplicates_may_be_kept_on_one_side(pod: Pod) -> None:
    result = pod.prepare(jsonl(TEXTS * 3), exact_duplicates=False, split=SplitPlan(test=0.3))
    assert result.rows_kept == 120
    train, test = ({row["text"] for row in pod.rows(result, split)} for split in ("train", "test"))
    assert len(train) + len(test) == 40


def test_line_seven_is_named(pod: Pod) -> None:
    lines = jsonl(TEXTS).splitlines()
    lines[6] = '{"text": "where is my parcel" "label": 1}'
    pod.write("tickets.jsonl", "\n".join(lines))
    pod.fails(pod.prepare(), FailureReason.BAD_ROW, "tickets.jsonl line 7: Expecting ',' delimiter at column 31")


def test_more_bad_rows_than_allowed_fail(pod: Pod) -> None:
    pod.write("tickets.jsonl", jsonl(TEXTS) + "[]\n[]\n[]\n")
    said = "tickets.jsonl line 43: is a list, not an object (bad row number 3; spec.prepare.maxBadRows allows 2)"
    pod.fails(pod.prepare(max_bad_rows=2), FailureReason.BAD_ROW, said)


@pytest.mark.parametrize(
    ("text", "settings", "reason", "said"),
    [
        ("", {}, FailureReason.DATASET_INVALID, "tickets.jsonl: holds no rows"),
        ("\n \n", {}, FailureReason.DATASET_INVALID, "tickets.jsonl: holds no rows"),
        ("1\n2\n", {"max_bad_rows": 2}, FailureReason.DATASET_INVALID, "holds no rows (2 BadRow)"),
        ('{"text": ""}\n{"text": null}', {}, FailureReason.DATASET_INVALID, "no row is left of 2 (2 Empty)"),
        (
            '{"text": "a"}\n{"text": "a"}\n{"text": "b"}',
            {"split": SplitPlan(validation=0.1, test=0.1)},
            FailureReason.DATASET_INVALID,
            "spec.split: 2 distinct rows are too few for 3 splits",
        ),
        ('{"text": "a"}', {"split": SplitPlan(test=1.5)}, FailureReason.INVALID_PLAN, "spec.split.test: 1.5"),
        (
            '{"text": "a"}',
            {"split": SplitPlan(test=0.5, validation=0.5)},
            FailureReason.INVALID_PLAN,
            "leave nothing to train on",
        ),
    ],
    ids=["empty file", "blank lines", "all bad", "all empty", "too few", "fraction", "nothing to train on"],
)
def test_what_makes_no_revision_is_named(
    pod: Pod, text: str, settings: dict[str, Any], reason: FailureReason, said: str
) -> None:
    pod.write("tickets.jsonl", text)
    pod.fails(pod.prepare(**settings), reason, said)


# --- files of a volume ---


def test_a_missing_file_is_named_with_what_is_there(pod: Pod) -> None:
    pod.write("ticket.jsonl", "")
    said = "spec.source: no file matches tickets/*.jsonl; the claim or ConfigMap holds ticket.jsonl"
    pod.fails(pod.prepare(DatasetSource(files="tickets/*.jsonl")), FailureReason.SOURCE_NOT_FOUND, said)


def test_a_config_map_is_read_once(pod: Pod) -> None:
    pod.write("..2026_11_21/tickets.jsonl", jsonl(TEXTS))
    (pod.root / "source/..data").symlink_to("..2026_11_21")
    (pod.root / "source/tickets.jsonl").symlink_to("..data/tickets.jsonl")
    assert pod.prepare(DatasetSource(files="**/*")).rows_read == 40


@pytest.mark.parametrize("pattern", ["../store/*", "/etc/hostname", "", "a/../../store"])
def test_a_pattern_that_leaves_the_volume_is_refused(pod: Pod, pattern: str) -> None:
    said = f"{pattern} is not a path inside the volume"
    pod.fails(pod.prepare(DatasetSource(files=pattern)), FailureReason.INVALID_PLAN, said)


def test_a_link_out_of_the_volume_is_refused(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text('{"text": "secret"}')
    (pod.root / "source/tickets.jsonl").symlink_to(tmp_path / "secret.jsonl")
    pod.fails(pod.prepare(), FailureReason.INVALID_PLAN, "tickets.jsonl links out of the volume")
