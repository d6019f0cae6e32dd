"""Debian packages that the local cluster, the image builds and the tests use; fetched only when missing.

`python3 -m tools.packages [PACKAGE...]` unpacks those that are only looked into (all by default), and prints where.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.console import StepError, exit_on_failure, run_logged, say
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
UNPACKED = ("prometheus",)
"""Not installed, as that would start a server: its programs (prometheus, promtool) are used by tests alone."""
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


def unpacked_folder(package: str) -> Path:
    """Where an unpacked package is or will be; its programs are in `usr/bin`."""
    return cache() / "debian" / package


def unpack(package: str) -> Path:
    """Download a package and unpack it beside the system, without those it depends on. Raises `StepError`."""
    folder = unpacked_folder(package)
    log = cache() / "logs" / f"{package}.log"
    with exclusive("apt"):
        if folder.exists():
            return folder
        if shutil.which("apt-get") is None:
            raise StepError(f"{package} is unpacked from Debian's package, and there is no apt-get here")
        partial = folder.with_name(package + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        argv = ["apt-get", "download", package]
        try:
            run_logged(f"downloading {package}", argv, log, cwd=partial)
        except StepError:
            # A machine whose lists are missing or old.
            run_logged("apt-get update", ["apt-get", "update"], cache() / "logs" / "apt-update.log")
            run_logged(f"downloading {package}", argv, log, cwd=partial)
        (archive,) = partial.glob("*.deb")
        run_logged(f"unpacking {package}", ["dpkg-deb", "--extract", str(archive), str(partial)], log)
        archive.unlink()
        partial.rename(folder)
    return folder


def main() -> None:
    """Unpack the packages named on the command line, or all."""
    for package in sys.argv[1:] or UNPACKED:
        say(f"{package}\t{unpack(package)}")


if __name__ == "__main__":
    exit_on_failure(main)
