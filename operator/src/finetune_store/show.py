"""Print a file of the store, for `kubectl finetune report`: packed, between marks, so that a log keeps it whole."""

import base64
import gzip
import sys
from pathlib import Path

from finetune_contract.base import StoredReference
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import SHOWN_BEGIN, SHOWN_END
from finetune_store.store import Store

LARGEST = 32 * 1024 * 1024
"""Bytes of a file; a kubelet keeps 10 MiB of a log unless told otherwise, and reports pack to a tenth."""

_LINE = 1024


def show(ref: StoredReference, name: str, root: Path) -> None:
    """Print one file of a stored directory.

    Raises:
        FineTuneError: InvalidPlan for a file that is not there or too large.
    """
    claim = ref.uri.removeprefix("pvc://").partition("/")[0]
    directory = Store(root, claim).verify(ref)
    path = directory / name
    if name not in {file.name for file in directory.iterdir()}:
        found = ", ".join(sorted(file.name for file in directory.iterdir()))
        raise FineTuneError(FailureReason.INVALID_PLAN, f"--file: there is no {name!r}; there are {found}")
    if path.stat().st_size > LARGEST:
        raise FineTuneError(FailureReason.INVALID_PLAN, f"--file: {name} is larger than {LARGEST // 2**20} MiB")
    _print(path.read_bytes())


def show_of_run(uri: str, run_key: str, name: str, root: Path) -> None:
    """Print one file of a run's directory.

    Args:
        uri: Of anything in the same store.
        run_key: The run.
        name: The file, by its path in the run's directory.
        root: Where the store is mounted.

    Raises:
        FineTuneError: InvalidPlan for a file that is not there.
    """
    if not uri.startswith("pvc://"):
        raise FineTuneError(
            FailureReason.INVALID_PLAN, f"--uri: {uri} is not on a claim; read runs/{run_key}/{name} there"
        )
    found = Store(root, uri.removeprefix("pvc://").partition("/")[0]).recorded(run_key, name)
    if found is None:
        raise FineTuneError(FailureReason.INVALID_PLAN, f"--file: there is no {name!r} in run {run_key[:12]}")
    _print(found.encode())


def _print(content: bytes) -> None:
    text = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    lines = (text[start : start + _LINE] for start in range(0, len(text), _LINE))
    sys.stdout.write("\n".join((SHOWN_BEGIN, *lines, SHOWN_END)) + "\n")
    sys.stdout.flush()
