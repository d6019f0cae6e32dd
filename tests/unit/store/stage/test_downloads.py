"""Base models from the Hub and from S3, and how their refusals are named."""

from collections.abc import Iterator

import pytest

from finetune_contract.failure import FailureReason
from finetune_contract.staging import BaseSource, HubModel, S3Model
from tests.unit.store.servers import COMMIT, Served, hub, s3
from tests.unit.store.stage.pods import MODEL, UNNEEDED, Pod, fails

# --- the Hub


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with hub(MODEL | UNNEEDED) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


TINY = BaseSource(hub=HubModel(repo="org/tiny"))


def test_a_hub_model_is_downloaded_once(pod: Pod, mirror: Served) -> None:
    code, result = pod.stage(TINY)
    assert code == 0, result.failure
    assert pod.staged_files(result) == MODEL
    assert result.revision == COMMIT
    assert result.base is not None
    lineage = {"source": "hub:org/tiny", "revision": COMMIT, "license": "mit"}
    assert pod.store.check(result.base).lineage == lineage
    downloads = mirror.downloads()
    assert downloads == len(MODEL)
    assert pod.stage(TINY) == (0, result)
    assert mirror.downloads() == downloads


def test_a_model_that_was_damaged_in_the_store_is_downloaded_again(pod: Pod, mirror: Served) -> None:
    result = pod.stage(TINY)[1]
    assert result.base is not None
    (pod.store.path(result.base) / "model.safetensors").write_text("bitrot!")
    assert pod.stage(TINY) == (0, result)
    assert pod.staged_files(result) == MODEL


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        (401, FailureReason.MODEL_ACCESS_DENIED, "no token was given; set tokenSecretRef"),
        (403, FailureReason.MODEL_ACCESS_DENIED, "refused (403)"),
        (404, FailureReason.MODEL_NOT_FOUND, "not found (404)"),
        (500, FailureReason.SOURCE_UNAVAILABLE, "answered 500"),
    ],
)
def test_the_hubs_refusals_are_named(pod: Pod, mirror: Served, status: int, reason: FailureReason, said: str) -> None:
    mirror.status = status
    fails(pod.stage(TINY), reason, f"spec.baseModel.huggingFace: org/tiny@main at {mirror.url}", said)


def test_the_token_is_sent_and_never_said(pod: Pod, mirror: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    mirror.status = 403
    result = pod.stage(TINY)[1]
    assert result.failure is not None
    assert "the token may not read it" in result.failure.message
    assert "hf_secret" not in result.failure.message


@pytest.mark.parametrize(
    ("repo", "revision"), [("org/tiny", "v9"), ("org/huge", "main"), ("not/a/repo", "main")], ids=str
)
def test_what_the_hub_does_not_have_is_named(pod: Pod, mirror: Served, repo: str, revision: str) -> None:
    answer = pod.stage(BaseSource(hub=HubModel(repo=repo, revision=revision)))
    fails(answer, FailureReason.MODEL_NOT_FOUND, f"{repo}@{revision}")


def test_a_hub_that_does_not_answer_is_named(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    fails(pod.stage(TINY), FailureReason.SOURCE_UNAVAILABLE, "org/tiny@main at http://127.0.0.1:9", "ConnectError")


# --- S3


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with s3({f"base/tiny/{name}": text for name, text in (MODEL | UNNEEDED).items()}) as served:
        yield served


def in_bucket(served: Served, uri: str = "s3://models/base/tiny") -> BaseSource:
    return BaseSource(s3=S3Model(uri=uri, endpoint=served.url))


@pytest.mark.parametrize("uri", ["s3://models/base/tiny", "s3://models/base/tiny/"])
def test_an_s3_prefix_is_downloaded_once(pod: Pod, bucket: Served, uri: str) -> None:
    code, result = pod.stage(in_bucket(bucket, uri))
    assert code == 0, result.failure
    assert pod.staged_files(result) == MODEL
    bucket.requests.clear()
    assert pod.stage(in_bucket(bucket, uri)) == (0, result)
    assert len(bucket.requests) == 1


@pytest.mark.parametrize(
    ("uri", "reason", "said"),
    [
        ("s3://models/base/huge", FailureReason.MODEL_NOT_FOUND, "has no config.json"),
        ("s3://nobody/base", FailureReason.MODEL_NOT_FOUND, "NoSuchBucket"),
        ("http://models/base", FailureReason.INVALID_PLAN, "is not an address; use s3://bucket/prefix"),
    ],
    ids=["prefix", "bucket", "scheme"],
)
def test_what_s3_does_not_have_is_named(pod: Pod, bucket: Served, uri: str, reason: FailureReason, said: str) -> None:
    fails(pod.stage(in_bucket(bucket, uri)), reason, "spec.baseModel.s3", uri, said)


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", None], ids=["no credentials", "refused"])
def test_s3_access_is_named(pod: Pod, bucket: Served, monkeypatch: pytest.MonkeyPatch, missing: str | None) -> None:
    if missing:
        monkeypatch.delenv(missing)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(pod.root / "none"))
    bucket.status = 403
    fails(pod.stage(in_bucket(bucket)), FailureReason.MODEL_ACCESS_DENIED, "spec.baseModel.s3.uri")


def test_an_object_that_changes_while_it_is_read_is_refused(
    pod: Pod, bucket: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    etag = bucket.etag
    answers = iter(["first", "second"])
    monkeypatch.setattr(
        bucket, "etag", lambda name: next(answers, "later") if name.endswith("config.json") else etag(name)
    )
    fails(pod.stage(in_bucket(bucket)), FailureReason.SOURCE_UNAVAILABLE, "changed while it was read")
