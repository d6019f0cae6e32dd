"""Every source, every type of file and every format of a Dataset through real pods, all at once."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest

from tests.cluster.kube import Kube, Object
from tests.cluster.objects import resource
from tests.cluster.servers import http_server
from tests.s3server import KEYS, s3_server
from tests.unit.data.servers import COMMIT, hub
from tools.cluster.settings import NODE_IP

pytestmark = pytest.mark.cluster

ROWS = [{"prompt": f"How much is {number} and one?", "completion": f"{number + 1}, in words"} for number in range(20)]


def jsonl(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(rows: list[Any]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=";")
    writer.writeheader()
    writer.writerows(rows)
    return "\ufeff" + text.getvalue()


def columns(rows: list[Any]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


FILES = {
    "a.jsonl": jsonl(ROWS[:4]).encode(),
    "b.json": json.dumps(ROWS[4:8], indent=1).encode(),
    "c.csv": table(ROWS[8:12]).encode(),
    "d.parquet": columns(ROWS[12:16]),
    "e.jsonl.gz": gzip.compress(jsonl(ROWS[16:18]).replace("\n", "\r\n").encode()),
    "f.csv.zst": bytes(pyarrow.Codec("zstd").compress(table(ROWS[18:]).encode()).to_pybytes()),
}
"""The rows, a few in each type of file."""


TEXTS = [{"text": f"Sentence number {number} of a small story."} for number in range(15)]
PACKINGS: dict[str, Any] = {"": bytes, ".gz": gzip.compress, ".zst": pyarrow.Codec("zstd").compress}


def every_type_packed_every_way() -> dict[str, bytes]:
    """Fifteen files with one of TEXTS each."""
    kinds: dict[str, Any] = {
        "jsonl": lambda row: jsonl([row]).encode(),
        "json": lambda row: json.dumps([row]).encode(),
        "csv": lambda row: table([row]).encode(),
        "parquet": lambda row: columns([row]),
        "txt": lambda row: row["text"].encode(),
    }
    names = [(kind, suffix) for kind in kinds for suffix in PACKINGS]
    return {
        f"{kind}.{kind}{suffix}": bytes(PACKINGS[suffix](kinds[kind](row)))
        for (kind, suffix), row in zip(names, TEXTS, strict=True)
    }


def turns(*said: tuple[str, str], words: tuple[str, str] = ("role", "content")) -> list[Object]:
    return [dict(zip(words, turn, strict=True)) for turn in said]


FORMATS: dict[str, tuple[Object, str, Object]] = {
    "alpaca": ({"instruction": "Add.", "input": "2 and 2", "output": "4"}, "Messages", {}),
    "sharegpt": (
        {"conversations": turns(("human", "Hi"), ("gpt", "Hello"), words=("from", "value"))}, "Messages", {},
    ),
    "messages": ({"messages": turns(("system", "Be brief."), ("user", "a"), ("assistant", "b"))}, "Messages", {}),
    "openai": (
        {"messages": [*turns(("user", "a")), {"role": "assistant", "content": "b", "weight": 0},
                      *turns(("user", "c"), ("assistant", "d"))]}, "Messages", {},
    ),
    "text": ({"text": "Once upon a time."}, "Text", {}),
    "classification": ({"text": "an iron horse", "label": "animal"}, "Classification", {}),
    "preference": ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, "Preference", {}),
    "implicit": (
        {"chosen": turns(("user", "a"), ("assistant", "b")), "rejected": turns(("user", "a"), ("assistant", "c"))},
        "Preference", {},
    ),
    "unpaired": ({"prompt": "2+2?", "completion": "4", "label": True}, "UnpairedPreference", {}),
    "prompts": ({"prompt": "2+2?"}, "Prompts", {}),
    "mapped": (
        {"question": "2+2?", "answers": {"text": ["4"]}}, "PromptCompletion",
        {"prompt": "question", "completion": "answers.text.0"},
    ),
}  # fmt: skip
"""A row as it comes, what it becomes, and how its columns are named."""


@pytest.fixture(scope="module")
def http() -> Iterator[str]:
    with http_server(jsonl(ROWS)) as address:
        yield address


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3"), NODE_IP) as server:
        client = server.client()
        client.create_bucket(Bucket="raw")
        for name, content in FILES.items():
            client.put_object(Bucket="raw", Key=f"tickets/2026/{name}", Body=content)
        yield server.endpoint


@pytest.fixture(scope="module")
def hub_address() -> Iterator[str]:
    with hub(
        {f"data/train-{name}": content for name, content in FILES.items() if "parquet" in name}, NODE_IP
    ) as served:
        served.files |= {"data/test.jsonl": jsonl(ROWS[:12] + ROWS[16:]).encode()}
        yield served.url


def put_files(kube: Kube) -> None:
    """A volume of the test's own; a claim that knows its node is bound without a pod."""
    (node,) = kube.find("node")
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": "raw",
                "annotations": {"volume.kubernetes.io/selected-node": node["metadata"]["name"]},
            },
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
    )
    claim = kube.wait("the claim", lambda: (kube.get("pvc", "raw") or {}).get("spec", {}).get("volumeName"))
    volume = kube.get("pv", claim)
    assert volume is not None
    root = Path((volume["spec"].get("hostPath") or volume["spec"]["local"])["path"])
    for folder, files in (("tickets", FILES), ("all", every_type_packed_every_way())):
        (root / folder).mkdir()
        for name, content in files.items():
            (root / folder / name).write_bytes(content)


