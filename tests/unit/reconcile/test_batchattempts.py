"""The attempts of a BatchInference: failures, disruptions, pauses, limits, and what stays of them."""

from datetime import UTC, datetime, timedelta

from finetune_contract.batching import BatchCounts
from finetune_contract.failure import FailureReason
from finetune_operator import accounting
from finetune_operator.settings import AcceleratorKind, Settings
from tests import factories
from tests.factories import digest, finished_job
from tests.unit.reconcile.batches import JSONL, fail, failed, plan_of, running, succeed, world


def test_a_success_is_latched_with_its_counts_and_its_price() -> None:
    price = AcceleratorKind(name="l4", resource="nvidia.com/gpu", price_per_hour=3.6)
    settings = Settings(retry_seconds=0, accelerators=(price,), currency="EUR")
    here = world(settings=settings, resources={"limits": {"nvidia.com/gpu": 1}})
    succeed(here, rows=100, failed=3)
    output = here.status["output"]
    assert (output["digest"], output["rows"], output["succeeded"], output["failed"]) == (digest("f"), 100, 97, 3)
    assert output["errors"] == [{"code": "invalid_json_line", "rows": 3}]
    assert (output["generatedTokens"], output["tokensPerSecond"]) == (50, 10.0)
    assert here.status["progressPercent"] == "100%"
    assert here.status["cost"] == {"gpuHours": 0.011111, "lostGpuHours": 0.0, "amount": 0.04, "currency": "EUR"}
    assert here.says("Ready").startswith("True Succeeded: 97 of 100 rows were answered, 3 failed: pvc://")
    assert [event.reason for event in here.events] == ["Succeeded"]
    before = here.writes
    here.later(3600)
    here.settle()
    assert here.writes == before


def test_progress_is_told_and_not_written_too_often() -> None:
    here = running()
    shown = here.status["progress"]
    assert (shown["phase"], shown["rows"], shown["totalRows"], shown["percent"]) == ("Answering", 4, 10, 40)
    assert here.status["phase"] == "Answering"
    writes = here.writes
    said = here.progress_of_batch
    assert said is not None
    here.progress_of_batch = said.model_copy(
        update={"counts": BatchCounts(rows=5, succeeded=5), "updated_at": here.now + timedelta(seconds=1)}
    )
    assert here.settle().wake_after is not None
    assert here.writes == writes


def test_a_disruption_is_met_by_another_attempt_that_counts_nothing() -> None:
    here = running()
    here.end(here.newest("batch"), status=factories.disrupted("EvictionByEvictionAPI"))
    here.settle()
    assert [attempt["reason"] for attempt in here.status["attempts"]] == ["Evicted"]
    assert (here.status["attempts"][0]["rows"], here.status["retriesUsed"]) == (3, 0)
    assert [job["metadata"]["labels"]["finetune.dev/attempt"] for job in here.jobs("batch")] == ["1", "2"]
    succeed(here)
    assert [attempt["reason"] for attempt in here.status["attempts"]] == ["Evicted", "Succeeded"]


def test_disruptions_without_a_row_more_end_it() -> None:
    here = world()
    for _ in range(5):
        here.end(here.newest("batch"), status=factories.disrupted("DeletionByTaintManager"))
        here.later(400)
        here.settle()
    assert here.says("Failed").startswith("True NoProgress: 5 disruptions in a row")


def test_retries_that_count_are_limited() -> None:
    here = world(retries={"limit": 1})
    fail(here, FailureReason.STORAGE_UNAVAILABLE)
    assert here.status["phase"] == "Starting"
    fail(here, FailureReason.STORAGE_UNAVAILABLE)
    assert here.says("Stalled").startswith("True StorageUnavailable: it failed")
    assert "spec.retries.limit: 1 used up" in here.says("Stalled")
    assert len(here.jobs("batch")) == 2


def test_too_many_errors_end_it_until_the_spec_allows_them() -> None:
    here = fail(world(), FailureReason.REQUESTS_FAILED, rows=8)
    assert here.says("Stalled").startswith("True RequestsFailed: it failed: RequestsFailed. Mend the lines")
    assert (here.status["phase"], here.status["progress"]["rows"]) == ("Failed", 8)
    here.edit(maxErrorShare=0.5)
    here.settle()
    assert here.status["phase"] == "Starting"
    assert plan_of(here).max_error_share == 0.5
    succeed(here)
    assert here.status["phase"] == "Succeeded"
    assert "failure" not in here.status


