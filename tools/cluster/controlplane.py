"""A second control plane beside the local cluster: etcd, API server and controllers on free loopback ports, no node.

For measurements and tests that need a real API server but no container: it needs no root, shares nothing with the
local cluster but the programs, and goes with the process that started it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tools import binaries
from tools.cluster import certificates, processes
from tools.cluster.components import Component, flags
from tools.cluster.settings import API_SERVER
from tools.console import failure, wait_until
from tools.ports import free_port

CONTROLLERS = (
    "garbage-collector-controller", "job-controller", "namespace-controller", "persistentvolume-binder-controller",
    "serviceaccount-controller",
)  # fmt: skip
"""What the children of our resources need. No node controllers: nodes that nobody heartbeats stay ready."""
READY_SECONDS = 60.0

DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before a command: the kernel ends it when this process ends, however that happens.

Not a `preexec_fn`: Python code between fork and exec deadlocks now and then in a process with threads.
"""


class ControlPlane:
    """`with ControlPlane(folder) as plane:` runs it; `plane.kubeconfig` is a file with all rights."""

    def __init__(self, folder: Path, controllers: tuple[str, ...] = CONTROLLERS, *, has_scheduler: bool = True) -> None:
        """Everything is kept in `folder`, which must be empty or from an earlier control plane that has ended."""
        self.folder = folder
        self.etcd = f"http://127.0.0.1:{free_port()}"
        self.server = f"https://127.0.0.1:{free_port()}"
        self.pki = folder / "pki"
        self.kubeconfig = folder / "admin.kubeconfig"
        self._controllers = controllers
        self._has_scheduler = has_scheduler
        self._programs = binaries.folder_of("kubernetes")
        self._processes: list[tuple[Component, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Self:
        try:
            self.start_api_server()
            self.start_controllers()
        except BaseException:
            self.stop()
            raise
        return self

    def start_api_server(self) -> None:
        """Start the API server and its store, without anybody who acts."""
        binaries.ensure("kubernetes")
        self.folder.mkdir(parents=True, exist_ok=True)
        certificates.ensure(self.pki)
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(certificates.kubeconfig(self.pki, "admin").replace(API_SERVER, self.server))
        self.run(self._etcd())
        self.run(self._api_server())

    def start_controllers(self) -> None:
        """Start who acts; kinds that are installed before are known to them from the beginning."""
        self.run(self._controller_manager())
        if self._has_scheduler:
            self.run(self._scheduler())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, component: Component) -> subprocess.Popen[bytes]:
        """Start one more process that lives as long as the control plane, and wait until it is ready."""
        log = self.folder / f"{component.name}.log"
        for file, content in component.files:
            file.write_text(content)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*DIES_WITH_PARENT, *component.argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            )
        self._processes.append((component, process))
        wait_until(lambda: process.poll() is not None or processes.is_ready(component), READY_SECONDS)
        if process.poll() is not None:
            raise failure(component.name, f"ended with exit status {process.returncode}", log)
        if not processes.is_ready(component):
            raise failure(component.name, f"is not ready after {READY_SECONDS:.0f} s", log)
        return process

    def stop(self) -> None:
        """Kill everything: there is nothing to keep."""
        for _, process in reversed(self._processes):
            process.kill()
        for _, process in self._processes:
            process.wait()
        self._processes.clear()

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time that each process has used so far."""
        return {component.name: cpu_seconds(process.pid) for component, process in self._processes}

    def _etcd(self) -> Component:
        peer = f"http://127.0.0.1:{free_port()}"
        options = flags(
            name="own",
            data_dir=self.folder / "etcd",
            listen_client_urls=self.etcd,
            advertise_client_urls=self.etcd,
            listen_peer_urls=peer,
            initial_advertise_peer_urls=peer,
            initial_cluster=f"own={peer}",
            quota_backend_bytes=8 * 2**30,
        )
        return Component(
            "etcd", (str(self._programs / "server"), *options, "--unsafe-no-fsync"), ready=f"{self.etcd}/health"
        )

    def _api_server(self) -> Component:
        pki = self.pki
        options = flags(
            etcd_servers=self.etcd,
            bind_address="127.0.0.1",
            advertise_address="127.0.0.1",
            secure_port=self.server.rpartition(":")[2],
            endpoint_reconciler_type="none",
            service_cluster_ip_range="10.97.0.0/16",
            authorization_mode="RBAC",
            client_ca_file=pki / "ca.crt",
            tls_cert_file=pki / "apiserver.crt",
            tls_private_key_file=pki / "apiserver.key",
            service_account_issuer="https://kubernetes.default.svc",
            service_account_key_file=pki / "service-account.pub",
            service_account_signing_key_file=pki / "service-account.key",
            cert_dir=self.folder / "apiserver",
        )
        argv = (str(self._programs / "kube-apiserver"), *options)
        return Component("kube-apiserver", argv, ready=f"{self.server}/readyz")

    def _controller_manager(self) -> Component:
        """One identity for all controllers: what each may do is Kubernetes' matter, not ours."""
        port = free_port()
        options = flags(
            kubeconfig=self.kubeconfig,
            authentication_kubeconfig=self.kubeconfig,
            authorization_kubeconfig=self.kubeconfig,
            bind_address="127.0.0.1",
            secure_port=port,
            leader_elect="false",
            controllers=",".join(self._controllers),
            kube_api_qps=1000,
            kube_api_burst=2000,
            concurrent_job_syncs=20,
            concurrent_namespace_syncs=20,
            cert_dir=self.folder / "kube-controller-manager",
        )
        argv = (str(self._programs / "kube-controller-manager"), *options)
        return Component("kube-controller-manager", argv, ready=f"https://127.0.0.1:{port}/healthz")

    def _scheduler(self) -> Component:
        port = free_port()
        options = flags(
            kubeconfig=self.kubeconfig,
            authentication_kubeconfig=self.kubeconfig,
            authorization_kubeconfig=self.kubeconfig,
            bind_address="127.0.0.1",
            secure_port=port,
            leader_elect="false",
            kube_api_qps=500,
            kube_api_burst=1000,
            cert_dir=self.folder / "kube-scheduler",
        )
        argv = (str(self._programs / "kube-scheduler"), *options)
        return Component("kube-scheduler", argv, ready=f"https://127.0.0.1:{port}/healthz")


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
