"""Staging a base model from each source, through the command that the pod runs."""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_contract.adapterfacts import AdapterFeature
from finetune_contract.base import StoredReference
from finetune_contract.evaluating import Metric, Score
from finetune_contract.failure import FailureReason, policy_of
from finetune_contract.manifest import StoredKind
from finetune_contract.methods import Method
from finetune_contract.results import Artifact, ArtifactType, StageResult, Timing, TrainingResult
from finetune_contract.run import run_key
from finetune_contract.staging import BaseSource, HubModel, RunIngredients, S3Model, StagePlan
from finetune_store import retention
from finetune_store.__main__ import main
from finetune_store.edge import fitting
from finetune_store.store import Store
from tests.unit.store.servers import COMMIT, Served, hub, s3
from tests.unit.store.test_adapterfiles import header, layers

MODEL = {
    "config.json": "{}",
    "model.safetensors": "weights",
    "tokenizer.json": "{}",
    "chat_template.jinja": "{{ messages }}",
}
UNNEEDED = {
    "README.md": "# Tiny",
    "pytorch_model.bin": "pickle",
    "original/model.safetensors": "again",
    "modeling_tiny.py": "import os",
    "consolidated.safetensors": "again",
}
DATASET = "sha256:" + "d" * 64


class Pod:
    """Runs `python -m finetune_store stage` on directories of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("store", "source", "scratch"):
            (root / name).mkdir()
        self.store = Store(root / "store", "artifacts")

    def stage(
        self, source: BaseSource, run: RunIngredients | None = None, *adapters: StoredReference
    ) -> tuple[int, StageResult]:
        plan = StagePlan(name="tiny", namespace="team-a", source=source, run=run, adapters=adapters, claim="artifacts")
        (self.root / "plan.json").write_text(plan.to_json())
        return self.run()

    def run(self) -> tuple[int, StageResult]:
        flags = {"plan": "plan.json", "store": "store", "source": "source", "scratch": "scratch"}
        arguments = [f"--{flag}={self.root / name}" for flag, name in flags.items()]
        code = main(["stage", *arguments, f"--termination-log={self.root / 'log'}"])
        assert (self.root / "log").stat().st_size <= 4096
        return code, StageResult.from_message((self.root / "log").read_text())

    def staged_files(self, result: StageResult) -> dict[str, str]:
        assert result.base is not None
        path = self.store.verify(result.base)
        files = (file for file in path.rglob("*") if file.is_file() and file.name != "manifest.json")
        return {file.relative_to(path).as_posix(): file.read_text() for file in files}


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def fails(answer: tuple[int, StageResult], reason: FailureReason, *said: str) -> None:
    code, result = answer
    assert result.failure is not None
    assert (result.failure.reason, code) == (reason, policy_of(reason).exit_code)
    assert result.base is None
    for words in said:
        assert words in result.failure.message


# --- volume ---


def test_a_volume_is_copied_once(pod: Pod) -> None:
    write(pod.root / "source/tiny", MODEL | UNNEEDED)
    code, result = pod.stage(BaseSource(volume="tiny"))
    assert code == 0
    assert pod.staged_files(result) == MODEL
    assert result.revision is None
    assert result.run_key is None
    assert pod.stage(BaseSource(volume="tiny")) == (0, result)


def test_a_base_that_is_found_is_in_use_again(pod: Pod) -> None:
    write(pod.root / "source/tiny", MODEL)
    base = pod.stage(BaseSource(volume="tiny"))[1].base
    assert base is not None
    long_ago = time.time() - 1e6
    os.utime(pod.store.path(base), (long_ago, long_ago))
    pod.stage(BaseSource(volume="tiny"))
    assert retention.last_use(pod.store.path(base)) > time.time() - 1000
    assert retention.namespaces(pod.store.root) == {"team-a"}


def test_the_mount_itself_may_be_the_model(pod: Pod) -> None:
    write(pod.root / "source", MODEL)
    assert pod.staged_files(pod.stage(BaseSource(volume="."))[1]) == MODEL


def test_changed_content_is_another_model(pod: Pod) -> None:
    write(pod.root / "source", MODEL)
    first = pod.stage(BaseSource(volume="."))[1].base
    write(pod.root / "source", {"model.safetensors": "WEIGHTS"})
    assert pod.stage(BaseSource(volume="."))[1].base != first


def test_links_within_the_claim_are_followed(pod: Pod) -> None:
    write(pod.root / "source/blobs", MODEL)
    (pod.root / "source/tiny").mkdir()
    for name in MODEL:
        (pod.root / "source/tiny" / name).symlink_to(f"../blobs/{name}")
    assert pod.staged_files(pod.stage(BaseSource(volume="tiny"))[1]) == MODEL


def test_links_out_of_the_claim_are_refused(pod: Pod) -> None:
    write(pod.root / "source", MODEL)
    (pod.root / "source/tokenizer_config.json").symlink_to("/etc/hostname")
    fails(pod.stage(BaseSource(volume=".")), FailureReason.INVALID_PLAN, "tokenizer_config.json links out of the claim")


@pytest.mark.parametrize("path", ["../store", "/etc", "tiny/../../store"])
def test_a_path_out_of_the_claim_is_refused(pod: Pod, path: str) -> None:
    fails(pod.stage(BaseSource(volume=path)), FailureReason.INVALID_PLAN, f"path: {path} leaves the claim")


INDEX = json.dumps({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}})


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has no config.json (found no files of a model)"),
        ({"model.safetensors": "x"}, "has no config.json (found model.safetensors)"),
        ({"config.json": "{}", "pytorch_model.bin": "x"}, "has no weights in model*.safetensors (found config.json)"),
        (
            {"config.json": "{}", "model.safetensors.index.json": INDEX, "model-1-of-2.safetensors": "x"},
            "model-2-of-2.safetensors, named by model.safetensors.index.json, is missing",
        ),
        (MODEL | {"model.safetensors.index.json": "[]"}, "model.safetensors.index.json is not an index of shards"),
    ],
    ids=["empty", "no config", "pickles only", "missing shard", "bad index"],
)
def test_what_is_no_model_is_named(pod: Pod, files: dict[str, str], said: str) -> None:
    (pod.root / "source/tiny").mkdir()
    write(pod.root / "source/tiny", files)
    answer = pod.stage(BaseSource(volume="tiny"))
    fails(answer, FailureReason.MODEL_NOT_FOUND, "spec.baseModel.persistentVolumeClaim: volume:tiny", said)
    assert not (pod.root / "store/models").exists()
    assert not list((pod.root / "store").glob(".work/*"))


def test_a_missing_directory_is_named(pod: Pod) -> None:
    fails(
        pod.stage(BaseSource(volume="tiny")),
        FailureReason.MODEL_NOT_FOUND,
        "spec.baseModel.persistentVolumeClaim.path: volume:tiny is not a directory of the claim",
    )


# --- the Hub ---


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


# --- S3 ---


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


# --- content of the store, and runs ---


def test_stored_content_is_verified(pod: Pod) -> None:
    write(pod.root / "source", MODEL)
    base = pod.stage(BaseSource(volume="."))[1].base
    assert base is not None
    assert pod.stage(BaseSource(stored=base)) == (0, StageResult(base=base))
    (pod.store.path(base) / "model.safetensors").unlink()
    fails(pod.stage(BaseSource(stored=base)), FailureReason.STORAGE_UNAVAILABLE, "model.safetensors: is missing")


def test_an_adapter_is_no_base(pod: Pod) -> None:
    with pod.store.workspace(StoredKind.ARTIFACT) as work:
        write(work, {"adapter_model.safetensors": "x"})
        ref = pod.store.publish(StoredKind.ARTIFACT, work, {})
    fails(pod.stage(BaseSource(stored=ref)), FailureReason.MODEL_NOT_FOUND, "is not a whole model")


RUN = RunIngredients(train_fields={"method": Method.SFT.value}, dataset=DATASET)


def outcome_of(pod: Pod, base: StoredReference, key: str) -> TrainingResult:
    scores = [
        Score(metric=metric, system=system, value=1 / 3, low=1 / 3, high=1 / 3, rows=200)
        for metric in Metric
        for system in ("Tuned", "ZeroShot", "FewShot", "Previous", "Teacher", "Other")
    ]
    artifact = Artifact(digest=base.digest, uri=base.uri, type=ArtifactType.ADAPTER, bytes=1, base=base)
    pick = random.Random(0)  # so that compression does not make them fit
    timings = tuple(Timing(stage=f"Stage{n}", seconds=pick.random()) for n in range(400))
    return TrainingResult(run_key=key, attempt=1, artifact=artifact, evaluation=tuple(scores), timings=timings)


def test_a_new_run_has_a_key_and_no_outcome(pod: Pod) -> None:
    write(pod.root / "source", MODEL)
    result = pod.stage(BaseSource(volume="."), RUN)[1]
    assert result.base is not None
    assert result.run_key == run_key(RUN.train_fields, DATASET, result.base.digest)
    assert result.outcome is None


def test_what_else_decides_a_run_is_verified_and_part_of_its_key(pod: Pod) -> None:
    with pod.store.workspace(StoredKind.ARTIFACT) as work:
        write(work, {"adapter_config.json": "{}"})
        adapter = pod.store.publish(StoredKind.ARTIFACT, work, {})
    write(pod.root / "source", MODEL)
    source = BaseSource(volume=".")
    run = RUN.model_copy(update={"inputs": {"adapter": adapter}})
    _, plain = pod.stage(source, RUN)
    _, chained = pod.stage(source, run)
    assert plain.run_key != chained.run_key
    (pod.store.path(adapter) / "adapter_config.json").unlink()
    fails(pod.stage(source, run), FailureReason.STORAGE_UNAVAILABLE, "adapter_config.json: is missing")


def test_an_earlier_success_is_found_and_fits(pod: Pod) -> None:
    write(pod.root / "source", MODEL)
    first = pod.stage(BaseSource(volume="."), RUN)[1]
    assert first.base is not None
    assert first.run_key is not None
    outcome = outcome_of(pod, first.base, first.run_key)
    pod.store.publish_outcome(outcome)
    with pytest.raises(ValueError, match="does not fit"):
        fitting(first.model_copy(update={"outcome": outcome}))
    code, again = pod.stage(BaseSource(volume="."), RUN)
    assert code == 0
    assert again.outcome == outcome.model_copy(update={"timings": ()})


# --- the edge ---


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("{", "Invalid JSON"),
        ('{"version": 2}', "version: Input should be 1"),
        (None, "plan.json: No such file"),
    ],
    ids=["torn", "another release", "missing"],
)
def test_a_bad_plan_is_named(pod: Pod, plan: str | None, said: str) -> None:
    if plan is not None:
        (pod.root / "plan.json").write_text(plan)
    fails(pod.run(), FailureReason.CONTRACT_VIOLATION, said)


def test_a_store_that_is_not_mounted_is_named(pod: Pod) -> None:
    shutil.rmtree(pod.root / "store")
    fails(pod.stage(BaseSource(volume=".")), FailureReason.STORAGE_UNAVAILABLE, "claim artifacts is not mounted")


def put_adapter(pod: Pod, rank: int = 8, base: str | None = None, **config: object) -> StoredReference:
    """An adapter that somebody has put into the store."""
    with pod.store.workspace(StoredKind.ARTIFACT) as work:
        (work / "adapter_config.json").write_text(json.dumps({"r": rank, **config}))
        (work / "adapter_model.safetensors").write_bytes(header(layers(rank=rank)))
        return pod.store.publish(StoredKind.ARTIFACT, work, {"base": base} if base else {})


def test_adapters_named_by_address_are_described(pod: Pod) -> None:
    write(pod.root / "source/tiny", MODEL | {"config.json": '{"model_type": "llama"}'})
    base = pod.stage(BaseSource(volume="tiny"))[1].base
    assert base is not None
    plain, dora = put_adapter(pod), put_adapter(pod, 16, base.digest, use_dora=True)
    code, result = pod.stage(BaseSource(volume="tiny"), None, plain, dora)
    assert (code, result.base) == (0, base)
    assert [(facts.rank, facts.family) for facts in result.adapters] == [(8, "llama"), (16, "llama")]
    assert [facts.features for facts in result.adapters] == [(), (AdapterFeature.DORA,)]


def test_very_many_adapters_fit_a_result(pod: Pod) -> None:
    write(pod.root / "source/tiny", MODEL)
    adapters = [put_adapter(pod, rank) for rank in range(1, 33)]
    code, result = pod.stage(BaseSource(volume="tiny"), None, *adapters)
    assert (code, [facts.rank for facts in result.adapters]) == (0, list(range(1, 33)))


def test_an_adapter_of_another_base_is_refused_with_both_digests(pod: Pod) -> None:
    write(pod.root / "source/tiny", MODEL)
    answer = pod.stage(BaseSource(volume="tiny"), None, put_adapter(pod, base="sha256:" + "f" * 64))
    fails(answer, FailureReason.INVALID_PLAN, "was trained from sha256:ffff", "spec.baseModel is sha256:")


def test_what_is_no_adapter_is_refused(pod: Pod) -> None:
    write(pod.root / "source/tiny", MODEL)
    model = pod.stage(BaseSource(volume="tiny"))[1].base
    assert model is not None
    fails(pod.stage(BaseSource(volume="tiny"), None, model), FailureReason.INVALID_PLAN, "is no adapter")