def test_a_pod_that_nobody_saw_is_followed_by_one_that_finds_its_answers() -> None:
    here = world()
    here.children["Job"].clear()
    here.settle()
    assert len(here.jobs("batch")) == 1
    succeed(here, reused=True)
    assert here.status["output"]["reused"]
    assert [event.reason for event in here.events] == ["Reused"]


def test_suspend_stops_the_pod_and_keeps_the_run() -> None:
    here = running()
    key = here.status["run"]["key"]
    here.edit(suspend=True)
    here.settle()
    assert (here.status["phase"], here.jobs()) == ("Suspended", [])
    assert here.condition("Reconciling") is None
    here.edit(suspend=False)
    here.settle()
    assert here.status["run"]["key"] == key
    assert [job["metadata"]["labels"]["finetune.dev/attempt"] for job in here.jobs("batch")] == ["2"]


def test_the_next_attempt_waits_until_the_pod_before_it_was_told_to_end() -> None:
    """The operator may have died between writing that an attempt was stopped and stopping it."""
    here = running()
    (first,) = here.jobs("batch")
    pods = list(here.children["Pod"])
    here.edit(suspend=True)
    here.settle()
    here.children["Job"], here.children["Pod"] = [first], pods
    here.edit(suspend=False)
    here.deletions_happen = False
    here.settle()
    assert here.jobs("batch") == [first]
    assert here.says("Ready").startswith("False Stopping: starting attempt 2")
    here.deletions_happen = True
    here.children["Job"] = []
    here.settle()
    assert here.jobs("batch") == [], "its Job is gone, its pod is not"
    here.children["Pod"] = [{**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "x"}} for pod in pods]
    here.settle()
    assert [job["metadata"]["labels"]["finetune.dev/attempt"] for job in here.jobs("batch")] == ["2"]


def test_a_limit_stops_it_and_a_higher_one_goes_on() -> None:
    here = running(world(limits={"duration": "1m"}))
    here.later(61)
    here.settle()
    assert here.says("Failed").startswith("True DeadlineExceeded: spec.limits.duration")
    assert here.jobs("batch") == []
    here.edit(limits={"duration": "5m"})
    here.settle()
    job = next(item for item in reversed(here.made) if item["kind"] == "Job")
    assert job["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 300 - 61 + 120


def test_an_edit_of_the_input_while_it_runs_stops_the_pod_and_counts_its_time() -> None:
    here = running()
    here.later(40)
    here.edit(input=JSONL)
    here.settle()
    assert [(attempt["reason"], attempt["seconds"]) for attempt in here.status["attempts"]] == [("Cancelled", 40)]
    assert here.status["secondsTotal"] == 0
    assert [each.outcome for each in accounting.spent({}, here.status)] == ["Cancelled"]
    assert len(here.jobs("batch")) == 1


def test_a_queued_job_waits_for_kueue() -> None:
    here = world(scheduling={"queueName": "team-a"})
    job = next(item for item in here.made if item["kind"] == "Job")
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert here.status["phase"] == "Queued"
    assert here.says("Admitted").startswith("False Queued")


def test_finished_jobs_go_after_their_time() -> None:
    here = succeed(world(ttlAfterFinished="1h"))
    assert len(here.jobs("batch")) == 1
    here.later(3601)
    here.settle()
    assert (here.jobs("batch"), here.status["phase"]) == ([], "Succeeded")


def test_what_is_in_another_store_is_refused() -> None:
    elsewhere = finished_job()
    uri = f"s3://bucket/artifacts/{'a' * 64}"
    elsewhere["status"]["artifact"]["uri"] = uri
    here = world(elsewhere, factories.ready_dataset())
    assert here.says("Stalled").startswith("True StorageMismatch: spec.storage: the adapter is at s3://bucket")


def test_status_stays_small_and_its_times_are_of_utc() -> None:
    here = world()
    for _ in range(14):
        here.end(here.newest("batch"), failed(FailureReason.PREEMPTED, rows=len(here.jobs())).to_json(), code=78)
        here.later(1)
        here.settle()
    assert len(here.status["attempts"]) == 10
    assert datetime.fromisoformat(here.status["run"]["startedAt"]).tzinfo is not None
    assert datetime.fromisoformat(here.status["run"]["startedAt"]).astimezone(UTC) == factories.NOW
