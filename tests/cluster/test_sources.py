"""Every source of a Dataset through a real pod, and what bad ones end in."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.kube import Kube, Object
from tests.cluster.objects import dataset, job
from tests.cluster.servers import http_server

pytestmark = pytest.mark.cluster

ROWS = [{"prompt": f"How much is {number} and one?", "completion": f"{number + 1}"} for number in range(20)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)
BROKEN = "\n".join([*JSONL.splitlines()[:6], '{"prompt": "unfinished', *JSONL.splitlines()[7:]]) + "\n"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http_server(JSONL) as address:
        yield address


def source(kind: str, address: str) -> Object:
    return {
        "inline": {"inline": {"jsonl": JSONL}},
        "configMap": {"configMap": {"name": "rows", "key": "rows.jsonl"}},
        "http": {"http": {"urls": [f"{address}/good.jsonl"]}},
    }[kind]


def test_every_source_gives_the_same_revision(kube: Kube, server: str) -> None:
    kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": {"rows.jsonl": JSONL}},
        *(
            dataset(f"from-{kind.lower()}", source=source(kind, server), split={"test": 0.25})
            for kind in ("inline", "configMap", "http")
        ),
    )
    revisions = [kube.wait_ready("dataset", f"from-{kind}")["revision"] for kind in ("inline", "configmap", "http")]
    assert len({revision["digest"] for revision in revisions}) == 1
    assert revisions[0]["rows"] == {"read": 20, "kept": 20}
    assert sum(split["rows"] for split in revisions[0]["splits"]) == 20


BAD: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "a line that is not JSON": (lambda _: {"inline": {"jsonl": BROKEN}}, "BadRow", ("line 7",)),
    "HTTP 404": (lambda address: {"http": {"urls": [f"{address}/none.jsonl"]}}, "SourceUnavailable", ("404",)),
    "HTTP that stops half-way": (
        lambda address: {"http": {"urls": [f"{address}/half.jsonl"]}},
        "SourceUnavailable",
        ("half.jsonl",),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_source_never_gives_a_revision(kube: Kube, server: str, case: str) -> None:
    build, reason, words = BAD[case]
    kube.apply(dataset("bad", source=build(server)))
    failure = kube.wait("the failure", lambda: kube.status("dataset", "bad").get("failure"), 120)
    assert failure["reason"] == reason
    assert all(word in failure["message"] for word in words), failure
    assert "revision" not in kube.status("dataset", "bad")


def test_job_waits_for_its_dataset(kube: Kube) -> None:
    kube.apply(job("early", dataset={"name": "late"}))
    waiting = kube.wait("the condition", lambda: kube.condition("finetunejob", "early", "DatasetReady"))
    assert waiting["reason"] == "DatasetNotFound"
    assert "spec.dataset.name" in waiting["message"]
    assert "'late'" in waiting["message"]
    kube.apply(dataset("late", source=source("inline", ""), split={"test": 0.25}))
    kube.wait(
        "the job to go on",
        lambda: kube.condition("finetunejob", "early", "DatasetReady").get("status") == "True",
        120,
    )
    # Its base comes from a claim that is not there: that is said too, and nothing runs in vain.
    stuck = kube.wait("the next condition", lambda: kube.condition("finetunejob", "early", "Staged"))
    assert "claimName" in stuck["message"]
