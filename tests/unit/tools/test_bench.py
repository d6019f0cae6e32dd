"""The benchmarks' own arithmetic, what their fakes say, and what they see in a watch."""

import json

import pytest
import yaml

from finetune_contract.datasets import DatasetResult
from finetune_contract.results import StageResult, TrainingResult
from tests.factories import ready_dataset
from tools.bench.figures import percentile
from tools.bench.operator import burst, fakes
from tools.bench.operator.rest import Copier


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        pytest.param([3.0, 1.0, 2.0], 0.5, 2.0, id="median of three"),
        pytest.param([float(value) for value in range(1, 101)], 0.99, 99.0, id="p99 of a hundred"),
        pytest.param([float(value) for value in range(1, 1001)], 0.95, 950.0, id="p95 of a thousand"),
        pytest.param([7.0], 0.99, 7.0, id="one"),
        pytest.param([1.0, 9.0], 0.99, 9.0, id="p99 of two is the larger"),
    ],
)
def test_percentile(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_fake_pods_leave_documents_of_the_contract() -> None:
    messages = fakes.messages()
    assert DatasetResult.model_validate_json(messages["prepare"]).revision
    assert StageResult.model_validate_json(messages["stage"]).run_key
    assert TrainingResult.model_validate_json(messages["train"]).artifact


def test_kwok_stages_are_yaml_whose_templates_are_yaml_once_filled_in() -> None:
    stages = list(yaml.safe_load_all(fakes.stages()))
    assert [stage["metadata"]["name"] for stage in stages] == ["pod-runs", "prepare-ends", "stage-ends", "train-ends"]
    template = stages[-1]["spec"]["next"]["statusTemplate"]
    message = next(line for line in template.splitlines() if "message:" in line)
    filled = yaml.safe_load(message.replace("{{ $run }}", "0123456789abcdef"))["message"]
    assert TrainingResult.model_validate_json(filled).run_key == "0123456789abcdef"


def test_the_bare_client_writes_what_a_first_pass_writes() -> None:
    claim = {"metadata": {"name": fakes.CLAIM}}
    script = burst.script(7, "bare", ready_dataset(fakes.DATASET), claim)
    assert script.name == "job-00007"
    assert [where.rpartition("/")[2] for where, _ in script.children] == ["configmaps", "jobs"]
    for _, body in script.children:
        assert json.loads(body)["metadata"]["ownerReferences"][0]["uid"] == burst._UID
    assert json.loads(script.status)["status"]["phase"] == "Staging"


def line(change: str, kind: str, name: str, role: str | None = None, phase: str | None = None) -> bytes:
    labels = {"finetune.dev/name": "job-1", "finetune.dev/role": role} if role else {}
    item = {"kind": kind, "apiVersion": "v1", "metadata": {"name": name, "labels": labels}}
    status = {"status": {"phase": phase}} if phase else {}
    return json.dumps({"type": change, "object": {**item, **status}}, separators=(",", ":")).encode()


def test_sightings() -> None:
    seen = burst.Sightings(applied={"job-1": 0.0})
    seen.see_job(line("MODIFIED", "Job", "job-1-stage-1", "stage"))
    assert not seen.jobs
    seen.see_job(line("ADDED", "Job", "job-1-stage-1", "stage"))
    first = seen.jobs["job-1"]
    assert not seen.training_jobs
    seen.see_job(line("ADDED", "Job", "job-1-1", "train"))
    assert seen.jobs["job-1"] == first
    assert "job-1" in seen.training_jobs
    seen.see_pod(line("MODIFIED", "Pod", "job-1-stage-1-x", "stage", "Succeeded"))
    seen.see_pod(line("MODIFIED", "Pod", "job-1-1-x", "train", "Running"))
    assert not seen.pods_finished
    seen.see_pod(line("MODIFIED", "Pod", "job-1-1-x", "train", "Succeeded"))
    assert "job-1" in seen.pods_finished
    seen.see_resource(line("MODIFIED", "FineTuneJob", "job-1", phase="Training"))
    assert not seen.succeeded
    seen.see_resource(line("MODIFIED", "FineTuneJob", "job-1", phase="Succeeded"))
    assert list(seen.succeeded) == ["job-1"]


def test_copies_have_names_and_uids_of_their_own_and_point_at_each_other() -> None:
    job = {"kind": "FineTuneJob", "metadata": {"name": "job-1", "uid": "uid-a", "resourceVersion": "9"}}
    child = {"kind": "Job", "metadata": {"name": "job-1-x", "uid": "uid-b", "ownerReferences": [{"uid": "uid-a"}]}}
    copied = {key: json.loads(value)["metadata"] for key, value in Copier([job, child], "job-1").copy("old-7", "bench")}
    owner = copied["/registry/finetune.dev/finetunejobs/bench/old-7"]
    owned = copied["/registry/jobs/bench/old-7-x"]
    assert (owner["name"], owned["name"]) == ("old-7", "old-7-x")
    assert owned["ownerReferences"][0]["uid"] == owner["uid"] != "uid-a"
    assert "resourceVersion" not in owner
