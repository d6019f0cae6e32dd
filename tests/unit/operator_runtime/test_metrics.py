"""What Prometheus gets: every metric documented, no label that grows, GPU-seconds counted once."""

from datetime import datetime
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from finetune_operator import accounting, metrics
from finetune_operator.accounting import Spent, Tried
from finetune_operator.api.modeldeployment import AdapterState
from finetune_operator.cache import Cache
from finetune_operator.cluster import METHODS
from finetune_operator.health import Health
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.outcome import Outcome
from tests.unit.operator_runtime.fakes import FakeCluster, make_resource
from tests.unit.operator_runtime.process import Process
from tools import metrics_page

PAGE = Path(__file__).parents[3] / "docs/reference/metrics.md"
BOUNDED = {
    "kind": {"Dataset", "FineTuneJob", "ModelDeployment", "BatchInference"},
    "result": {"success", "requeue_after", "retry", "error", "ok", "unreachable", "invalid"},
    "verb": set(METHODS),
    "state": {state.value for state in AdapterState},
    "outcome": {"Succeeded", "Failed", "Disrupted", "Suspended", "Cancelled"},
}
"""Labels and all their values; kinds of children come on top."""
FEW = {"code", "phase", "reason", "namespace", "le", "generation", "implementation"}
"""Labels whose values are an enumeration elsewhere: HTTP, our API, the cluster's namespaces."""


