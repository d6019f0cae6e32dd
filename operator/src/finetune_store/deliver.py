"""Give a serving pod what it serves: the base verified in the store, each adapter copied to the pod's own disk."""

import logging
import re
import shutil
import tempfile
from pathlib import Path

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import MANIFEST_FILE
from finetune_contract.serving import ServedAdapter, ServingPlan
from finetune_store.files import make_directory, regular_files, remove_tree
from finetune_store.manifests import verify_directory
from finetune_store.store import Store

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def deliver(plan: ServingPlan, store: Store, adapters: Path) -> None:
    """Verify the base and put each adapter into `<adapters>/<name>/<digest hex>/`; what is there already stays.

    Raises:
        FineTuneError: StorageUnavailable or ChecksumMismatch naming the file, InvalidPlan for a name that is no
            directory name.
    """
    log.info("verifying base %s", plan.base.uri)
    store.verify(plan.base)
    for adapter in plan.proven:
        _deliver(adapter, store, adapters)


def _deliver(adapter: ServedAdapter, store: Store, adapters: Path) -> None:
    if not _NAME.fullmatch(adapter.name):
        raise FineTuneError(FailureReason.INVALID_PLAN, f"spec.adapters: {adapter.name!r} is not a model name")
    source = store.verify(adapter.artifact)
    target = adapters / adapter.name / adapter.artifact.digest.removeprefix("sha256:")
    if _is_delivered(target):
        log.info("adapter %s is in place", adapter.name)
        return
    make_directory(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as work:
        copy = Path(work, "copy")
        for file in (*regular_files(source), source / MANIFEST_FILE):
            make_directory((copy / file.relative_to(source)).parent)
            shutil.copyfile(file, copy / file.relative_to(source))
        verify_directory(copy)
        remove_tree(target)
        copy.rename(target)
    log.info("adapter %s is delivered to %s", adapter.name, target)


def _is_delivered(target: Path) -> bool:
    try:
        verify_directory(target)
    except FineTuneError:
        return False
    return True
