"""The Hub and S3 through their real clients; mixtures of revisions."""

import shutil
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from finetune_contract.base import StoredReference
from finetune_contract.datasets import (
    DatasetResult,
    DatasetSource,
    Dropped,
    DropReason,
    HubFiles,
    S3Files,
    SplitPlan,
)
from finetune_contract.failure import FailureReason
from finetune_store.manifests import read_manifest
from tests.unit.data.conftest import Pod, jsonl, make_text, mix, part
from tests.unit.data.servers import COMMIT, Served, hub, s3
from tests.unit.data.test_files import parquet_of

TEXTS = [{"text": make_text(number)} for number in range(40)]
HALVES = [jsonl(TEXTS[:20]).encode(), jsonl(TEXTS[20:]).encode()]
CARD = b"""---
license: mit
configs:
- config_name: short
  default: true
  data_files:
  - {split: train, path: "short/*.jsonl"}
  - {split: test, path: ["held-out.parquet"]}
- config_name: long
  data_dir: long
---
# Rows
"""


@pytest.fixture
def rows(pod: Pod) -> StoredReference:
    revision = pod.prepare(jsonl(TEXTS)).revision
    assert revision is not None
    return revision


class Hub:
    def __init__(self, served: Served, pod: Pod) -> None:
        self.served = served
        self.pod = pod

    def prepare(self, **more: Any) -> DatasetResult:
        # Every pod has its own.
        shutil.rmtree(self.pod.root / "scratch")
        (self.pod.root / "scratch").mkdir()
        return self.pod.prepare(DatasetSource(hub=HubFiles(**{"repo": "org/rows", **more})))


