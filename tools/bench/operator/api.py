"""A bare client of the API server: no cache, no retries, no parsing that is not needed."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp

from tools.cluster.controlplane import ControlPlane
from tools.console import StepError

Object = dict[str, Any]

PLURALS = {
    "Namespace": "api/v1/{}namespaces", "Node": "api/v1/{}nodes", "Pod": "api/v1/{}pods",
    "ConfigMap": "api/v1/{}configmaps", "PersistentVolume": "api/v1/{}persistentvolumes",
    "PersistentVolumeClaim": "api/v1/{}persistentvolumeclaims", "Job": "apis/batch/v1/{}jobs",
    "ServiceAccount": "api/v1/{}serviceaccounts",
    "Dataset": "apis/finetune.dev/v1alpha1/{}datasets", "FineTuneJob": "apis/finetune.dev/v1alpha1/{}finetunejobs",
    "CustomResourceDefinition": "apis/apiextensions.k8s.io/v1/{}customresourcedefinitions",
}  # fmt: skip
NAMESPACED = {"Pod", "ConfigMap", "PersistentVolumeClaim", "Job", "ServiceAccount", "Dataset", "FineTuneJob"}

_VERSION = re.compile(rb'"resourceVersion":"(\d+)"')
"""The object's own: nothing before it in an object has one."""


def path(kind: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """Where an object, or with no name the collection, is."""
    middle = f"namespaces/{namespace}/" if kind in NAMESPACED else ""
    return "/" + "/".join(part for part in (PLURALS[kind].format(middle), name, subresource) if part)


class Api:
    """`async with Api(plane) as api:` opens the connections."""

    def __init__(self, plane: ControlPlane) -> None:
        """Logged in with all rights."""
        self._plane = plane

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(cafile=self._plane.pki / "ca.crt")
        context.load_cert_chain(self._plane.pki / "admin.crt", self._plane.pki / "admin.key")
        self._session = aiohttp.ClientSession(
            self._plane.server,
            connector=aiohttp.TCPConnector(ssl=context, limit=64),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**20,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(self, method: str, where: str, body: Object | bytes | None = None) -> bytes:
        """Send a request, answer the body. Raises StepError."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        async with self._session.request(method, where, data=data, headers={"Content-Type": kind}) as response:
            answer = await response.read()
            if response.status >= 400:
                raise StepError(f"{method} {where}: HTTP {response.status}: {answer[:500].decode(errors='replace')}")
            return answer

    async def create(self, item: Object, namespace: str = "") -> Object:
        """Create an object."""
        return dict(json.loads(await self.send("POST", path(item["kind"], namespace), item)))

    async def set_status(self, item: Object, namespace: str, status: Object) -> None:
        """Merge into an object's status."""
        where = path(item["kind"], namespace, item["metadata"]["name"], "status")
        await self.send("PATCH", where, {"status": status})

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object, or None."""
        async with self._session.get(path(kind, namespace, name)) as response:
            return dict(await response.json()) if response.status == 200 else None

    async def list(self, kind: str, namespace: str) -> Object:
        """All objects of a namespace."""
        return dict(json.loads(await self.send("GET", path(kind, namespace))))

    async def watch(self, kind: str, namespace: str) -> AsyncIterator[bytes]:
        """Lines of a watch from now on, unparsed."""
        version = json.loads(await self.send("GET", path(kind, namespace) + "?limit=1"))["metadata"]["resourceVersion"]
        # The server ends the watch of a client that is too slow for it.
        while True:
            where = f"{path(kind, namespace)}?watch=1&resourceVersion={version}"
            async with self._session.get(where) as response:
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line.startswith(b'{"type":"ERROR"'):
                            raise StepError(f"the watch of {kind} has failed: {line[:500].decode(errors='replace')}")
                        if found := _VERSION.search(line):
                            version = found[1].decode()
                        yield line

    async def requests(self) -> dict[tuple[str, str], int]:
        """The API server's own count of writes, by verb and resource."""
        text = (await self.send("GET", "/metrics")).decode()
        found: dict[tuple[str, str], int] = {}
        for line in text.splitlines():
            if line.startswith("apiserver_request_total{"):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
                key = (labels["verb"], labels["resource"])
                found[key] = found.get(key, 0) + int(float(line.rpartition(" ")[2]))
        writes = ("POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION")
        return {key: count for key, count in found.items() if key[0] in writes}
