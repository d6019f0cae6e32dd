"""Runs `kubectl finetune` as a person does: a process of its own, in a namespace."""

import os
import subprocess
import sys

from tests.cluster.kube import KUBECONFIG, Kube


def plugin(kube: Kube, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `kubectl finetune`; commands that know no cluster get none."""
    namespace = [] if arguments[0] == "init" else ["-n", kube.namespace]
    command = [sys.executable, "-m", "finetune_cli", *arguments, *namespace]
    environment = {**os.environ, "KUBECONFIG": str(KUBECONFIG)}
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300
    )