def test_every_source_file_and_format(kube: Kube, http: str, s3: str, hub_address: str) -> None:
    put_files(kube)
    endpoint = {"env": [{"name": "HF_ENDPOINT", "value": hub_address}]}
    credentials = {"endpoint": s3, "credentialsSecretRef": {"name": "s3"}}
    hub_part = {"huggingFace": {"repo": "org/rows", "tokenSecretRef": {"name": "s3", "key": "AWS_SECRET_ACCESS_KEY"}}}
    sources: dict[str, Object] = {
        "inline": {"inline": {"jsonl": jsonl(ROWS)}},
        "map": {"configMap": {"name": "rows", "key": "rows.csv"}},
        "http": {"http": {"urls": [f"{http}/good.jsonl"]}},
        "volume": {"persistentVolumeClaim": {"claimName": "raw", "path": "tickets/*"}},
        "s3": {"s3": {"uri": "s3://raw/tickets/**/*", **credentials}},
    }
    kube.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": KEYS},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": {"rows.csv": table(ROWS)}},
        *(resource("Dataset", name, {"source": source}) for name, source in sources.items()),
        resource("Dataset", "every-file", {"source": {"persistentVolumeClaim": {"claimName": "raw", "path": "all/*"}}}),
        resource(
            "Dataset",
            "scheduled",
            {"source": sources["inline"], "refresh": {"schedule": "* * * * *"}},
        ),
        resource("Dataset", "hub", {"source": hub_part, "podTemplate": endpoint, "license": {"spdx": "MIT"}}),
        resource(
            "Dataset",
            "mixed",
            {"source": {"mixture": [{"dataset": "hub", "weight": 1}, {"dataset": "inline", "weight": 2}]}},
        ),
        *(
            resource("Dataset", name, {"source": {"inline": {"jsonl": jsonl([row])}}, "columns": named})
            for name, (row, _, named) in FORMATS.items()
        ),
        resource("Dataset", "gone", {"source": {"s3": {"uri": "s3://raw/none/", **credentials}}}),
        resource("Dataset", "loop", {"source": {"mixture": [{"dataset": "loop"}]}}),
    )
    revisions = {name: kube.wait_ready("dataset", name)["revision"] for name in [*sources, "hub", "mixed", *FORMATS]}
    assert {revisions[name]["digest"] for name in sources} == {revisions["inline"]["digest"]}
    assert revisions["s3"]["sourceRevision"] == revisions["volume"]["sourceRevision"]
    hub_revision = revisions["hub"]
    assert (hub_revision["sourceRevision"], hub_revision["license"]) == (COMMIT, "MIT")
    assert hub_revision["rows"] == {"read": 4, "kept": 4}
    # Four rows of one and eight of the other, of which some are the same.
    assert revisions["mixed"]["rows"]["read"] == 12
    assert revisions["mixed"]["license"] == "NOASSERTION"
    assert {name: revisions[name]["format"] for name in FORMATS} == {
        name: kind for name, (_, kind, _) in FORMATS.items()
    }
    assert kube.wait_ready("dataset", "every-file")["revision"]["rows"] == {"read": 15, "kept": 15}
    failure = kube.wait("the failure", lambda: kube.status("dataset", "gone").get("failure"))
    assert failure["reason"] == "SourceNotFound"
    assert kube.condition("dataset", "loop", "Stalled")["reason"] == "ReferenceCycle"
    # Its minute has passed meanwhile, or is about to.
    read = kube.wait(
        "a reading by the schedule",
        lambda: (status := kube.status("dataset", "scheduled")).get("revision", {}).get("scheduledFor") and status,
        120,
    )
    assert read["revision"]["digest"] == revisions["inline"]["digest"]
    assert not read.get("history")
    assert kube.condition("dataset", "scheduled", "Refreshed")["reason"] == "SourceRead"
