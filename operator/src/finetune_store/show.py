"""Print a file of the store into a pod's log, for somebody who cannot mount the volume."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

from finetune_contract.failure import FineTuneError, policy_of
from finetune_contract.paths import FILE_BEGIN, FILE_END
from finetune_contract.storage import StorePlan
from finetune_store.edge import failure_of
from finetune_store.opening import open_store


def show(plan: Path, root: Path, path: str) -> int:
    """Print a file between FILE_BEGIN and FILE_END; answers the exit code.

    Args:
        plan: Any pod's plan: it says where the store is.
        root: Where its claim is mounted.
        path: Of the file, in the store.
    """
    try:
        found = open_store(_store_of(json.loads(plan.read_bytes())), root).read(path)
    except (FineTuneError, OSError, ValueError) as error:
        failure = failure_of(error)
        sys.stderr.write(f"{failure.reason}: {failure.message}\n")
        return policy_of(failure.reason).exit_code or 1
    if found is None:
        sys.stderr.write(f"{path}: there is no such file in the store\n")
        return 1
    sys.stdout.write(f"{FILE_BEGIN}\n{base64.encodebytes(found).decode()}{FILE_END}\n")
    return 0


def _store_of(plan: dict[str, Any]) -> StorePlan:
    """The part of a plan that says where the store is; that of an evaluation holds it one level deeper."""
    training = plan.get("training")
    inner = training if isinstance(training, dict) else plan
    return StorePlan.model_validate({name: inner[name] for name in ("claim", "s3") if inner.get(name)})
