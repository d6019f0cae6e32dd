"""`python -m finetune_trainer merge`: the whole model of an adapter on a base, for a ModelDeployment to serve.

    python -m finetune_trainer merge --plan plan.json --store /store --termination-log /tmp/result.json

Made once for each base and adapter, and found again by their digests; a MergedModel export of the adapter's job on the
same base is taken as it is. The ExportResult goes into the termination log.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from finetune_contract.base import StoredReference
from finetune_contract.exporting import ExportResult, ExportSettings, ExportType, MergePlan
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import Manifest, StoredKind
from finetune_store.opening import open_store
from finetune_store.store import Store
from finetune_trainer.command import options, run_plan

log = logging.getLogger(__name__)

PATH = "spec.adapterMode"


def main(argv: Sequence[str]) -> int:
    """Merge once; answers the exit code."""
    parser = options("merge", __doc__, MergePlan)
    return run_plan(parser, argv, MergePlan, merge, lambda failure: ExportResult(failure=failure))


def merge(plan: MergePlan, root: Path) -> ExportResult:
    """Find the merged model, or make it.

    Raises:
        FineTuneError: ExportFailed when the merged model answers otherwise than base and adapter, or the base is
            quantised; any of the reasons that inputs cannot be read for.
    """
    log.info("merging %s into %s", plan.artifact.digest, plan.base.digest)
    store = open_store(plan, root)
    store.register(plan.namespace)
    exported = ExportSettings(type=ExportType.MERGED_MODEL).key_for(plan.artifact.digest)
    for key in (plan.key, exported):
        if found := _found(store, key, plan.base):
            return found
    base, adapter = store.verify(plan.base), store.verify(plan.artifact)
    _must_be_plain(base)
    from finetune_trainer.export.merged import write_merged

    with store.workspace(StoredKind.EXPORT) as work:
        difference = write_merged(base, adapter, work, PATH)
        lineage = {"artifact": plan.artifact.digest, "base": plan.base.digest}
        reference = store.publish(StoredKind.EXPORT, work, lineage)
    store.point(plan.key, reference.digest)
    return _result(reference, store.check(reference)).model_copy(update={"difference": difference.merged})


def _found(store: Store, key: str, base: StoredReference) -> ExportResult | None:
    """What was made under a key, if it is there, whole, and of this base."""
    digest = store.pointer(key)
    if digest is None:
        return None
    reference = store.reference(StoredKind.EXPORT, digest)
    try:
        manifest = store.check(reference)
    except FineTuneError as error:
        log.info("it was merged before, and is to be merged again: %s", error)
        return None
    if manifest.lineage.get("base") != base.digest:
        return None
    log.info("it was merged before: %s", reference.uri)
    return _result(reference, manifest).model_copy(update={"reused": True})


def _must_be_plain(base: Path) -> None:
    if json.loads((base / "config.json").read_bytes()).get("quantization_config"):
        raise FineTuneError(
            FailureReason.EXPORT_FAILED,
            f"{PATH}: the base model's weights are quantised, and an adapter is merged into 16-bit weights only; "
            "use adapterMode: Static, or the model that was quantised as spec.baseModel",
        )


def _result(reference: StoredReference, manifest: Manifest) -> ExportResult:
    size = sum(entry.size for entry in manifest.files)
    return ExportResult(digest=reference.digest, uri=reference.uri, bytes=size)
