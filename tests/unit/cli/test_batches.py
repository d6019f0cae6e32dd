"""BatchInferences in the commands that run, watch and list FineTuneJobs, against a server on loopback."""

import json
from typing import Any

import pytest
import yaml

from finetune_cli import facts, watch
from finetune_cli.facts import Object
from finetune_cli.view import progress_line
from tests import factories
from tests.unit.cli.apiserver import OURS, ApiServer, run
from tests.unit.cli.jobs import NOW, condition, make_job

BATCHES = f"{OURS}/namespaces/team/batchinferences"
BATCH = ["labels", "--kind", "batch"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)


def make_batch(name: str = "labels", **status: Any) -> Object:
    """In its second attempt by default."""
    answering = {
        "observedGeneration": 1,
        "phase": "Answering",
        "progressPercent": "34%",
        "progress": {
            "phase": "Answering",
            "rows": 41_216,
            "totalRows": 120_000,
            "failed": 3,
            "percent": 34,
            "tokensPerSecond": 2815.2,
            "estimatedCompletionTime": "2026-01-01T12:03:20Z",
        },
        "run": {"key": "b81f0d42c7e95a36", "attempt": 2, "startedAt": "2026-01-01T11:30:00Z"},
        "attempts": [
            {"number": 1, "run": "0ld", "reason": "Cancelled", "gpuSeconds": 3600, "seconds": 3600},
            {
                "number": 1,
                "run": "b81f0d42c7e9",
                "reason": "NodeLost",
                "gpuSeconds": 600,
                "seconds": 600,
                "rows": 12000,
            },
        ],
        "conditions": [condition("Ready", status=False, reason="Answering"), condition("Running")],
        "cost": {"gpuHours": 0.25, "lostGpuHours": 0, "amount": 0.5, "currency": "EUR"},
    }
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "BatchInference",
        "metadata": {
            "name": name,
            "namespace": "team",
            "generation": 1,
            "creationTimestamp": "2026-01-01T10:00:00Z",
        },
        "spec": {
            "model": {"fineTuneJob": {"name": "router"}},
            "input": {"dataset": {"name": "tickets", "split": "train"}},
            "retries": {"limit": 2},
        },
        "status": {**answering, **status},
    }


def ready_batch() -> Object:
    output = {
        "digest": "sha256:0717",
        "uri": "pvc://claim/batches/0717",
        "run": "b81f0d42c7e95a36",
        "rows": 120_000,
        "succeeded": 119_997,
        "failed": 3,
        "errors": [{"code": "context_length_exceeded", "rows": 3}],
        "promptTokens": 9_000_000,
        "generatedTokens": 480_000,
        "tokensPerSecond": 2800.4,
    }
    conditions = [condition("Complete"), condition("Ready"), condition("Running", status=False)]
    return make_batch(phase="Succeeded", output=output, conditions=conditions)


def failed_batch() -> Object:
    words = "maxErrorShare: 3 of 9 rows have no answer"
    conditions = [condition(kind, reason="RequestsFailed", message=words) for kind in ("Failed", "Stalled")]
    return make_batch(phase="Failed", conditions=conditions)


def test_status_lists_batches_below_the_jobs(api: ApiServer) -> None:
    api.add("finetunejobs", make_job())
    api.add("batchinferences", make_batch())
    job_head, job, gap, head, line = run("status").stdout.splitlines()
    assert (job_head.split()[0], job.split()[0], gap) == ("NAME", "namer", "")
    assert head.split() == ["BATCH", "PHASE", "PROGRESS", "ROWS", "FAILED", "ATTEMPT", "REASON", "AGE"]
    assert line.split()[:7] == ["labels", "Answering", "34%", "41,216", "3", "2", "Answering"]
    assert [one["metadata"]["name"] for one in json.loads(run("status", "-o", "json").stdout)["items"]] == [
        "namer",
        "labels",
    ]


def test_a_wide_status_tells_what_is_asked_about_what(api: ApiServer) -> None:
    api.add("batchinferences", make_batch())
    head, line = run("status", "-o", "wide").stdout.splitlines()
    assert head.split()[-6:] == ["MODEL", "INPUT", "QUEUE", "TOKENS/S", "COST", "OUTPUT"]
    assert all(words in line for words in ("job router", "tickets/train", "2,815", "0.25 GPU-hours: 0.50 EUR"))


