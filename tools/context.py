"""CLUSTER=current: everything after the cluster step runs on the cluster of the current kubeconfig context.

`python3 -m tools.context` asks whether that is meant, and gives this clone its kubeconfig.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

from tools import binaries
from tools.console import StepError, exit_on_failure, output_of, say
from tools.paths import KUBECONFIG, LOCAL


def is_current() -> bool:
    """Whether the user asked for the current kubeconfig context instead of the local cluster."""
    return os.environ.get("CLUSTER") == "current"


def kubectl() -> str:
    """The machine's kubectl, else the one built for the local cluster."""
    return shutil.which("kubectl") or str(binaries.ensure("kubernetes")["kubernetes"] / "kubectl")


def confirm(context: str, server: str) -> None:
    """Ask before somebody's cluster is changed; YES=1 answers. Raises `StepError` without a yes."""
    say(f"CLUSTER=current: CRDs, a chart and test namespaces go to context {context!r} at {server}")
    if os.environ.get("YES") == "1":
        return
    if not sys.stdin.isatty() or input("continue? [y/N] ").strip().lower() not in ("y", "yes"):
        raise StepError("not confirmed; answer y, or set YES=1")


def main() -> None:
    """Confirm, then write `.local/kubeconfig` with the current context alone."""
    document = output_of([kubectl(), "config", "view", "--minify", "--flatten", "--raw", "--output=json"])
    config = json.loads(document)
    clusters = config.get("clusters") or []
    if not clusters:
        raise StepError("there is no current kubeconfig context: `kubectl config use-context NAME` first")
    confirm(config["current-context"], clusters[0]["cluster"]["server"])
    LOCAL.mkdir(exist_ok=True)
    KUBECONFIG.touch(mode=0o600)
    KUBECONFIG.write_text(document)


if __name__ == "__main__":
    exit_on_failure(main)
