"""BatchInference on a real cluster: a split through an adapter, with its pod killed halfway; and lines that are bad."""

import json
from typing import Any

import pytest

from tests.cluster.conftest import restricted_pod, trainer_image
from tests.cluster.kube import Kube, Object
from tests.cluster.objects import batch, dataset, job
from tests.cluster.plugin import plugin
from tests.cluster.training import kill, progress

pytestmark = pytest.mark.cluster

ROWS = 1500
"""Held out; with answers that run to their limit, some 30 s of work on an idle core."""

THINGS = "".join(json.dumps({"text": f"thing {number}", "label": "red"}) + "\n" for number in range(ROWS + 100))
SLOW = {"maxTokens": 144}
UNTRAINED = {"epochs": 0.2, "learningRate": 1e-7, "globalBatchSize": 16}
"""The adapter's answers do not end by themselves."""


@pytest.fixture(scope="module", autouse=True)
def _model(lab: Kube) -> None:
    things = dataset("things", source={"inline": {"jsonl": THINGS}}, split={"test": ROWS})
    lab.apply(things, job(dataset={"name": "things"}, hyperparameters=UNTRAINED, evaluation={"metrics": []}))
    lab.wait_ready("finetunejob", "colour-namer", 180)


def pods(kube: Kube, name: str) -> list[Object]:
    return kube.find("pods", f"finetune.dev/role=batch,finetune.dev/name={name}")


def output_of(kube: Kube, name: str) -> dict[str, Any]:
    """The documents of both files, read in a pod that mounts the store."""
    directory = kube.status("batchinference", name)["output"]["uri"].removeprefix("pvc://finetune-artifacts/")
    script = (
        "import json, pathlib; d = pathlib.Path('/store') / '" + directory + "'\n"
        "read = lambda name: [json.loads(line) for line in (d / name).read_text().splitlines()]\n"
        "short = lambda it: [it['custom_id'], (it['error'] or {}).get('code'), (it['error'] or {}).get('message')]\n"
        "print(json.dumps({name: [short(it) for it in read(name + '.jsonl')] for name in ('output', 'errors')}))"
    )
    mounts = [{"name": "store", "mountPath": "/store", "readOnly": True}]
    container = {
        "name": "read", "image": trainer_image(), "command": ["python", "-c", script], "volumeMounts": mounts,
    }  # fmt: skip
    volumes: list[Object] = [{"name": "store", "persistentVolumeClaim": {"claimName": "finetune-artifacts"}}]
    reader = f"read-{name}"
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": reader},
            "spec": restricted_pod(container, volumes),
        }
    )
    kube.wait("the output", lambda: kube.status("pod", reader).get("phase") in ("Succeeded", "Failed"), 60)
    return dict(json.loads(kube.kubectl("logs", reader).stdout))


def test_a_split_is_answered_once_whatever_happens_to_its_pod(lab: Kube) -> None:
    lab.apply(batch("halfway", input={"dataset": {"name": "things", "split": "test"}}, sampling=SLOW))
    lab.wait("a first shard", lambda: progress(lab, "halfway", "batch").get("keptRows", 0) >= 64, 120)
    (first,) = pods(lab, "halfway")
    kill(lab, first["metadata"]["name"])
    status = lab.wait_ready("batchinference", "halfway", 240)
    assert [attempt["reason"] for attempt in status["attempts"]][-1] == "Succeeded"
    assert len(status["attempts"]) == 2
    output = status["output"]
    assert (output["rows"], output["succeeded"], output["failed"]) == (ROWS, ROWS, 0)
    assert 64 <= output["resumedRows"] < ROWS
    assert status["run"]["adapter"]["digest"] == lab.status("finetunejob", "colour-namer")["artifact"]["digest"]
    assert status["progressPercent"] == "100%"
    found = output_of(lab, "halfway")
    assert [name for name, _, _ in found["output"]] == [f"test-{row}" for row in range(ROWS)]
    assert found["errors"] == []
    # Once: another object with the same wish finds the answers; no edit that decides nothing asks again.
    jobs = {item["metadata"]["uid"] for item in lab.find("jobs")}
    lab.merge("batchinference", "halfway", {"spec": {"maxErrorShare": 0.5}})
    generation = (lab.get("batchinference", "halfway") or {})["metadata"]["generation"]
    lab.wait("a look at it", lambda: lab.status("batchinference", "halfway")["observedGeneration"] == generation)
    assert {item["metadata"]["uid"] for item in lab.find("jobs")} == jobs
    lab.apply(batch("again", input={"dataset": {"name": "things", "split": "test"}}, sampling=SLOW))
    again = lab.wait_ready("batchinference", "again", 90)
    assert (again["output"]["digest"], again["output"]["reused"]) == (output["digest"], True)
    # What was said outlives the pods.
    lab.kubectl("delete", "jobs", "-l", "finetune.dev/role=batch", "--cascade=foreground")
    said = plugin(lab, "logs", "halfway", "--kind", "batch")
    assert said.returncode == 0, said.stderr
    assert f"{ROWS} of {ROWS} rows, 0 failed" in said.stdout


def line(number: int, **body: Any) -> str:
    messages = [{"role": "user", "content": f"thing {number}"}]
    told = {"model": "colour-namer", "messages": messages, "max_tokens": 4, **body}
    return json.dumps({"custom_id": f"a-{number}", "method": "POST", "url": "/v1/chat/completions", "body": told})


def test_bad_lines_are_told_apart_and_allowed_by_the_spec_alone(lab: Kube) -> None:
    lines = [line(0), "nonsense", line(2), line(3, temprature=1), line(4), line(4)]
    text = "".join(f"{each}\n" for each in lines)
    lab.apply(batch("asked", input={"jsonl": {"inline": {"jsonl": text}}}))

    def stalled() -> Object | None:
        found = lab.condition("batchinference", "asked", "Stalled")
        return found if found.get("status") == "True" else None

    refused = lab.wait("the refusal", stalled, 120)
    assert refused["reason"] == "RequestsFailed"
    assert "2 of 6 rows have no answer" in refused["message"]
    assert "spec.input.jsonl.inline.jsonl line 2: is not JSON" in refused["message"]
    lab.merge("batchinference", "asked", {"spec": {"maxErrorShare": 0.5}})
    output = lab.wait_ready("batchinference", "asked", 120)["output"]
    assert (output["rows"], output["succeeded"], output["failed"]) == (6, 3, 3)
    assert {each["code"]: each["rows"] for each in output["errors"]} == {
        "invalid_json_line": 1, "invalid_request_error": 1, "duplicate_custom_id": 1,
    }  # fmt: skip
    found = output_of(lab, "asked")
    assert [name for name, _, _ in found["output"]] == ["a-0", "a-2", "a-4"]
    assert [(name, code) for name, code, _ in found["errors"]] == [
        (None, "invalid_json_line"), ("a-3", "invalid_request_error"), ("a-4", "duplicate_custom_id"),
    ]  # fmt: skip
    assert [message.partition(": ")[0] for _, _, message in found["errors"]] == [
        f"spec.input.jsonl.inline.jsonl line {number}" for number in (2, 4, 6)
    ]
