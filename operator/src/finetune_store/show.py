"""Print a file of the store, for `kubectl finetune report`: packed, between marks, so that a log keeps it whole."""

import base64
import gzip
import json
import sys
from pathlib import Path

from finetune_contract.base import StoredReference
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import SHOWN_BEGIN, SHOWN_END
from finetune_contract.storage import StorePlan
from finetune_store.opening import open_store
from finetune_store.store import Store

LARGEST = 32 * 1024 * 1024
"""Bytes of a file; a kubelet keeps 10 MiB of a log unless told otherwise, and reports pack to a tenth."""

_LINE = 1024


def show(ref: StoredReference, name: str, plan: Path, root: Path) -> None:
    """Print one file of a stored directory.

    Args:
        ref: The directory.
        name: Its file.
        plan: Any plan of a pod that uses the same store.
        root: Where the store's claim is mounted, or an empty directory.

    Raises:
        FineTuneError: InvalidPlan for a file that is not there or too large.
    """
    directory = _store_of(plan, root).verify(ref)
    path = directory / name
    if name not in {file.name for file in directory.iterdir()}:
        found = ", ".join(sorted(file.name for file in directory.iterdir()))
        raise FineTuneError(FailureReason.INVALID_PLAN, f"--file: there is no {name!r}; there are {found}")
    if path.stat().st_size > LARGEST:
        raise FineTuneError(FailureReason.INVALID_PLAN, f"--file: {name} is larger than {LARGEST // 2**20} MiB")
    _print(path.read_bytes())


def show_of_run(run_key: str, name: str, plan: Path, root: Path) -> None:
    """Print one file of a run's directory.

    Args:
        run_key: The run.
        name: The file, by its path in the run's directory.
        plan: Any plan of a pod that uses the same store.
        root: Where the store's claim is mounted, or an empty directory.

    Raises:
        FineTuneError: InvalidPlan for a file that is not there.
    """
    found = _store_of(plan, root).recorded(run_key, name)
    if found is None:
        raise FineTuneError(FailureReason.INVALID_PLAN, f"--file: there is no {name!r} in run {run_key[:12]}")
    _print(found.encode())


def _store_of(plan: Path, root: Path) -> Store:
    document = json.loads(plan.read_bytes())
    document = document.get("training", document)  # the plan of an evaluation has that of the training in it
    where = StorePlan.model_validate({key: document[key] for key in ("claim", "s3") if key in document})
    return open_store(where, root)


def _print(content: bytes) -> None:
    text = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    lines = (text[start : start + _LINE] for start in range(0, len(text), _LINE))
    sys.stdout.write("\n".join((SHOWN_BEGIN, *lines, SHOWN_END)) + "\n")
    sys.stdout.flush()
