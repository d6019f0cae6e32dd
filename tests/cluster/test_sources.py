"""What bad sources of a Dataset end in, through real pods, and what another reading of a good one does."""

import base64
import gzip
import json
from collections.abc import Iterator

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


def lines(*rows: str | Object) -> bytes:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()


def turns(*roles: str) -> Object:
    return {"messages": [{"role": role, "content": "a"} for role in roles]}


GOOD, CHAT = ROWS[0], turns("user", "assistant")
BOMB = gzip.compress((b'{"text": "' + b"a" * 10**6 + b'"}\n') * 70)

FILES: dict[str, tuple[bytes, str, str]] = {
    "broken.jsonl": (BROKEN.encode(), "BadRow", "line 7"),
    "empty.jsonl": (b"", "DatasetInvalid", "holds no rows"),
    "blank.jsonl": (lines({"text": " "}, {"text": ""}), "DatasetInvalid", "no row is left of 2 (2 Empty)"),
    "latin.jsonl": (lines(GOOD) + b'\n{"prompt": "K\xf6ln", "completion": "?"}', "BadRow", "line 2: is not UTF-8"),
    "nan.jsonl": (lines(GOOD, '{"prompt": NaN, "completion": "a"}'), "BadRow", "line 2: holds NaN"),
    "twice.jsonl": (lines(GOOD, '{"prompt": "a", "prompt": "b"}'), "BadRow", "line 2: has the key 'prompt' twice"),
    "deep.jsonl": (lines(GOOD, "[" * 50_000 + "]" * 50_000), "BadRow", "line 2: is nested too deeply"),
    "begins.jsonl": (lines(CHAT, turns("assistant", "user")), "BadRow", "line 2: messages[0].role"),
    "repeats.jsonl": (lines(CHAT, turns("user", "user")), "BadRow", "line 2: messages[1].role"),
    "mixed.jsonl": (lines({"text": "a"}, {"text": "a", "label": "b"}), "BadRow", "line 2: is a row of Classification"),
    "columns.csv": (b"a,b\n1,2\n", "DatasetInvalid", "line 2: has the columns a, b"),
    "bomb.jsonl.gz": (BOMB, "DatasetInvalid", "decompression bomb"),
}
"""What people hand in by mistake, the reason that it ends in, and what is said of it."""

ADDRESSES: dict[str, tuple[str, str, str]] = {
    "missing": ("none.jsonl", "SourceNotFound", "404"),
    "half": ("half.jsonl", "SourceUnavailable", "half.jsonl"),
    "page": ("page.jsonl", "DatasetInvalid", "is HTML"),
    "endless": ("endless.jsonl", "BadRow", "line 1: is longer than 16 MiB"),
}
"""What an address answers by mistake."""


def failure_of(kube: Kube, name: str) -> Object:
    return kube.wait(f"the failure of {name}", lambda: kube.status("dataset", name).get("failure"), 180)


def test_no_bad_source_gives_a_revision(kube: Kube, server: str) -> None:
    content = {name: base64.b64encode(data).decode() for name, (data, _, _) in FILES.items()}
    sources: dict[str, Object] = {name.partition(".")[0]: {"configMap": {"name": "bad", "key": name}} for name in FILES}
    sources |= {name: {"http": {"urls": [f"{server}/{path}"]}} for name, (path, _, _) in ADDRESSES.items()}
    kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bad"}, "binaryData": content},
        *(dataset(name, source=source, split={}) for name, source in sources.items()),
    )
    told = {name.partition(".")[0]: expected for name, (_, *expected) in FILES.items()}
    told |= {name: expected for name, (_, *expected) in ADDRESSES.items()}
    for name, (reason, words) in told.items():
        failure = failure_of(kube, name)
        assert failure["reason"] == reason, (name, failure)
        assert words in failure["message"], (name, failure)
        assert "revision" not in kube.status("dataset", name)


def test_reading_again_gives_a_revision_only_for_new_rows(kube: Kube) -> None:
    def put(rows: list[Object]) -> None:
        data = {"rows.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}
        kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": data})

    def read_again(word: str) -> Object:
        kube.merge("dataset", "rows", {"spec": {"rerun": word}})
        kube.wait("another reading", lambda: kube.status("dataset", "rows")["revision"].get("rerun") == word, 120)
        return kube.status("dataset", "rows")

    put(ROWS)
    kube.apply(dataset("rows", source={"configMap": {"name": "rows", "key": "rows.jsonl"}}))
    first = kube.wait_ready("dataset", "rows")["revision"]
    put(ROWS[::-1])
    same = read_again("another order")
    assert (same["revision"]["digest"], same["revision"]["createdAt"]) == (first["digest"], first["createdAt"])
    assert not same.get("history")
    put([*ROWS, {"prompt": "And now?", "completion": "Another."}])
    changed = read_again("another row")
    assert changed["revision"]["digest"] != first["digest"]
    assert changed["revision"]["rows"] == {"read": 21, "kept": 21}
    assert [older["digest"] for older in changed["history"]] == [first["digest"]]


def test_job_waits_for_its_dataset(kube: Kube) -> None:
    kube.apply(job("early", dataset={"name": "late"}))
    waiting = kube.wait("the condition", lambda: kube.condition("finetunejob", "early", "DatasetReady"))
    assert waiting["reason"] == "DatasetNotFound"
    assert "spec.dataset.name" in waiting["message"]
    assert "'late'" in waiting["message"]
    kube.apply(dataset("late", source={"inline": {"jsonl": JSONL}}, split={"test": 0.25}))
    kube.wait(
        "the job to go on",
        lambda: kube.condition("finetunejob", "early", "DatasetReady").get("status") == "True",
        120,
    )
    # Its base comes from a claim that is not there: that is said too, and nothing runs in vain.
    stuck = kube.wait("the next condition", lambda: kube.condition("finetunejob", "early", "Staged"))
    assert "claimName" in stuck["message"]
