"""What both sides of the pod boundary rely on."""

import base64
import json
import math
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_contract.base import Document
from finetune_contract.collection import CollectionResult
from finetune_contract.datasets import DatasetPlan, DatasetResult, DatasetSource
from finetune_contract.evaluating import SYSTEMS, TUNED, Baseline, Metric, Score, Speed, p_words
from finetune_contract.failure import (
    Failure,
    FailureReason,
    FineTuneError,
    policy_of,
    reason_of,
    reason_of_exit_code,
)
from finetune_contract.manifest import FileEntry, Manifest, StoredKind, digest_of_files
from finetune_contract.paths import TERMINATION_LIMIT
from finetune_contract.results import Progress, RunWarning, StageResult, Timing, TrainingResult, WarningReason
from finetune_contract.run import run_key
from finetune_contract.serving import ServingPlan
from finetune_contract.staging import StagePlan
from finetune_contract.training import TrainingPlan
from tests.factories import dataset_result, digest, failed_training, stage_result, stored, training_result

HERE = Path(__file__).parent


# --- run keys


@pytest.mark.parametrize("sample", json.loads((HERE / "run_keys.json").read_text()), ids=lambda sample: sample["name"])
def test_run_keys_never_change(sample: dict[str, Any]) -> None:
    """A changed key trains again what has been trained; raise HASH_VERSION only where that is meant."""
    assert run_key(sample["train"], sample["dataset"], sample["base"]) == sample["key"]


def test_the_order_of_fields_does_not_matter_and_every_part_does() -> None:
    one = run_key({"a": 1, "b": 2}, digest("d"), digest("b"))
    assert one == run_key({"b": 2, "a": 1}, digest("d"), digest("b"))
    others = [
        run_key({"a": 1, "b": 3}, digest("d"), digest("b")),
        run_key({"a": 1, "b": 2}, digest("e"), digest("b")),
        run_key({"a": 1, "b": 2}, digest("d"), digest("c")),
    ]
    assert len({one, *others}) == 4


# --- failures


@pytest.mark.parametrize("reason", FailureReason)
def test_each_reason_has_a_policy_and_a_remedy(reason: FailureReason) -> None:
    policy = policy_of(reason)
    assert policy.remedy.endswith(".")
    assert policy.detected.endswith(".")
    assert policy.exit_code is None or 0 < policy.exit_code < 256
    assert len(reason.value) <= 64
    assert reason_of(reason.value) is reason
    if policy.exit_code is not None:
        assert reason_of_exit_code(policy.exit_code) is reason


def test_exit_codes_are_unique_and_unclaimed_ones_are_crashes() -> None:
    codes = [policy_of(reason).exit_code for reason in FailureReason if policy_of(reason).exit_code is not None]
    assert len(codes) == len(set(codes))
    assert reason_of_exit_code(99) is FailureReason.TRAINER_CRASHED
    assert reason_of("FromTheFuture") is FailureReason.UNKNOWN


def test_an_error_becomes_a_failure_that_is_cut() -> None:
    failure = FineTuneError(FailureReason.BAD_ROW, "x" * 5000).to_failure()
    assert (failure.reason, len(failure.message)) == (FailureReason.BAD_ROW, 1024)


# --- results


_FIGURES = ("value", "low", "high", "difference", "difference_low", "difference_high", "p_value")
_SPEEDS = (
    "prompt_tokens_per_second",
    "generated_tokens_per_second",
    "latency_p50",
    "latency_p95",
)


def worst_result(metrics: list[Metric], systems: tuple[str, ...]) -> TrainingResult:
    third, pick = 1 / 3, random.Random(0)

    def figure() -> float:
        """As the trainer rounds: six digits, and nothing that compresses."""
        return float(f"{pick.uniform(-1, 1) * 10 ** pick.randint(-4, 6):.6g}")

    return training_result(
        "f" * 64,
        20,
        step=2**31,
        total_steps=2**31,
        resumed_from_step=2**31,
        checkpoint_step=2**31,
        train_loss=third * 1e-5,
        supervised_tokens=2**40,
        truncated_tokens=2**40,
        truncated_rows=2**31,
        dropped_rows=2**31,
        tokens=2**40,
        best_step=2**31,
        best_eval_loss=third * 1e-5,
        tokens_per_second=third * 1e6,
        mfu=third,
        micro_batch_size=4096,
        peak_memory_bytes=2**40,
        warnings=(RunWarning(reason=WarningReason.OVERFITTING, message="x" * 256),),
        evaluation=tuple(
            Score(metric=metric, system=system, rows=10_000, **{name: figure() for name in _FIGURES})
            for metric in metrics
            for system in systems
        ),
        speed=Speed(device="x" * 64, batch_size=64, **{name: figure() for name in _SPEEDS}),
        timings=tuple(Timing(stage="Publishing", seconds=third * 1e6) for _ in range(8)),
    )


def test_the_largest_result_that_can_be_fits_a_termination_message() -> None:
    """DESIGN promises 8 metrics x 5 systems, of a training and where a stage Job finds them again."""
    metrics, systems = sorted(Metric, key=len)[-8:], (TUNED, *Baseline)
    result = worst_result(metrics, (*systems, "OriginalPrompt")[:5])
    assert len(result.to_json().encode()) > 2 * TERMINATION_LIMIT
    for document in (result, stage_result("f" * 64, outcome=result)):
        message = document.to_message()
        assert len(message) <= TERMINATION_LIMIT
        assert type(document).from_message(message.decode()) == document


