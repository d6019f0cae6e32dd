"""The suite's control plane: a real API server and controllers on loopback, without a scheduler or a node.

What a kubelet would do is done by `kubelet.Kubelet`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tools.cluster import controlplane

CONTROLLERS = (
    "deployment-controller", "garbage-collector-controller", "job-controller", "namespace-controller",
    "persistentvolumeclaim-protection-controller", "replicaset-controller", "resourcequota-controller",
    "serviceaccount-controller",
)  # fmt: skip


class ControlPlane(controlplane.ControlPlane):
    """The processes, and how to reach the API server."""

    def __init__(self, folder: Path) -> None:
        """Everything is kept in `folder`."""
        super().__init__(folder, CONTROLLERS, has_scheduler=False)

    async def start(self, crds: Path) -> None:
        """Start everything; the controllers last, so that the garbage collector knows our kinds from the beginning."""
        await asyncio.to_thread(self.start_api_server)
        async with aiohttp.ClientSession(self.server, connector=self.connector()) as session:
            for file in sorted(crds.glob("*.yaml")):
                await _install(session, file)
        await asyncio.to_thread(self.start_controllers)

    def connector(self, limit: int = 0) -> aiohttp.TCPConnector:
        """Connections that are logged in with all rights."""
        context = ssl.create_default_context(cafile=self.pki / "ca.crt")
        context.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
        return aiohttp.TCPConnector(ssl=context, limit=limit)


async def _install(session: aiohttp.ClientSession, file: Path) -> None:
    """Install a CRD and wait until it is served."""
    crd: dict[str, Any] = yaml.safe_load(file.read_text())
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    async with session.post(path, data=json.dumps(crd), headers={"Content-Type": "application/json"}) as response:
        assert response.status == 201, await response.text()
    while True:
        async with session.get(f"{path}/{crd['metadata']['name']}") as response:
            conditions = (await response.json()).get("status", {}).get("conditions") or []
        if any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions):
            return
        await asyncio.sleep(0.05)
