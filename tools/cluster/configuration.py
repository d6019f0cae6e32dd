"""The configuration files that components read, as text. Pure: nothing is written here.

Kubernetes reads JSON wherever it reads YAML, so the standard library is enough.
"""

from __future__ import annotations

import json
from typing import Any

from tools.cluster.settings import (
    BUSYBOX_IMAGE,
    CLUSTER_DOMAIN,
    DNS_IP,
    NODE,
    NODE_IP,
    NODE_POD_CIDR,
    PAUSE_IMAGE,
    POD_BRIDGE,
    POD_CIDR,
    POD_NETWORK,
    Layout,
)

CNI_PLUGINS = "/usr/lib/cni"


def as_json(document: dict[str, Any]) -> str:
    """A document in a stable notation, so that equal configurations have equal hashes."""
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def containerd(layout: Layout) -> str:
    """A containerd with nothing shared with one that the machine may already run."""
    return f"""\
version = 2
root = "{layout.images}"
state = "{layout.containerd_state}"
# Debian's containerd warns and retries for these; none of them is used.
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing"]

# Without this, a damaged database makes it serve nothing instead of ending with an error.
required_plugins = ["io.containerd.grpc.v1.cri"]

[grpc]
  address = "{layout.containerd_socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Where CAP_SYS_RESOURCE is missing (many virtual machines and containers), runc fails without this.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_PLUGINS}"
  conf_dir = "{layout.config / "cni"}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = false
    Root = "{layout.state / "runc"}"
"""


def pod_network(layout: Layout) -> str:
    """Pods on one bridge, masqueraded to the outside."""
    bridge = {
        "type": "bridge",
        "bridge": POD_BRIDGE,
        "isDefaultGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(layout.state / "cni"),
            "ranges": [[{"subnet": NODE_POD_CIDR}]],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return as_json({"cniVersion": "1.0.0", "name": POD_NETWORK, "plugins": [bridge, portmap]})


def kubelet(layout: Layout) -> str:
    """A kubelet that keeps everything below its own folders and never collects an image: there is no registry."""
    return as_json(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_IP,
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "clusterDNS": [DNS_IP],
            "clusterDomain": CLUSTER_DOMAIN,
            "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
            "evictionHard": {
                "memory.available": "200Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
            "failSwapOn": False,
            "imageGCHighThresholdPercent": 100,
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
            "maxPods": 200,
            "podLogsDir": str(layout.state / "pod-logs"),
            "resolvConf": "",
            "volumePluginDir": str(layout.state / "volume-plugins"),
        }
    )


def kube_proxy(layout: Layout) -> str:
    """Services by iptables; node ports only on this machine's own addresses."""
    return as_json(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": str(layout.config / "kube-proxy.kubeconfig")},
            "clusterCIDR": POD_CIDR,
            # Leave the machine's own connection-tracking limits alone.
            "conntrack": {"maxPerCore": 0, "min": 0},
            "healthzBindAddress": "127.0.0.1:10256",
            "hostnameOverride": NODE,
            "metricsBindAddress": "127.0.0.1:10249",
            "nodePortAddresses": [f"{NODE_IP}/32", "127.0.0.1/32"],
        }
    )


def coredns(layout: Layout) -> str:
    """The cluster's names from the API server, all others from the machine's resolvers."""
    return f"""\
.:53 {{
    bind {DNS_IP}
    errors
    ready 127.0.0.1:8181
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {layout.admin_kubeconfig}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }}
    forward . /etc/resolv.conf
    cache 5
}}
"""


def local_path(layout: Layout) -> str:
    """One folder per volume, writable for any user: the API server admits non-root pods only."""
    return as_json(
        {
            "sharedFileSystemPath": str(layout.volumes),
            "setupCommand": "/bin/volume-setup",
            "teardownCommand": "/bin/volume-teardown",
            "cmdTimeoutSeconds": 60,
        }
    )


def local_path_helper_pod() -> str:
    """The pod that makes and deletes volume folders."""
    container = {"name": "helper-pod", "image": BUSYBOX_IMAGE, "imagePullPolicy": "Never"}
    return as_json(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "helper-pod"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
        }
    )
