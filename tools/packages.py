"""Debian packages that the local cluster and the image builds use; installed only when missing."""

from __future__ import annotations

import os
import shutil
import subprocess

from tools.console import StepError, run_logged, say
from tools.paths import cache, exclusive

CLUSTER = (
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iptables",
    "iproute2",
    "conntrack",
    "busybox-static",
    "openssl",
    "util-linux",
)
IMAGES = ("buildah", "skopeo", "debootstrap", "ca-certificates")


def missing(wanted: tuple[str, ...]) -> list[str]:
    """Those of the wanted packages that dpkg does not know as installed."""
    answer = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    installed = {line.split()[0] for line in answer.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in installed]


def ensure(wanted: tuple[str, ...]) -> None:
    """Install what is missing of the wanted packages. Raises `StepError` where there is no apt or no root."""
    if shutil.which("dpkg-query") is None:
        raise StepError(
            "the local cluster needs a Debian 12 machine; elsewhere use CLUSTER=current with a cluster of your own"
        )
    absent = missing(wanted)
    if not absent:
        return
    if os.geteuid() != 0:
        raise StepError(f"these Debian packages are missing: {' '.join(absent)}; install them, or run as root")
    say(f"installing Debian packages: {' '.join(absent)}")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    logs = cache() / "logs"
    with exclusive("apt"):
        run_logged("apt-get update", ["apt-get", "update"], logs / "apt-update.log", env=env)
        argv = ["apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *absent]
        run_logged("apt-get install", argv, logs / "apt-install.log", env=env)