@pytest.fixture
def repository(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub({"data/train-0.jsonl": HALVES[0], "data/train-1.jsonl": HALVES[1], "README.md": b"# Rows"}) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setenv("HF_HOME", str(pod.root / "hub"))
        yield Hub(served, pod)


def test_a_repository_without_a_card_is_read_by_its_names(repository: Hub, rows: StoredReference) -> None:
    result = repository.prepare()
    assert result.revision == rows
    assert result.source_revision == COMMIT
    lineage = read_manifest(repository.pod.path(result)).lineage
    assert lineage["name"] == "team-a/tickets"
    assert repository.served.tokens == {"Bearer hf_secret"}
    assert all(
        "/api/datasets/" in request or f"/resolve/{COMMIT}/" in request for request in repository.served.requests
    )


def test_a_card_says_which_files_are_a_split(repository: Hub, rows: StoredReference) -> None:
    repository.served.files |= {
        "README.md": CARD,
        "short/a.jsonl": HALVES[0],
        "short/b.jsonl": HALVES[1],
        "held-out.parquet": parquet_of(TEXTS[:3]),
        "long/train.csv": b"text\n" + make_text(7).encode(),
        "long/test.csv": b"text\n" + make_text(8).encode(),
    }
    assert repository.prepare().revision == rows
    assert repository.prepare(split="test").rows_kept == 3
    (row,) = repository.pod.rows(repository.prepare(config="long", split="test"))
    assert row == {"text": make_text(8)}


def test_a_repository_that_is_not_what_was_asked_for_is_named(repository: Hub) -> None:
    pod, missing = repository.pod, FailureReason.SOURCE_NOT_FOUND
    pod.fails(repository.prepare(repo="org/none"), missing, "spec.source.huggingFace: org/none@main", "404")
    pod.fails(repository.prepare(revision="v2"), missing, "org/rows@v2", "404")
    pod.fails(repository.prepare(split="test"), missing, "huggingFace.split: ", "no split 'test'; it has train")
    pod.fails(repository.prepare(config="de"), missing, "huggingFace.config: ", "it has only default")
    repository.served.files["README.md"] = CARD.replace(b"  default: true\n", b"")
    pod.fails(repository.prepare(), missing, "several configurations: short, long; name one")
    pod.fails(repository.prepare(config="long"), missing, "has no data files")
    repository.served.files = {"data/cat.png": b"png"}
    pod.fails(repository.prepare(), FailureReason.DATASET_INVALID, "split train is data/cat.png; JSON, CSV")
    repository.served.status = 401
    pod.fails(repository.prepare(), FailureReason.SOURCE_ACCESS_DENIED, "refused (401)", "token may not read it")
    repository.served.status = 404
    pod.fails(repository.prepare(), missing, "check repo and revision")


# --- S3 ---


class Bucket:
    def __init__(self, served: Served, pod: Pod) -> None:
        self.served = served
        self.pod = pod

    def prepare(self, path: str, bucket: str = "raw") -> DatasetResult:
        return self.pod.prepare(DatasetSource(s3=S3Files(uri=f"s3://{bucket}/{path}", endpoint=self.served.url)))


@pytest.fixture
def bucket(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    files = {"t/a.jsonl": HALVES[0], "t/b/c.jsonl": HALVES[1], "t/_SUCCESS": b"x", "t/empty": b"", "t2.jsonl": b"{}"}
    with s3(files) as served:
        yield Bucket(served, pod)


@pytest.mark.parametrize("path", ["t", "t/", "t/**/*.jsonl", "[t]/**/?.jsonl"])
def test_a_prefix_or_a_glob_is_read(bucket: Bucket, rows: StoredReference, path: str) -> None:
    result = bucket.prepare(path)
    assert result.revision == rows
    assert result.source_revision is not None
    assert result.source_revision.startswith("sha256:")


def test_one_object_is_read(bucket: Bucket) -> None:
    assert bucket.prepare("t/a.jsonl").rows_kept == 20
    assert bucket.prepare("t/*.jsonl").rows_kept == 20


def test_a_download_that_breaks_off_goes_on(bucket: Bucket, rows: StoredReference) -> None:
    bucket.served.cut = 100
    assert bucket.prepare("t").revision == rows
    assert sum("t/a.jsonl" in request for request in bucket.served.requests) == 2


def test_an_object_that_is_replaced_meanwhile_is_named(bucket: Bucket) -> None:
    def replace(_: str) -> None:
        bucket.served.files["t/b/c.jsonl"] = HALVES[0]

    bucket.served.before = replace
    bucket.pod.fails(bucket.prepare("t"), FailureReason.SOURCE_CHANGED, "s3://raw/t/b/c.jsonl was replaced while")


def test_an_object_that_is_replaced_between_two_parts_of_it_is_named(bucket: Bucket) -> None:
    def replace(name: str) -> None:
        if bucket.served.cut is None:
            bucket.served.files[name] = HALVES[1]

    bucket.served.cut = 100
    bucket.served.before = replace
    bucket.pod.fails(bucket.prepare("t/a.jsonl"), FailureReason.SOURCE_CHANGED, "s3://raw/t/a.jsonl was replaced")


def test_a_bucket_that_does_not_answer_is_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = FailureReason.SOURCE_NOT_FOUND
    bucket.pod.fails(bucket.prepare("none/"), missing, "spec.source.s3.uri: no object matches s3://raw/none/")
    bucket.pod.fails(bucket.prepare("a", bucket="other"), missing, "no such bucket")
    bucket.served.status = 403
    bucket.pod.fails(bucket.prepare("t"), FailureReason.SOURCE_ACCESS_DENIED, "s3://raw/t")
    bucket.served.status = 400
    bucket.pod.fails(bucket.prepare("t"), FailureReason.SOURCE_UNAVAILABLE, "s3://raw/t")
    bucket.served.status = 200
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which remembers
    bucket.pod.fails(bucket.prepare("t"), FailureReason.SOURCE_ACCESS_DENIED, "spec.source.s3.credentialsSecretRef")


def test_a_full_disk_of_the_pod_is_not_the_store_s(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    # /dev/full is a real disk that is always full.
    for number in range(3):
        (bucket.pod.root / f"scratch/object-{number}").symlink_to("/dev/full")
    bucket.pod.fails(
        bucket.prepare("t"), FailureReason.EPHEMERAL_STORAGE_FULL, "spec.source: the download does not fit"
    )


# --- mixtures ---


def texts(pod: Pod, result: DatasetResult, split: str = "train") -> set[str]:
    return {row["text"] for row in pod.rows(result, split)}


def test_a_mixture_has_all_rows_or_their_shares(pod: Pod) -> None:
    first, second = part(pod, "a", TEXTS[:30]), part(pod, "b", TEXTS[30:])
    assert texts(pod, mix(pod, first, second)) == {row["text"] for row in TEXTS}
    weighted = [first.model_copy(update={"weight": 2}), second.model_copy(update={"weight": 1})]
    result = mix(pod, *weighted)
    mixed = texts(pod, result)
    assert len(mixed & {row["text"] for row in TEXTS[:30]}) == 20
    assert len(mixed & {row["text"] for row in TEXTS[30:]}) == 10
    assert mix(pod, *reversed(weighted)).revision == result.revision
    assert mix(pod, *weighted, split=SplitPlan(seed=1)).revision != result.revision


def test_every_row_keeps_its_side_and_what_one_holds_out_no_other_trains_on(pod: Pod) -> None:
    first = part(pod, "a", TEXTS, split=SplitPlan(test=0.3))
    second = part(pod, "b", TEXTS, split=SplitPlan(test=0.3, validation=0.2, seed=7))
    result = mix(pod, first, second)
    sides = {split.name: texts(pod, result, split.name) for split in result.splits}
    assert set(sides) == {"train", "validation", "test"}
    assert set().union(*sides.values()) == {row["text"] for row in TEXTS}
    assert sum(len(side) for side in sides.values()) == 40
    for piece in (first, second):
        held_out = {row["text"] for row in pod.rows(DatasetResult(revision=piece.revision, format="Text"), "test")}
        assert held_out <= sides["test"]
    (dropped,) = result.dropped
    assert dropped == Dropped(reason=DropReason.EXACT_DUPLICATE, rows=40)


def test_conversations_come_back_as_they_were(pod: Pod) -> None:
    rows: list[dict[str, list[dict[str, Any]]]] = [
        {"messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "a", "weight": 0},
                      {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]}
        for n in range(3)
    ]  # fmt: skip
    alone = part(pod, "a", rows)
    plain = part(pod, "b", [{"messages": [turn for turn in rows[0]["messages"] if "weight" not in turn][-2:]}])
    assert mix(pod, alone).revision == alone.revision
    assert mix(pod, alone, plain).rows_kept == 4


def test_parts_of_two_formats_are_refused(pod: Pod) -> None:
    first, second = part(pod, "a", TEXTS), part(pod, "b", [{"prompt": "p", "completion": "c"}])
    result = mix(pod, first, second)
    assert result.failure is not None
    assert result.failure.reason is FailureReason.DATASET_INVALID
    assert "a has Text, b has PromptCompletion" in result.failure.message
