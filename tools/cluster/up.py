"""`make cluster`: a healthy cluster of the wanted configuration, from whatever is there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools import binaries, packages, paths
from tools.cluster import certificates, containers, down, network, objects, processes
from tools.cluster.components import Component, stages
from tools.cluster.settings import Layout, layout
from tools.console import StepError, say


@dataclass(frozen=True)
class Cluster:
    """Everything needed to start, ask and repair the cluster."""

    layout: Layout
    stages: tuple[tuple[Component, ...], ...]
    kubectl: objects.Kubectl

    @property
    def components(self) -> list[Component]:
        """All components in their starting order."""
        return [component for stage in self.stages for component in stage]


def wanted() -> Cluster:
    """The cluster that this checkout describes; builds its programs when they are not cached."""
    folders = binaries.ensure(*binaries.FOR_CLUSTER)
    where = layout()
    return Cluster(where, stages(where, folders), objects.Kubectl(where, folders["kubernetes"]))


def up() -> None:
    """Make the cluster healthy with the mildest means that work, and leave this clone a kubeconfig."""
    if os.geteuid() != 0:
        raise StepError("the local cluster needs root; or use CLUSTER=current with a cluster of your own")
    processes.refuse_foreign(layout())
    packages.ensure(packages.CLUSTER)
    cluster = wanted()
    with paths.exclusive("cluster"):
        if not is_healthy(cluster):
            repair(cluster)
    write_access(cluster)


def is_healthy(cluster: Cluster) -> bool:
    """Whether every process runs as wanted and is ready, and the node takes pods with GPUs."""
    if not cluster.layout.admin_kubeconfig.exists():
        return False
    found = processes.running(cluster.layout)
    if not all(
        processes.is_current(component, found) and processes.is_ready(component) for component in cluster.components
    ):
        return False
    node = objects.node(cluster.kubectl)
    return objects.is_ready(node) and objects.has_gpus(node)


def repair(cluster: Cluster) -> None:
    """Start what is missing; if that fails, restart everything; if that fails, begin with empty data."""
    started = time.monotonic()
    try:
        start(cluster)
    except StepError as first:
        say(f"starting what was missing did not work: {str(first).splitlines()[0]}; restarting everything")
        down.stop_everything(cluster.layout)
        try:
            start(cluster)
        except StepError as second:
            say(f"restarting did not work: {str(second).splitlines()[0]}; beginning with empty data")
            down.remove_everything(cluster.layout, with_images=str(second).startswith("containerd"))
            start(cluster)
    say(f"cluster ready after {time.monotonic() - started:.1f} s")


def start(cluster: Cluster) -> None:
    """Start every component that does not run as wanted, stage by stage, and wait until the node takes pods."""
    certificates.ensure(cluster.layout.pki)
    write_kubeconfigs(cluster.layout)
    network.up(cluster.layout)
    for stage in cluster.stages:
        start_stage(cluster.layout, stage)
        if any(component.name == "containerd" for component in stage):
            containers.load_tiny_images(cluster.layout)
        if any(component.name == "kube-apiserver" for component in stage):
            objects.apply(cluster.kubectl)
    say("  waiting for the node")
    objects.ensure_node(cluster.kubectl)
    objects.ensure_service_account(cluster.kubectl)


def start_stage(layout: Layout, stage: Iterable[Component]) -> None:
    """Start what of this stage does not run as wanted, all at once, then wait for each."""
    found = processes.running(layout)
    waiting = []
    for component in stage:
        if processes.is_current(component, found) and processes.is_ready(component):
            continue
        processes.stop(process.pid for process in processes.of_component(component, found))
        say(f"  starting {component.name}")
        waiting.append((component, processes.start(layout, component)))
    for component, exit_status in waiting:
        processes.wait_ready(layout, component, exit_status)


def write_kubeconfigs(layout: Layout) -> None:
    """Credentials of every client that reads them from a file."""
    layout.config.mkdir(parents=True, exist_ok=True, mode=0o700)
    for client in ("admin", "kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy"):
        (layout.config / f"{client}.kubeconfig").write_text(certificates.kubeconfig(layout.pki, client))


def write_access(cluster: Cluster) -> None:
    """Give this clone its kubeconfig, and kubectl and helm in `.local/bin`."""
    paths.LOCAL.mkdir(exist_ok=True)
    content = cluster.layout.admin_kubeconfig.read_text()
    if not paths.KUBECONFIG.exists() or paths.KUBECONFIG.read_text() != content:
        paths.KUBECONFIG.touch(mode=0o600)
        paths.KUBECONFIG.write_text(content)
    for module, program in (("kubernetes", "kubectl"), ("helm", "helm")):
        link(paths.LOCAL / "bin" / program, binaries.folder_of(module) / program)


def link(name: Path, target: Path) -> None:
    """Make `name` a symbolic link to `target`, replacing an older one."""
    name.parent.mkdir(parents=True, exist_ok=True)
    if name.is_symlink() and name.readlink() == target:
        return
    name.unlink(missing_ok=True)
    name.symlink_to(target)
