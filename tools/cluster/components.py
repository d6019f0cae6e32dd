"""The cluster's processes: what each is called with, what it reads and how it shows that it is ready. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools import fingerprint
from tools.cluster import configuration
from tools.cluster.settings import (
    API_PORT,
    API_SERVER,
    BUSYBOX_IMAGE,
    CLUSTER_DOMAIN,
    ETCD,
    ETCD_PEER,
    NODE,
    NODE_IP,
    POD_CIDR,
    SERVICE_CIDR,
    STORAGE_NAMESPACE,
    Layout,
)

Binaries = Mapping[str, Path]
"""The folder of each Go module's programs."""


@dataclass(frozen=True)
class Component:
    """One process of the cluster."""

    name: str
    argv: tuple[str, ...]
    files: tuple[tuple[Path, str], ...] = ()
    """Configuration files it reads, with their content."""
    ready: str = ""
    """A URL that answers 200, or `unix:PATH` that accepts a connection; empty: ready when it runs."""

    @property
    def configuration(self) -> str:
        """Changes when the process must be started anew: another program, flag or configuration file."""
        return fingerprint.of_texts(*self.argv, *(text for file in self.files for text in (str(file[0]), file[1])))


def flags(**values: str | int | Path) -> tuple[str, ...]:
    """`flags(bind_address="::1")` as `--bind-address=::1`."""
    return tuple(f"--{name.replace('_', '-')}={value}" for name, value in values.items())


def stages(layout: Layout, binaries: Binaries) -> tuple[tuple[Component, ...], ...]:
    """All components in their starting order; those of one stage start together."""
    kubernetes = binaries["kubernetes"]
    return (
        (etcd(layout, kubernetes), containerd(layout)),
        (kube_apiserver(layout, kubernetes),),
        (
            kube_controller_manager(layout, kubernetes),
            kube_scheduler(layout, kubernetes),
            kubelet(layout, kubernetes),
            kube_proxy(layout, kubernetes),
            coredns(layout, binaries["coredns"]),
            local_path_provisioner(layout, binaries["local-path-provisioner"]),
        ),
    )


def etcd(layout: Layout, binaries: Path) -> Component:
    """The package of etcd's server is called `server`. Without fsync: this data may be lost, and is then rebuilt."""
    options = flags(
        name="local",
        data_dir=str(layout.etcd),
        listen_client_urls=ETCD,
        advertise_client_urls=ETCD,
        listen_peer_urls=ETCD_PEER,
        initial_advertise_peer_urls=ETCD_PEER,
        initial_cluster=f"local={ETCD_PEER}",
    )
    return Component("etcd", (str(binaries / "server"), *options, "--unsafe-no-fsync"), ready=f"{ETCD}/health")


def containerd(layout: Layout) -> Component:
    """Debian's containerd with our own configuration, folders and socket."""
    file = layout.config / "containerd.toml"
    network = layout.config / "cni" / "10-finetune.conflist"
    return Component(
        "containerd",
        ("/usr/bin/containerd", "--config", str(file)),
        files=((file, configuration.containerd(layout)), (network, configuration.pod_network(layout))),
        ready=f"unix:{layout.containerd_socket}",
    )


def kube_apiserver(layout: Layout, binaries: Path) -> Component:
    """Without the aggregation flags, an unavailable APIService (Kueue's) would make every namespace deletion hang."""
    pki = layout.pki
    options = flags(
        etcd_servers=ETCD,
        bind_address=NODE_IP,
        secure_port=API_PORT,
        advertise_address=NODE_IP,
        service_cluster_ip_range=SERVICE_CIDR,
        allow_privileged="true",
        authorization_mode="Node,RBAC",
        enable_admission_plugins="NodeRestriction",
        client_ca_file=pki / "ca.crt",
        tls_cert_file=pki / "apiserver.crt",
        tls_private_key_file=pki / "apiserver.key",
        kubelet_client_certificate=pki / "apiserver-kubelet-client.crt",
        kubelet_client_key=pki / "apiserver-kubelet-client.key",
        kubelet_preferred_address_types="InternalIP",
        service_account_issuer=f"https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        service_account_key_file=pki / "service-account.pub",
        service_account_signing_key_file=pki / "service-account.key",
        requestheader_client_ca_file=pki / "ca.crt",
        requestheader_allowed_names="front-proxy-client",
        requestheader_username_headers="X-Remote-User",
        requestheader_group_headers="X-Remote-Group",
        requestheader_extra_headers_prefix="X-Remote-Extra-",
        proxy_client_cert_file=pki / "front-proxy-client.crt",
        proxy_client_key_file=pki / "front-proxy-client.key",
        enable_aggregator_routing="true",
        cert_dir=layout.state / "apiserver",
    )
    return Component("kube-apiserver", (str(binaries / "kube-apiserver"), *options), ready=f"{API_SERVER}/readyz")


