"""Thousands of finished jobs: copies of one that the operator finished itself, put straight into etcd.

Writing them through the API server would take an hour of nothing but writing; what is stored is the same.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator

import aiohttp

from tools.bench.operator.api import Api, Object
from tools.bench.operator.burst import CLIENTS, in_parallel
from tools.cluster.controlplane import ControlPlane
from tools.console import StepError

FOLDERS = {"FineTuneJob": "finetune.dev/finetunejobs", "Job": "jobs", "Pod": "pods", "ConfigMap": "configmaps"}
"""Where the API server keeps each kind below /registry."""
API_VERSIONS = {"FineTuneJob": "finetune.dev/v1alpha1", "Job": "batch/v1", "Pod": "v1", "ConfigMap": "v1"}


class Copier:
    """One finished job and its children, to be stored again under other names."""

    def __init__(self, items: list[Object], name: str) -> None:
        """`items` belong to the job `name`."""
        self._name = name
        self._texts = [
            (item["kind"], item["metadata"]["name"], json.dumps(_as_stored(item), separators=(",", ":")))
            for item in items
        ]
        self._uids = [item["metadata"]["uid"] for item in items]

    @classmethod
    async def of(cls, api: Api, namespace: str, name: str) -> Copier:
        """Read the job and its children."""
        found = []
        for kind, version in API_VERSIONS.items():
            for item in (await api.list(kind, namespace))["items"]:
                labels = item["metadata"].get("labels") or {}
                if name in (item["metadata"]["name"], labels.get("finetune.dev/name")):
                    found.append({**item, "apiVersion": version, "kind": kind})
        return cls(found, name)

    @property
    def size(self) -> int:
        """Objects per job."""
        return len(self._texts)

    def copy(self, name: str, namespace: str) -> Iterator[tuple[str, str]]:
        """Keys and values of a job with another name; names of children begin with their owner's."""
        uids = {uid: str(uuid.uuid4()) for uid in self._uids}
        for kind, item_name, text in self._texts:
            value = text.replace(self._name, name)
            for before, after in uids.items():
                value = value.replace(before, after)
            yield f"/registry/{FOLDERS[kind]}/{namespace}/{item_name.replace(self._name, name)}", value


def _as_stored(item: Object) -> Object:
    metadata = {name: value for name, value in item["metadata"].items() if name != "resourceVersion"}
    return {**item, "metadata": metadata}


async def fill(plane: ControlPlane, copier: Copier, namespace: str, names: list[str]) -> None:
    """Store a copy for each name."""
    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(plane.etcd, connector=connector) as session:

        async def one(number: int) -> None:
            for key, value in copier.copy(names[number], namespace):
                body = {
                    name: base64.b64encode(text.encode()).decode() for name, text in (("key", key), ("value", value))
                }
                async with session.post("/v3/kv/put", json=body) as response:
                    if response.status != 200:
                        raise StepError(f"etcd: HTTP {response.status}: {await response.text()}")

        await in_parallel(len(names), one)
