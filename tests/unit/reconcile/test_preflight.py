"""Before the first attempt: what a preflight found decides whether there is one."""

import json
from typing import Any

import pytest

from finetune_contract.failure import Failure, FailureReason
from finetune_contract.preflight import Fit, PreflightPlan, PreflightResult, Way
from finetune_contract.training import TrainingPlan
from finetune_operator.settings import AcceleratorKind, Settings
from tests import factories
from tests.factories import Object, make_job, ready_dataset, stage_result, training_result
from tests.unit.reconcile.world import World

GIB = 2**30
KEY = "1" * 64
GPU = {"limits": {"nvidia.com/gpu": 1}}
H100 = AcceleratorKind(name="H100", node_selector={"nvidia.com/gpu.product": "H100-80"}, memory_gib=80, teraflops=400)
L4 = AcceleratorKind(name="L4", memory_gib=22)

FITS = PreflightResult(
    verdict=Fit.FITS, predicted_peak_bytes=20 * GIB, micro_batch_size=2, total_steps=120, tokens=1_000_000, seconds=1800
)
TOO_LARGE = PreflightResult(
    verdict=Fit.DOES_NOT_FIT,
    predicted_peak_bytes=30 * GIB,
    total_steps=120,
    ways=(Way(change="spec.adapter.type: QLoRA", predicted_peak_bytes=11 * GIB),),
)


def world(*, accelerators: tuple[AcceleratorKind, ...] = (H100, L4), **spec: Any) -> World:
    settings = Settings(retry_seconds=0, accelerators=accelerators)
    here = World(make_job(**{"resources": GPU, **spec}), ready_dataset(), settings=settings)
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY).to_json())
    here.settle()
    return here


def answered(here: World, result: PreflightResult, **how: Any) -> World:
    here.end(here.newest("preflight"), result.to_json(), **how)
    here.settle()
    return here


def plan_of(here: World, role: str) -> Object:
    document: Object = json.loads(made(here, "ConfigMap", role)["data"]["plan.json"])
    return document


def made(here: World, kind: str, role: str) -> Object:
    """The newest of a kind and role, as it was created."""
    return next(
        item
        for item in reversed(here.made)
        if item["kind"] == kind and item["metadata"]["labels"].get("finetune.dev/role") == role
    )


def test_it_comes_between_staging_and_the_first_attempt() -> None:
    here = world()
    assert here.jobs("train") == []
    assert here.says("PreflightPassed").startswith("Unknown Preflight")
    asked = PreflightPlan.model_validate(plan_of(here, "preflight"))
    assert asked.device is not None
    assert (asked.device.name, asked.device.memory_bytes) == ("L4", 22 * GIB)
    assert [other.name for other in asked.others] == ["H100"]
    answered(here, FITS)
    assert here.says("PreflightPassed").startswith("True Fits: predicted peak 20.0 GiB of a L4's 22.0 GiB; 120 steps")
    assert TrainingPlan.model_validate(plan_of(here, "train")).predicted_peak_bytes == 20 * GIB
    assert here.status["preflight"]["estimatedGpuHours"] == 0.5
    here.end(here.newest("train"), training_result(KEY).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert here.status["preflight"]["verdict"] == "Fits"


def test_the_pod_asks_for_no_gpu() -> None:
    here = world(scheduling={"nodeSelector": {"nvidia.com/gpu.product": "H100-80"}})
    pod = made(here, "Job", "preflight")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {}
    assert "nodeSelector" not in pod
    asked = PreflightPlan.model_validate(plan_of(here, "preflight"))
    assert asked.device is not None
    assert asked.device.name == "H100"


def test_what_does_not_fit_is_refused_with_its_ways() -> None:
    here = answered(world(), TOO_LARGE)
    assert here.jobs("train") == []
    says = here.says("Stalled")
    assert says.startswith(
        "True InsufficientGpuMemory: spec.resources: training would need 30.0 GiB of a L4's 22.0 GiB."
    )
    assert "spec.adapter.type: QLoRA (11.0 GiB)" in says
    assert here.status["phase"] == "Failed"
    assert [event.reason for event in here.events if event.type == "Warning"] == ["InsufficientGpuMemory"]
    here.edit(preflight="Warn")
    here.settle()
    assert len(here.jobs("preflight")) == 1
    assert here.jobs("train")
    assert here.says("PreflightPassed").startswith("False InsufficientGpuMemory")


def test_other_resources_are_looked_at_anew() -> None:
    here = answered(world(), TOO_LARGE)
    here.edit(scheduling={"nodeSelector": {"nvidia.com/gpu.memory": "81559"}})
    here.settle()
    asked = PreflightPlan.model_validate(plan_of(here, "preflight"))
    assert asked.device is not None
    assert asked.device.memory_bytes == 81559 * 2**20
    assert len(here.jobs("preflight")) == 1, "the old one goes"
    answered(here, FITS)
    assert here.jobs("train")


@pytest.mark.parametrize(
    ("reason", "trains"),
    [
        (FailureReason.INVALID_PLAN, False),
        (FailureReason.DATA_TRUNCATED, False),
        (FailureReason.TOKENIZER_MISMATCH, False),
        (FailureReason.HOST_OUT_OF_MEMORY, True),
        (FailureReason.CONTRACT_VIOLATION, True),
    ],
)
def test_only_what_is_known_to_fail_is_refused(reason: FailureReason, trains: bool) -> None:
    said = PreflightResult(failure=Failure(reason=reason, message="spec.adapter: no"))
    here = answered(world(), said, code=64)
    assert bool(here.jobs("train")) is trains
    assert reason.value in here.says("PreflightPassed")


@pytest.mark.parametrize(
    ("accelerators", "spec", "looks"),
    [
        ((L4,), {}, True),
        ((), {}, False),
        ((L4,), {"resources": {}}, False),
        ((L4,), {"preflight": "Disabled"}, False),
        ((), {"preflight": "Warn"}, True),
        ((), {"resources": {}, "preflight": "Enforce"}, True),
        ((), {"resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}}, True),
        ((), {"scheduling": {"nodeSelector": {"nvidia.com/gpu.memory": "81559"}}}, True),
    ],
    ids=["known", "not known", "no GPU", "disabled", "not known, asked for", "CPU, asked for", "MIG", "by label"],
)
def test_unasked_it_is_made_where_the_memory_is_known(
    accelerators: tuple[AcceleratorKind, ...], spec: Object, looks: bool
) -> None:
    here = world(accelerators=accelerators, **spec)
    assert bool(here.jobs("preflight")) is looks
    assert bool(here.jobs("train")) is not looks
    assert (here.condition("PreflightPassed") is not None) is looks


def test_a_pod_that_is_evicted_is_tried_again() -> None:
    here = world()
    here.end(here.newest("preflight"), status=factories.evicted())
    here.settle()
    here.later(120)
    here.settle()
    assert len(here.jobs("preflight")) == 2
    answered(here, FITS)
    assert here.jobs("train")


def test_later_attempts_need_no_other() -> None:
    here = answered(world(), FITS)
    here.end(here.newest("train"), status=factories.evicted())
    here.settle()
    assert len(here.jobs("train")) == 2
    assert len(here.jobs("preflight")) == 1


def test_a_status_that_was_lost_asks_once_more() -> None:
    here = answered(world(), FITS)
    here.wipe()
    here.settle()
    assert len(here.jobs("train")) == 1
