"""A control plane of its own: etcd, kube-apiserver and the controllers, on loopback, without a node.

Nothing is shared with `make cluster` but the programs, so the suite needs no root, no images and no running cluster,
and may stop and starve what it likes. What a kubelet would do is done by `kubelet.Kubelet`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tools import binaries
from tools.cluster import certificates
from tools.cluster.components import flags
from tools.cluster.settings import API_SERVER

CONTROLLERS = (
    "deployment-controller", "garbage-collector-controller", "job-controller", "namespace-controller",
    "persistentvolumeclaim-protection-controller", "replicaset-controller", "resourcequota-controller",
    "serviceaccount-controller",
)  # fmt: skip
READY_SECONDS = 60.0


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before a command: the kernel ends it when the test process ends, however that happens.

Not a `preexec_fn`: Python code between fork and exec deadlocks now and then in a process with threads.
"""


class ControlPlane:
    """The processes, and how to reach the API server."""

    def __init__(self, folder: Path) -> None:
        """Everything is kept in `folder`."""
        self._folder = folder
        self._programs = binaries.ensure("kubernetes")["kubernetes"]
        self._pki = folder / "pki"
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.port = free_port()
        self.server = f"https://127.0.0.1:{self.port}"

    async def start(self, crds: Path) -> None:
        """Start everything; the controllers last, so that the garbage collector knows our kinds from the beginning."""
        certificates.ensure(self._pki)
        etcd = f"http://127.0.0.1:{free_port()}"
        self._start_etcd(etcd)
        await self._ready("etcd", f"{etcd}/health")
        self._start_api_server(etcd)
        await self._ready("kube-apiserver", f"{self.server}/readyz")
        async with aiohttp.ClientSession(self.server, connector=self.connector()) as session:
            for file in sorted(crds.glob("*.yaml")):
                await _install(session, file)
        port = free_port()
        self._start_controllers(port)
        await self._ready("kube-controller-manager", f"https://127.0.0.1:{port}/healthz")

    def stop(self) -> None:
        """Kill everything: there is nothing to keep."""
        for _, process in reversed(self._processes):
            process.kill()
        for _, process in self._processes:
            process.wait()

    def connector(self, limit: int = 0) -> aiohttp.TCPConnector:
        """Connections that are logged in with all rights."""
        context = ssl.create_default_context(cafile=self._pki / "ca.crt")
        context.load_cert_chain(self._pki / "admin.crt", self._pki / "admin.key")
        return aiohttp.TCPConnector(ssl=context, limit=limit)

    def _start_etcd(self, url: str) -> None:
        peer = f"http://127.0.0.1:{free_port()}"
        options = flags(
            name="faults",
            data_dir=self._folder / "etcd",
            listen_client_urls=url,
            advertise_client_urls=url,
            listen_peer_urls=peer,
            initial_advertise_peer_urls=peer,
            initial_cluster=f"faults={peer}",
        )
        self._run("etcd", str(self._programs / "server"), *options, "--unsafe-no-fsync")

    def _start_api_server(self, etcd: str) -> None:
        pki = self._pki
        options = flags(
            etcd_servers=etcd,
            bind_address="127.0.0.1",
            advertise_address="127.0.0.1",
            secure_port=self.port,
            endpoint_reconciler_type="none",
            service_cluster_ip_range="10.97.0.0/16",
            authorization_mode="RBAC",
            client_ca_file=pki / "ca.crt",
            tls_cert_file=pki / "apiserver.crt",
            tls_private_key_file=pki / "apiserver.key",
            service_account_issuer="https://kubernetes.default.svc",
            service_account_key_file=pki / "service-account.pub",
            service_account_signing_key_file=pki / "service-account.key",
            cert_dir=self._folder / "apiserver",
        )
        self._run("kube-apiserver", str(self._programs / "kube-apiserver"), *options)

    def _start_controllers(self, port: int) -> None:
        kubeconfig = self._folder / "controllers.kubeconfig"
        # One identity for all controllers: what each may do is Kubernetes' matter, not ours.
        text = certificates.kubeconfig(self._pki, "admin").replace(API_SERVER, self.server)
        kubeconfig.write_text(text)
        options = flags(
            kubeconfig=kubeconfig,
            authentication_kubeconfig=kubeconfig,
            authorization_kubeconfig=kubeconfig,
            bind_address="127.0.0.1",
            secure_port=port,
            leader_elect="false",
            controllers=",".join(CONTROLLERS),
            kube_api_qps=1000,
            kube_api_burst=2000,
            concurrent_job_syncs=20,
            concurrent_namespace_syncs=20,
            cert_dir=self._folder / "controllers",
        )
        self._run("kube-controller-manager", str(self._programs / "kube-controller-manager"), *options)

    def _run(self, name: str, *argv: str) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*DIES_WITH_PARENT, *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
            )
        self._processes.append((name, process))

    async def _ready(self, name: str, url: str) -> None:
        process = next(process for known, process in self._processes if known == name)
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
            while True:
                try:
                    async with session.get(url, timeout=aiohttp.ClientTimeout(total=2)) as response:
                        if response.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass
                ended = process.poll() is not None
                if ended or asyncio.get_running_loop().time() > deadline:
                    log = (self._folder / f"{name}.log").read_text(errors="replace")[-3000:]
                    raise AssertionError(f"{name} {'ended' if ended else 'is not ready'}:\n{log}")
                await asyncio.sleep(0.1)


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