def test_what_fits_is_plain_json_and_what_is_broken_is_refused() -> None:
    result = training_result("k")
    assert json.loads(result.to_message())["runKey"] == "k"
    assert TrainingResult.from_message(result.to_message().decode()) == result
    packed = worst_result(list(Metric)[:8], SYSTEMS[:4]).to_message().decode()
    for broken in ("", "zlib:", "zlib:~~~", packed[:500], packed[:-9], "killed"):
        with pytest.raises(ValidationError):
            TrainingResult.from_message(broken)


def test_a_message_that_swells_is_not_unpacked_whole() -> None:
    swelling = b"zlib:" + base64.b85encode(zlib.compress(b" " * 2**21 + b"{}", 9))
    assert len(swelling) <= TERMINATION_LIMIT
    with pytest.raises(ValidationError):
        CollectionResult.from_message(swelling.decode())


@pytest.mark.parametrize(
    "document",
    [dataset_result(), stage_result("k"), training_result("k"), failed_training("k", 1, FailureReason.EVICTED)],
    ids=lambda document: type(document).__name__,
)
def test_results_survive_the_way_through_json(document: Document) -> None:
    assert type(document).model_validate_json(document.to_json()) == document


FAILURE = Failure(reason=FailureReason.EVICTED, message="gone").model_dump(mode="json")


@pytest.mark.parametrize(
    ("model", "change", "says"),
    [
        (TrainingResult, {"failure": FAILURE}, "either a failure or an artifact"),
        (TrainingResult, {"artifact": None}, "either a failure or an artifact"),
        (TrainingResult, {"step": -1}, "greater than or equal to 0"),
        (TrainingResult, {"trainLoss": math.inf}, "finite"),
        (TrainingResult, {"runKey": "x" * 200}, "at most 128"),
        (TrainingResult, {"surprise": 1}, "Extra inputs"),
        (StageResult, {"base": None}, "either a failure or a base"),
        (StageResult, {"base": {"digest": "sha256:short", "uri": "x"}}, "pattern"),
        (StageResult, {"outcome": {"runKey": "k", "attempt": 1, "failure": FAILURE}}, "only a success"),
        (DatasetResult, {"format": None}, "a revision has a format"),
        (DatasetResult, {"revision": None}, "either a failure or a revision"),
        (DatasetResult, {"rowsRead": -1}, "greater than or equal to 0"),
    ],
)
def test_what_status_could_not_hold_is_no_result(model: type[Document], change: dict[str, Any], says: str) -> None:
    valid: dict[type[Document], Document] = {
        TrainingResult: training_result("k"),
        StageResult: stage_result("k"),
        DatasetResult: dataset_result(),
    }
    document = {**valid[model].model_dump(mode="json", by_alias=True), **change}
    with pytest.raises(ValidationError, match=says):
        model.model_validate(document)


@pytest.mark.parametrize("change", [{"percent": 101}, {"step": -1}, {"updatedAt": "2026-11-21T09:00:00"}])
def test_progress_that_status_could_not_hold_is_refused(change: dict[str, Any]) -> None:
    valid = {"runKey": "k", "attempt": 1, "phase": "Training", "updatedAt": "2026-11-21T09:00:00Z"}
    Progress.model_validate(valid)
    with pytest.raises(ValidationError):
        Progress.model_validate({**valid, **change})


# --- plans


PLANS: dict[str, type[Document]] = {
    "dataset": DatasetPlan,
    "stage": StagePlan,
    "training": TrainingPlan,
    "serving": ServingPlan,
}


@pytest.mark.parametrize("path", sorted((HERE / "v1").glob("*.json")), ids=lambda path: path.stem)
def test_plans_of_version_1_can_always_be_read(path: Path) -> None:
    """A pod of this release may get a plan that an operator of an older one wrote."""
    model = PLANS[path.stem.split("-")[0]]
    plan = model.model_validate_json(path.read_text())
    assert model.model_validate_json(plan.to_json()) == plan


def test_a_plan_has_exactly_one_source() -> None:
    for sources in ({}, {"inline": "{}", "files": "*"}):
        with pytest.raises(ValidationError, match="exactly one"):
            DatasetSource(**sources)


# --- manifests of stored directories


def test_a_digest_is_over_contents_not_order_or_lineage() -> None:
    files = (FileEntry(path="b", size=1, sha256="1" * 64), FileEntry(path="a", size=2, sha256="2" * 64))
    one = Manifest.of_files(StoredKind.MODEL, files, {"from": "here"})
    two = Manifest.of_files(StoredKind.MODEL, files[::-1], {})
    assert one.digest == two.digest == digest_of_files(files)
    assert [entry.path for entry in one.files] == ["a", "b"]
    assert one.digest != digest_of_files((files[0],))


def test_a_reference_needs_a_real_digest() -> None:
    assert stored("a").digest == digest("a")
    with pytest.raises(ValidationError):
        stored("a").model_validate({"digest": "a", "uri": "x"})


# --- evaluation


@pytest.mark.parametrize(
    ("p_value", "words"),
    [(1e-9, "p ≤ 0.001"), (0.001, "p ≤ 0.001"), (0.0014, "p = 0.001"), (0.05, "p = 0.050"), (1.0, "p = 1.000")],
)
def test_a_p_value_is_never_told_smaller_than_a_test_can_tell(p_value: float, words: str) -> None:
    assert p_words(p_value) == words
