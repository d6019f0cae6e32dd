"""What people hand in by mistake: each ends in a named failure with its place, no revision and no partial directory."""

import gzip
import hashlib
import json
import os
import subprocess
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest

from finetune_contract.cleaning import CleaningPlan, Filters
from finetune_contract.datasets import DatasetSource, DropReason, SplitPlan
from finetune_contract.failure import FailureReason
from tests.unit.data.conftest import Pod, jsonl, make_text

GOOD = [{"text": make_text(number)} for number in range(5)]
BAD, INVALID = FailureReason.BAD_ROW, FailureReason.DATASET_INVALID


def third(line: bytes | dict[str, Any], good: dict[str, Any] = GOOD[0]) -> bytes:
    """Two good lines, then this one, then another good one."""
    text = line if isinstance(line, bytes) else json.dumps(line).encode()
    return b"\n".join([json.dumps(good).encode()] * 2 + [text] + [json.dumps(good).encode()])


def chat(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": "a"} for role in roles]}


def archive() -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("rows.jsonl", b"0" * 10_000_000)
    return content.getvalue()


CHAT = chat("user", "assistant")
DEEP = "[" * 50_000 + "]" * 50_000
LONG_ROW = b'{"text": "' + b"a" * 1_000_000 + b'"}\n'

CASES: dict[str, tuple[str, bytes, FailureReason, str]] = {
    "nothing": ("a.jsonl", b"", INVALID, "a.jsonl: holds no rows"),
    "an empty list": ("a.json", b"[]", INVALID, "a.json: holds no rows"),
    "a header alone": ("a.csv", b"text\n", INVALID, "a.csv: holds no rows"),
    "nothing but empty rows": ("a.jsonl", b'{"text": " "}\n' * 3, INVALID, "no row is left of 3 (3 Empty)"),
    "Latin-1": ("a.jsonl", third(b'{"text": "K\xf6ln"}'), BAD, "a.jsonl line 3: is not UTF-8 at byte 12"),
    "UTF-16": ("a.csv", "text\nK\u00f6ln\n".encode("utf-16"), INVALID, "a.csv: is UTF-16; save it as UTF-8"),
    "a line of 100 MB": ("a.jsonl", third(LONG_ROW[:-2] * 100), BAD, "line 3: is longer than 16 MiB"),
    "a gzip bomb": ("a.jsonl.gz", gzip.compress(LONG_ROW * 70), INVALID, "like a decompression bomb"),
    "a ZIP bomb": ("a.zip", archive(), INVALID, "a.zip: is a ZIP archive"),
    "deep nesting": ("a.jsonl", third(b'{"text": ' + DEEP.encode() + b"}"), BAD, "line 3: is nested too deeply"),
    "deep nesting in a text": ("a.jsonl", third({**CHAT, "tools": DEEP}, CHAT), BAD, "line 3: tools is no JSON"),
    "NaN": ("a.jsonl", third(b'{"text": NaN}'), BAD, "line 3: holds NaN, which is not JSON"),
    "a key twice": ("a.jsonl", third(b'{"text": "a", "text": "b"}'), BAD, "line 3: has the key 'text' twice"),
    "an assistant who begins": ("a.jsonl", third(chat("assistant"), CHAT), BAD, "line 3: messages[0].role is"),
    "a role twice": ("a.jsonl", third(chat("user", "user"), CHAT), BAD, "line 3: messages[1].role is 'user'"),
    "a column that is missing": ("a.jsonl", third({"body": "a"}), BAD, "line 3: has no column 'text', unlike"),
    "unknown columns": ("a.csv", b"a,b\n1,2\n", INVALID, "a.csv line 2: has the columns a, b; no format has these"),
    "mixed formats": ("a.jsonl", third({"text": "a", "label": "b"}), BAD, "line 3: is a row of Classification"),
    "a page instead of data": ("a.jsonl", b"<!doctype html><title>Sign in</title>", INVALID, "a.jsonl: is HTML or XML"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_has_a_name_and_leaves_nothing(pod: Pod, case: str) -> None:
    name, content, reason, said = CASES[case]
    pod.write(name, content)
    pod.fails(pod.prepare(), reason, said)


@pytest.mark.parametrize("case", [case for case, (_, _, reason, _) in CASES.items() if reason is BAD])
def test_bad_rows_that_are_allowed_are_counted(pod: Pod, case: str) -> None:
    name, content, _, _ = CASES[case]
    pod.write(name, content)
    result = pod.prepare(max_bad_rows=1)
    assert result.failure is None, result.failure
    assert {dropped.reason: dropped.rows for dropped in result.dropped}[DropReason.BAD_ROW] == 1
    assert result.rows_read == 4


def test_formats_are_not_mixed_over_files_either(pod: Pod) -> None:
    pod.write("a.jsonl", jsonl(GOOD))
    pod.write("b.csv", "text,label\na,b\n")
    pod.fails(pod.prepare(DatasetSource(files="*")), BAD, "b.csv line 2: is a row of Classification")


def test_filters_that_leave_nothing_are_named(pod: Pod) -> None:
    pod.write("a.jsonl", jsonl(GOOD))
    result = pod.prepare(cleaning=CleaningPlan(filters=Filters(min_words=100)))
    pod.fails(result, INVALID, "no row is left of 5 (5 TooShort)")


@pytest.mark.parametrize("seed", range(5))
def test_a_label_with_one_row_is_trained_on_and_never_held_out_alone(pod: Pod, seed: int) -> None:
    rows = [{"text": make_text(number), "label": "usual"} for number in range(30)]
    pod.write("a.jsonl", jsonl([*rows, {"text": make_text(30), "label": "lonely"}]))
    result = pod.prepare(split=SplitPlan(test=0.4, seed=seed, stratify_by="label"))
    assert [row["text"] for row in pod.rows(result) if row["label"] == "lonely"] == [make_text(30)]
    assert {row["label"] for row in pod.rows(result, "test")} == {"usual"}


@pytest.fixture
def small_store(pod: Pod) -> Iterator[Pod]:
    """A store on a volume of 256 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0777", "tmpfs", str(pod.root / "store")]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small volume")
    try:
        yield pod
    finally:
        subprocess.run(["umount", str(pod.root / "store")], check=True)


def test_a_full_volume_is_named_and_nothing_stays_on_it(small_store: Pod) -> None:
    rows = [{"text": hashlib.sha512(f"{number}".encode()).hexdigest()} for number in range(10_000)]
    small_store.fails(small_store.prepare(jsonl(rows)), FailureReason.STORAGE_FULL, "No space left on device")
