"""Staging a base model from each source, through the command that the pod runs."""

import json
import os
import random
import shutil
import time

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.evaluating import Metric, Score
from finetune_contract.failure import FailureReason
from finetune_contract.manifest import StoredKind
from finetune_contract.methods import Method
from finetune_contract.results import Artifact, ArtifactType, StageResult, Timing, TrainingResult
from finetune_contract.run import run_key
from finetune_contract.staging import BaseSource, RunIngredients
from finetune_store import retention
from finetune_store.edge import fitting
from tests.unit.store.stage.pods import DATASET, MODEL, UNNEEDED, Pod, fails, write

# --- volume


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
    fails(answer, FailureReason.MODEL_NOT_FOUND, "spec.baseModel.persistentVolumeClaim: tiny", said)
    assert not (pod.root / "store/models").exists()
    assert not list((pod.root / "store").glob(".work/*"))


def test_a_missing_directory_is_named_with_what_is_there(pod: Pod) -> None:
    (pod.root / "source/tinny").mkdir()
    fails(
        pod.stage(BaseSource(volume="tiny")),
        FailureReason.MODEL_NOT_FOUND,
        "spec.baseModel.persistentVolumeClaim.path: there is no directory tiny in the claim; it holds tinny",
    )


# --- content of the store, and runs


def test_stored_content_is_verified(pod: Pod) -> None:
    write(pod.root / "source", MODEL)
    base = pod.stage(BaseSource(volume="."))[1].base
    assert base is not None
    assert pod.stage(BaseSource(stored=base)) == (0, StageResult(base=base))
    (pod.store.path(base) / "model.safetensors").unlink()
    fails(pod.stage(BaseSource(stored=base)), FailureReason.CHECKSUM_MISMATCH, "model.safetensors: is missing")


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
    fails(pod.stage(source, run), FailureReason.CHECKSUM_MISMATCH, "adapter_config.json: is missing")


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


# --- the edge


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
