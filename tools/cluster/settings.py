"""The cluster's addresses and folders: everything that two components must agree on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools.paths import cache

NODE = "local"
NODE_BRIDGE = "node0"
"""A bridge that carries the node's address: the kubelet refuses a loopback address, `dummy` needs a kernel module."""

NODE_IP = "10.245.0.1"
POD_BRIDGE = "cni0"
POD_NETWORK = "finetune"
POD_CIDR = "10.244.0.0/16"
NODE_POD_CIDR = "10.244.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"

API_PORT = 6443
API_SERVER = f"https://{NODE_IP}:{API_PORT}"
"""Reachable from this machine and its pods only."""

ETCD = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"

GPUS = 8
"""How many `nvidia.com/gpu` the node advertises; no device stands behind them."""

PAUSE_IMAGE = "localhost/finetune-pause:1"
BUSYBOX_IMAGE = "localhost/finetune-busybox:1"
STORAGE_CLASS = "local-path"
STORAGE_NAMESPACE = "local-path-storage"


@dataclass(frozen=True)
class Layout:
    """The folders of one cluster. `state` goes with `make cluster-down`, `images` stays."""

    state: Path
    images: Path

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.state / "pki"

    @property
    def config(self) -> Path:
        """Configuration files, rendered at every start."""
        return self.state / "config"

    @property
    def logs(self) -> Path:
        """One log file per component."""
        return self.state / "logs"

    @property
    def etcd(self) -> Path:
        """What the cluster remembers."""
        return self.state / "etcd"

    @property
    def kubelet(self) -> Path:
        """The kubelet's root folder, with the pods' volumes mounted in it."""
        return self.state / "kubelet"

    @property
    def volumes(self) -> Path:
        """The contents of dynamically provisioned PersistentVolumes."""
        return self.state / "volumes"

    @property
    def containerd_state(self) -> Path:
        """Running containers; root file systems are mounted here."""
        return self.state / "containerd"

    @property
    def containerd_socket(self) -> Path:
        """Where kubelet and `ctr` reach containerd."""
        return self.state / "containerd.sock"

    @property
    def admin_kubeconfig(self) -> Path:
        """Full rights; copied into every clone's `.local/kubeconfig`."""
        return self.config / "admin.kubeconfig"


def layout() -> Layout:
    """The layout below this user's cache folder."""
    return Layout(state=cache() / "cluster", images=cache() / "containerd")