def kube_controller_manager(layout: Layout, binaries: Path) -> Component:
    """With a client limit far above the default 20 requests a second, which would bound every burst of Jobs."""
    pki = layout.pki
    kubeconfig = layout.config / "kube-controller-manager.kubeconfig"
    options = flags(
        kubeconfig=kubeconfig,
        authentication_kubeconfig=kubeconfig,
        authorization_kubeconfig=kubeconfig,
        bind_address="127.0.0.1",
        leader_elect="false",
        use_service_account_credentials="true",
        service_account_private_key_file=pki / "service-account.key",
        root_ca_file=pki / "ca.crt",
        cluster_signing_cert_file=pki / "ca.crt",
        cluster_signing_key_file=pki / "ca.key",
        requestheader_client_ca_file=pki / "ca.crt",
        allocate_node_cidrs="true",
        cluster_cidr=POD_CIDR,
        service_cluster_ip_range=SERVICE_CIDR,
        kube_api_qps=1000,
        kube_api_burst=2000,
        concurrent_job_syncs=20,
        flex_volume_plugin_dir=layout.state / "volume-plugins",
    )
    argv = (str(binaries / "kube-controller-manager"), *options)
    return Component("kube-controller-manager", argv, ready="https://127.0.0.1:10257/healthz")


def kube_scheduler(layout: Layout, binaries: Path) -> Component:
    """The scheduler."""
    kubeconfig = layout.config / "kube-scheduler.kubeconfig"
    options = flags(
        kubeconfig=kubeconfig,
        authentication_kubeconfig=kubeconfig,
        authorization_kubeconfig=kubeconfig,
        bind_address="127.0.0.1",
        leader_elect="false",
        kube_api_qps=500,
        kube_api_burst=1000,
    )
    return Component(
        "kube-scheduler", (str(binaries / "kube-scheduler"), *options), ready="https://127.0.0.1:10259/healthz"
    )


def kubelet(layout: Layout, binaries: Path) -> Component:
    """The kubelet of the only node."""
    file = layout.config / "kubelet.json"
    options = flags(
        config=file,
        kubeconfig=layout.config / "kubelet.kubeconfig",
        root_dir=layout.kubelet,
        cert_dir=layout.state / "kubelet-pki",
        hostname_override=NODE,
        node_ip=NODE_IP,
    )
    return Component(
        "kubelet",
        (str(binaries / "kubelet"), *options),
        files=((file, configuration.kubelet(layout)),),
        ready="http://127.0.0.1:10248/healthz",
    )


def kube_proxy(layout: Layout, binaries: Path) -> Component:
    """Services."""
    file = layout.config / "kube-proxy.json"
    return Component(
        "kube-proxy",
        (str(binaries / "kube-proxy"), f"--config={file}"),
        files=((file, configuration.kube_proxy(layout)),),
        ready="http://127.0.0.1:10256/healthz",
    )


def coredns(layout: Layout, binaries: Path) -> Component:
    """Names, from a process on the machine instead of a Deployment: one thing less that needs an image."""
    file = layout.config / "Corefile"
    return Component(
        "coredns",
        (str(binaries / "coredns"), "-conf", str(file)),
        files=((file, configuration.coredns(layout)),),
        ready="http://127.0.0.1:8181/ready",
    )


def local_path_provisioner(layout: Layout, binaries: Path) -> Component:
    """Dynamic volumes; kube-controller-manager's hostpath provisioner ignores fsGroup: useless for non-root pods."""
    file = layout.config / "local-path.json"
    helper_pod = layout.config / "local-path-helper-pod.json"
    options = flags(
        config=file,
        kubeconfig=layout.admin_kubeconfig,
        namespace=STORAGE_NAMESPACE,
        helper_image=BUSYBOX_IMAGE,
        helper_pod_file=helper_pod,
        service_account_name="default",
    )
    return Component(
        "local-path-provisioner",
        (str(binaries / "local-path-provisioner"), "start", *options),
        files=(
            (file, configuration.local_path(layout)),
            (helper_pod, configuration.local_path_helper_pod()),
        ),
    )