async def scrape(cache: Cache | None = None) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Sample and labels -> value, over HTTP as Prometheus asks."""
    health = Health(
        cache or Cache(),
        longest_pass=lambda: 0.0,
        longest_wait=lambda: 2.5,
        silence=lambda: 0.0,
        is_synced=lambda: True,
    )
    async with TestClient(TestServer(health.application())) as client:
        text = await (await client.get("/metrics")).text()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == metrics_page.page(), "run `make generate`"


async def test_every_metric_that_is_scraped_is_on_the_page() -> None:
    page = PAGE.read_text()
    names = {name for name, _ in await scrape() if name.startswith(metrics.PREFIX)}
    undocumented = {
        name for name in names if f"`{name}`" not in page and f"`{name.rsplit('_', 1)[0]}` | histogram" not in page
    }
    assert names
    assert not undocumented


def test_no_label_has_unbounded_values() -> None:
    labels = {label for metric in metrics_page.own_metrics() for label in metric._labelnames}
    assert labels <= {*BOUNDED, *FEW}
    namespaced = {
        metrics_page.name_of(metric) for metric in metrics_page.own_metrics() if "namespace" in metric._labelnames
    }
    assert namespaced == {
        "finetune_operator_gpu_seconds_total",
        "finetune_operator_gate_failures_total",
        "finetune_operator_modeldeployment_ignore_gate",
        "finetune_operator_modeldeployment_adapters",
        "finetune_operator_modeldeployment_adapter_results_total",
    }


def attempt(number: int, reason: str, seconds: int = 100) -> dict[str, object]:
    return {"number": number, "run": "abc", "reason": reason, "seconds": seconds, "gpuSeconds": 2 * seconds}


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        pytest.param("Succeeded", "Succeeded", id="success"),
        pytest.param("OutOfMemory", "Failed", id="counts"),
        pytest.param("ContractViolation", "Failed", id="is not retried"),
        pytest.param("NodeLost", "Disrupted", id="the node went"),
        pytest.param("Suspended", "Suspended", id="somebody paused it"),
        pytest.param("NewerRelease", "Failed", id="a word of another release"),
    ],
)
def test_an_attempt_is_spent_when_it_is_latched(reason: str, outcome: str) -> None:
    before = {"attempts": [attempt(1, "NodeLost")]}
    after = {"attempts": [attempt(1, "NodeLost"), attempt(2, reason)]}
    assert accounting.spent(before, after) == [Spent(outcome, 200.0)]
    assert accounting.spent(after, after) == []


def test_the_last_attempt_of_a_cancelled_run_is_spent_when_it_makes_way() -> None:
    before = {"run": {"key": "abcdef"}, "attempts": [attempt(1, "NodeLost")], "gpuSecondsTotal": 200}
    cancelled = {"key": "abcdef", "outcome": "Cancelled", "gpuSeconds": 350}
    after = {"run": {"key": "123456"}, "attempts": [], "runs": [cancelled], "gpuSecondsTotal": 0}
    assert accounting.spent(before, after) == [Spent("Cancelled", 150.0)]
    assert accounting.spent(after, after) == []
    again = {**after, "run": {"key": "abcdef"}}
    assert accounting.spent(again, after) == [], "a record that was there before was counted before"


@pytest.mark.parametrize("outcome", ["Succeeded", "Failed"])
def test_a_run_that_ended_is_not_spent_twice(outcome: str) -> None:
    before = {"run": {"key": "abcdef"}, "attempts": [], "gpuSecondsTotal": 0}
    record = {"key": "abcdef", "outcome": outcome, "gpuSeconds": 200}
    after = {**before, "attempts": [attempt(1, outcome)], "runs": [record], "gpuSecondsTotal": 200}
    assert accounting.spent(before, after) == [Spent(outcome, 200.0)]


async def test_gpu_seconds_are_counted_once_across_passes_and_restarts() -> None:
    def latch(_resource: Manifest, _observed: Observed, _now: object) -> Outcome:
        return Outcome(status={"phase": "Succeeded", "attempts": [attempt(1, "Succeeded", 30)]})

    cluster = FakeCluster()
    resource = make_resource()
    cluster.add(resource)
    sample = (
        "finetune_operator_gpu_seconds_total",
        (("namespace", resource["metadata"]["namespace"]), ("outcome", "Succeeded")),
    )
    before = (await scrape()).get(sample, 0.0)
    for _ in range(2):
        process = Process(cluster, decide=latch)
        await process.settle()
        process.engine.notify(process.cache.keys())
        await process.settle()
        assert (await scrape(process.cache))[sample] == before + 60.0


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        pytest.param({}, {"digest": "a", "key": "k", "verdict": "Failed"}, True, id="first"),
        pytest.param({}, {"digest": "a", "key": "k", "verdict": "Passed"}, False, id="passed"),
        pytest.param({"digest": "a", "key": "k"}, {"digest": "a", "key": "k", "verdict": "Failed"}, False, id="known"),
        pytest.param({"digest": "a", "key": "k"}, {"digest": "a", "key": "l", "verdict": "Failed"}, True, id="edited"),
        pytest.param({"digest": "a", "key": "k"}, {}, False, id="no gate"),
    ],
)
def test_a_gate_that_failed_is_counted_when_it_is_latched(before: Manifest, after: Manifest, counts: bool) -> None:
    assert accounting.has_failed_gate({"gate": before}, {"gate": after}) is counts


async def test_deployments_that_ignore_a_gate_are_counted_while_they_do() -> None:
    said = {"type": "GateIgnored", "status": "True", "reason": "IgnoreGate"}
    resource = make_resource("ModelDeployment", status={"conditions": [said]})
    sample = ("finetune_operator_modeldeployment_ignore_gate", (("namespace", resource["metadata"]["namespace"]),))
    cache, metadata = Cache(), {**resource["metadata"], "uid": "1"}
    cache.put({**resource, "metadata": {**metadata, "resourceVersion": "1"}})
    assert (await scrape(cache))[sample] == 1
    cache.put({**resource, "metadata": {**metadata, "resourceVersion": "2"}, "status": {}})
    assert (await scrape(cache)).get(sample, 0) == 0


STALLED = {"type": "Stalled", "status": "True", "reason": "NodeLost"}
RESTING = {"type": "Stalled", "status": "False", "reason": "NodeLost"}


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        pytest.param([], [STALLED], "NodeLost", id="first"),
        pytest.param([RESTING], [STALLED], "NodeLost", id="again"),
        pytest.param([STALLED], [STALLED], None, id="known"),
        pytest.param([{**STALLED, "reason": "NoProgress"}], [STALLED], "NodeLost", id="another reason"),
        pytest.param([STALLED], [], None, id="gets on"),
    ],
)
def test_a_failure_is_counted_when_it_is_latched(
    before: list[Manifest], after: list[Manifest], reason: str | None
) -> None:
    assert accounting.failure({"conditions": before}, {"conditions": after}) == reason


@pytest.mark.parametrize(
    ("before", "after", "seconds"),
    [
        pytest.param("False", "True", 90.0, id="let through"),
        pytest.param("True", "True", None, id="known"),
        pytest.param("True", "False", None, id="sent back"),
    ],
)
def test_a_wait_in_a_queue_is_counted_when_it_is_over(before: str, after: str, seconds: float | None) -> None:
    waiting = {"type": "Admitted", "status": before, "lastTransitionTime": "2026-11-21T09:00:00Z"}
    admitted = {"type": "Admitted", "status": after, "lastTransitionTime": "2026-11-21T09:01:30Z"}
    assert accounting.waited({"conditions": [waiting]}, {"conditions": [admitted]}) == seconds
    assert accounting.waited({}, {"conditions": [admitted]}) is None


async def test_the_resource_that_has_not_moved_for_longest_is_seen_until_it_moves() -> None:
    cluster, cache = FakeCluster(), Cache()
    times = {"slow": "2026-11-21T09:00:00Z", "quick": "2026-11-21T10:00:00Z"}
    stored = {}
    for name, time in times.items():
        ready = {"type": "Ready", "status": "False", "reason": "Unschedulable", "lastTransitionTime": time}
        accepted = {"type": "Accepted", "status": "True", "lastTransitionTime": "2026-11-21T08:00:00Z"}
        resource = make_resource(name=name, status={"phase": "Starting", "conditions": [accepted, ready]})
        stored[name] = cluster.add(resource)
        cache.put(stored[name])
    labels = (("kind", "FineTuneJob"), ("phase", "Starting"), ("reason", "Unschedulable"))
    sample = (f"{metrics.PREFIX}_oldest_transition_timestamp_seconds", labels)
    assert (await scrape(cache))[sample] == datetime.fromisoformat(times["slow"]).timestamp()
    cache.remove(stored["slow"])
    assert (await scrape(cache))[sample] == datetime.fromisoformat(times["quick"]).timestamp()
    cache.remove(stored["quick"])
    assert sample not in await scrape(cache)


async def test_failures_and_waits_are_counted_once_across_passes() -> None:
    def latch(_resource: Manifest, _observed: Observed, _now: object) -> Outcome:
        return Outcome(status={"phase": "Failed", "conditions": [STALLED]})

    cluster = FakeCluster()
    cluster.add(make_resource())
    sample = (f"{metrics.PREFIX}_failures_total", (("kind", "FineTuneJob"), ("reason", "NodeLost")))
    before = (await scrape()).get(sample, 0.0)
    for _ in range(2):
        process = Process(cluster, decide=latch)
        await process.settle()
        process.engine.notify(process.cache.keys())
        await process.settle()
        assert (await scrape(process.cache))[sample] == before + 1


async def test_the_queue_and_the_passes_are_seen() -> None:
    cluster = FakeCluster()
    cluster.add(make_resource())
    await Process(cluster).settle()
    found = await scrape()
    kind = (("kind", "FineTuneJob"),)
    for name in ("reconcile_time_seconds_count", "status_writes_total"):
        assert found[f"{metrics.PREFIX}_{name}", kind] > 0
    for name in ("workqueue_adds_total", "workqueue_queue_duration_seconds_count"):
        assert found[f"{metrics.PREFIX}_{name}", ()] > 0
    assert found[f"{metrics.PREFIX}_workqueue_depth", ()] == 0
    assert found[f"{metrics.PREFIX}_workqueue_oldest_key_seconds", ()] == 2.5


def adapter(state: str, second: int, digest: str = "a") -> dict[str, object]:
    return {"name": "triage", "digest": digest, "state": state, "since": f"2026-11-21T00:00:{second:02}Z"}


@pytest.mark.parametrize(
    ("before", "after", "result"),
    [
        (adapter("Loading", 1), adapter("Serving", 31), [Tried("Serving", 30.0)]),
        (adapter("Loading", 1), adapter("Inert", 31), [Tried("Inert", None)]),
        (adapter("Serving", 1), adapter("Serving", 1), []),
        (adapter("Serving", 1), adapter("Loading", 31, "c"), []),
        (adapter("Loading", 1, "c"), adapter("RolledBack", 31, "c"), [Tried("RolledBack", None)]),
        (adapter("Serving", 1), adapter("Serving", 31, "c"), [Tried("Serving", None)]),
    ],
    ids=["loaded", "inert", "the same", "another one is wanted", "rolled back", "known from before"],
)
def test_what_became_of_an_artifact_is_counted_when_it_is_known(
    before: dict[str, object], after: dict[str, object], result: list[Tried]
) -> None:
    assert accounting.tried({"adapters": [before]}, {"adapters": [after]}) == result


async def test_adapters_are_counted_by_state() -> None:
    cache = Cache()
    for version, states in enumerate((["Serving", "Loading"], ["Serving", "Serving"]), start=1):
        resource = make_resource(name="support")
        resource |= {"kind": "ModelDeployment", "status": {"adapters": [{"state": state} for state in states]}}
        resource["metadata"] |= {"uid": "uid-support", "resourceVersion": str(version)}
        cache.put(resource)
    found = await scrape(cache)
    name = f"{metrics.PREFIX}_modeldeployment_adapters"
    counted = {dict(labels)["state"]: value for (each, labels), value in found.items() if each == name}
    assert {state: value for state, value in counted.items() if value} == {"Serving": 2.0}
