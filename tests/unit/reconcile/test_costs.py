"""What a run has cost, lost work included."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.evaluating import Speed
from finetune_contract.failure import FailureReason
from finetune_operator.api.base import Resources, Scheduling
from finetune_operator.api.figures import CostStatus
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import Attempt, ProgressStatus
from finetune_operator.manifests.prices import price_of, price_on
from finetune_operator.reconcile.costs import add, keep_speed, lost_share
from finetune_operator.reconcile.limits import Usage
from finetune_operator.settings import AcceleratorKind, Settings
from tests import factories
from tests.unit.reconcile.runs import KEY, fail, staged, succeed, world
from tests.unit.reconcile.world import World

GPU, H100 = "nvidia.com/gpu", {"nvidia.com/gpu.product": "H100"}
PRICES = Settings(
    retry_seconds=0,
    currency="EUR",
    accelerators=(
        AcceleratorKind(name="H100", node_selector=H100, price_per_hour=4.0),
        AcceleratorKind(name="others", price_per_hour=1.5),
        AcceleratorKind(name="MI300X", resource="amd.com/gpu", price_per_hour=2.0),
    ),
)


def test_an_entry_that_tells_memory_alone_leaves_the_price_to_the_next() -> None:
    kinds = (AcceleratorKind(name="L4", memory_gib=24), AcceleratorKind(name="any", price_per_hour=1.5))
    asked = Resources(limits={GPU: "2"})
    assert price_of(asked, Scheduling(), Settings(accelerators=kinds)) == 3.0
    assert price_of(asked, Scheduling(), Settings(accelerators=kinds[:1])) is None


@pytest.mark.parametrize(
    ("limits", "selector", "price"),
    [
        pytest.param({GPU: 8}, {}, 12.0, id="any node"),
        pytest.param({GPU: 8}, {**H100, "zone": "a"}, 32.0, id="dear nodes"),
        pytest.param({GPU: "2"}, {"nvidia.com/gpu.product": "A10"}, 3.0, id="other nodes"),
        pytest.param({GPU: 1, "amd.com/gpu": 1}, {}, 3.5, id="two kinds"),
        pytest.param({GPU: 1, "habana.ai/gaudi": 1}, {}, None, id="one without a price"),
        pytest.param({"cpu": "8"}, {}, 0.0, id="no accelerator"),
    ],
)
def test_a_pod_costs_what_its_accelerators_cost(
    limits: dict[str, Any], selector: dict[str, str], price: float | None
) -> None:
    assert price_of(Resources(limits=limits), Scheduling(node_selector=selector), PRICES) == price


@pytest.mark.parametrize("text", [None, "much", "-1", "NaN", "Infinity"])
def test_a_price_that_is_none_costs_nothing(text: str | None) -> None:
    annotations = {"finetune.dev/price-per-hour": text} if text else {}
    assert price_on({"metadata": {"annotations": annotations}}) is None


def attempt(reason: str = "NodeLost", **fields: Any) -> Attempt:
    return Attempt(number=1, run="abc", reason=reason, **fields)


@pytest.mark.parametrize(
    ("ended", "seen", "share"),
    [
        pytest.param(attempt("Succeeded", step=100), None, 0.0, id="succeeded"),
        pytest.param(attempt(step=100, checkpoint_step=75), None, 0.25, id="after the last checkpoint"),
        pytest.param(attempt(step=100, resumed_from_step=60, checkpoint_step=80), None, 0.5, id="resumed"),
        pytest.param(attempt(step=80, resumed_from_step=60, checkpoint_step=60), None, 1.0, id="saved nothing"),
        pytest.param(attempt(), None, 1.0, id="did not begin"),
        pytest.param(attempt("Suspended", step=40, checkpoint_step=40), None, 0.0, id="stopped with a checkpoint"),
        pytest.param(attempt(checkpoint_step=30), ProgressStatus(step=40), 0.25, id="without a last word"),
    ],
)
def test_what_was_not_saved_is_lost(ended: Attempt, seen: ProgressStatus | None, share: float) -> None:
    assert lost_share(ended, seen) == pytest.approx(share)


SPEED = Speed(
    device="NVIDIA H100", batch_size=16, prompt_tokens_per_second=9000, generated_tokens_per_second=1000,
    latency_p50=0.5, latency_p95=0.9,
)  # fmt: skip


@pytest.mark.parametrize(
    ("more", "amount", "million", "tokens"),
    [
        pytest.param({}, 10.0, None, None, id="no price"),
        pytest.param({"accelerators": PRICES.accelerators}, 10.0, 0.416667, None, id="no API price"),
        pytest.param(
            {"accelerators": PRICES.accelerators, "api_price_per_million_tokens": 0.516666667},
            10.0,
            0.416667,
            100_000_000,
            id="pays",
        ),
        pytest.param(
            {"accelerators": PRICES.accelerators, "api_price_per_million_tokens": 0.4},
            10.0,
            0.416667,
            None,
            id="never pays",
        ),
        pytest.param(
            {"accelerators": PRICES.accelerators, "api_price_per_million_tokens": 1.0},
            None,
            0.416667,
            None,
            id="cost not known",
        ),
    ],
)
def test_tokens_cost_what_their_time_costs(
    more: dict[str, Any], amount: float | None, million: float | None, tokens: int | None
) -> None:
    job = FineTuneJob.model_validate(factories.make_job(resources={"limits": {GPU: 1}}))
    cost = CostStatus(gpu_hours=1.0, lost_gpu_hours=0.0, amount=amount)
    found = keep_speed(job, SPEED, cost, Settings(**more))
    assert found is not None
    assert (found.device, found.latency_p95) == ("NVIDIA H100", 0.9)
    assert (found.cost_per_million_tokens, found.break_even_tokens) == (million, tokens)


def test_a_speed_that_was_not_measured_is_not_told() -> None:
    assert keep_speed(FineTuneJob.model_validate(factories.make_job()), None, None, PRICES) is None


steps = st.integers(0, 10_000)
attempts = st.builds(
    attempt,
    reason=st.sampled_from(["Succeeded", "Suspended", "NodeLost", "TrainerCrashed"]),
    step=steps,
    resumed_from_step=st.none() | steps,
    checkpoint_step=st.none() | steps,
)
usages = st.builds(Usage, st.floats(0, 1e7), st.floats(0, 1e8), st.floats(0, 1e8))


@given(st.lists(st.tuples(attempts, usages), max_size=8), st.none() | st.builds(ProgressStatus, step=steps))
def test_lost_is_part_of_the_whole_and_nothing_is_forgotten(
    life: list[tuple[Attempt, Usage]], seen: ProgressStatus | None
) -> None:
    cost = None
    for ended, used in life:
        cost = add(cost, used, lost_share(ended, seen), "EUR")
    total = sum(used.gpu_seconds for _, used in life) / 3600
    assert (cost.gpu_hours if cost else 0.0) == pytest.approx(total, abs=1e-4)
    if cost:
        assert 0 <= cost.lost_gpu_hours <= cost.gpu_hours + 1e-4
        assert (cost.amount is None) == (cost.currency is None)


def with_gpus(settings: Settings) -> World:
    here = world(resources={"limits": {GPU: 2}}, checkpoints={"keep": 1})
    here.settings = settings
    staged(here=here)
    here.pod(here.newest("train"))
    here.later(1800)
    fail(here, FailureReason.TRAINER_CRASHED, step=40, checkpoint_step=30)
    here.pod(here.newest("train"))
    here.later(3600)
    succeed(here)
    return here


def test_a_run_costs_what_all_its_attempts_did() -> None:
    """Two attempts of 40 s on two GPUs; the first lost ten of its forty steps."""
    cost = with_gpus(PRICES).status["cost"]
    assert cost.pop("currency") == "EUR"
    hours = 2 * 2 * 40 / 3600
    assert cost == pytest.approx({"gpuHours": hours, "lostGpuHours": hours / 8, "amount": hours * 1.5}, abs=2e-6)


def test_without_a_price_there_are_hours_only() -> None:
    assert set(with_gpus(Settings(retry_seconds=0)).status["cost"]) == {"gpuHours", "lostGpuHours"}


def test_another_price_list_changes_nothing_of_what_was_paid() -> None:
    here = with_gpus(PRICES)
    before = here.status
    here.settings = Settings(
        retry_seconds=0, currency="USD", accelerators=(AcceleratorKind(name="any", price_per_hour=9.0),)
    )
    here.settle()
    assert here.status == before


def test_a_job_without_accelerators_costs_nothing() -> None:
    here = staged()
    here.pod(here.newest("train"))
    here.later(60)
    succeed(here)
    assert here.status["run"]["key"] == KEY
    assert "cost" not in here.status
