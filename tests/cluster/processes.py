"""Processes of the local cluster's pods, as the machine sees them: from within its container, none ends its first."""

import os
import signal
from pathlib import Path

from finetune_contract.paths import ENV_POD_UID
from tests.cluster.kube import Object
from tools.cluster.processes import parse_environment, process_ids


def kill(pod: Object, module: str) -> None:
    """`kill -9` of the one process of a pod that runs this module."""
    uid = pod["metadata"]["uid"]
    (found,) = [pid for pid in process_ids() if _runs(pid, uid, module)]
    os.kill(found, signal.SIGKILL)


def _runs(pid: int, uid: str, module: str) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if module.encode() not in command:
            return False
        return parse_environment(Path(f"/proc/{pid}/environ").read_bytes()).get(ENV_POD_UID) == uid
    except OSError:  # it has ended meanwhile
        return False