def test_status_of_one(api: ApiServer) -> None:
    api.add("batchinferences", ready_batch())
    shown = run("status", *BATCH).stdout
    for words in (
        "team/labels",
        "job router about tickets/train",
        "NodeLost",
        "12,000",
        "119,997 of 120,000 answered, 3 failed (context_length_exceeded 3)",
        "9,000,000 read, 480,000 written, 2,800 a second",
        "pvc://claim/batches/0717",
    ):
        assert words in shown
    assert yaml.safe_load(run("status", *BATCH, "-o", "yaml").stdout) == api.objects[f"{BATCHES}/labels"]


@pytest.mark.usefixtures("api")
def test_status_of_none_names_the_kind() -> None:
    assert "no BatchInference 'labels' in namespace team; `kubectl finetune status" in run("status", *BATCH).stderr


def test_progress_is_told_in_rows() -> None:
    assert progress_line(make_batch(), NOW) == (
        "labels  Answering  34%  41,216/120,000 rows  3 failed  2,815 tokens/s  ETA 3m20s  attempt 2"
    )


@pytest.mark.parametrize(
    ("ended", "exit_code", "words"),
    [
        (ready_batch, 0, "pvc://claim/batches/0717"),
        (failed_batch, 1, "`kubectl finetune logs labels --kind batch` tell more"),
    ],
    ids=["ready", "failed"],
)
def test_watch_ends_with_the_batch(api: ApiServer, ended: Any, exit_code: int, words: str) -> None:
    api.add("batchinferences", make_batch())

    def time_goes_on(path: str) -> None:
        if len(api.asked) > 2:
            api.objects[path]["status"] = ended()["status"]

    api.changes = time_goes_on
    result = run("watch", *BATCH)
    assert result.exit_code == exit_code
    assert words in result.output
    assert result.stdout.startswith("labels  Answering  34%")


def test_a_batch_that_was_submitted_is_watched(api: ApiServer) -> None:
    def time_goes_on(path: str) -> None:
        if path in api.objects and path.endswith("/labels"):
            api.objects[path]["status"] = ready_batch()["status"]

    api.changes = time_goes_on
    batch = {**factories.make_batch(), "metadata": {"name": "labels"}}
    result = run("submit", "-", "--watch", stdin=yaml.safe_dump(batch))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "pvc://claim/batches/0717" in result.stdout


def test_it_is_paused_resumed_and_run_again(api: ApiServer) -> None:
    api.add("batchinferences", {**make_batch(), "status": ready_batch()["status"]})
    spec = api.objects[f"{BATCHES}/labels"]["spec"]
    assert (
        run("suspend", *BATCH).stdout
        == "labels suspended: its pod ends and frees its GPU, and what was answered is kept\n"
    )
    assert spec["suspend"] is True
    assert run("resume", *BATCH).stdout == "labels resumed: it goes on from what was answered\n"
    assert spec["suspend"] is False
    assert "nothing is answered again" in run("rerun", *BATCH, "--token", "tuesday").stdout
    assert spec["rerun"] == "tuesday"


def test_it_is_cancelled_and_the_job_of_its_name_stays(api: ApiServer) -> None:
    api.add("finetunejobs", make_job("labels"))
    api.add("batchinferences", make_batch())
    assert run("cancel", *BATCH, "--yes").exit_code == 0
    assert [path.split("/")[-2] for path in api.objects] == ["finetunejobs"]


def test_the_log_is_that_of_the_pod_that_answers(api: ApiServer) -> None:
    api.add("batchinferences", make_batch())
    result = run("logs", *BATCH)
    assert result.exit_code == 1
    assert "labels has no batch pod now; `kubectl finetune status labels --kind batch` tells" in result.stderr
    [selector] = [query["labelSelector"] for _, path, query, _ in api.asked if path.endswith("/pods")]
    assert selector == "finetune.dev/name=labels,finetune.dev/role=batch"


def test_what_it_costs_is_a_line_of_its_own_and_in_the_total(api: ApiServer) -> None:
    api.add("finetunejobs", make_job(cost={"gpuHours": 1, "lostGpuHours": 0, "amount": 2.0, "currency": "EUR"}))
    api.add("batchinferences", make_batch())
    lines = [line.split() for line in run("cost").stdout.splitlines()]
    assert lines[1] == ["labels", "batch", "Answering", "0.25", "0.00", "1.00", "0.50", "EUR"]
    assert lines[3] == ["TOTAL", "1.25", "0.00", "1.00", "2.50", "EUR"]
    found = json.loads(run("cost", *BATCH, "-o", "json").stdout)
    assert (found["jobs"], [one["name"] for one in found["batches"]]) == ([], ["labels"])


def test_the_last_attempt_counts() -> None:
    assert facts.attempt(make_batch()) == 2
