"""Bring a base model into the store once; say which run this is and whether it has succeeded before."""

import hashlib
import logging
from pathlib import Path

from finetune_contract.adapterfacts import AdapterFacts
from finetune_contract.base import StoredReference
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_contract.results import StageResult
from finetune_contract.run import run_key
from finetune_contract.staging import BaseSource, StagePlan
from finetune_store.adapterfiles import facts_of
from finetune_store.manifests import read_manifest
from finetune_store.progress import progress
from finetune_store.resolve import cut_to_fit
from finetune_store.sources import Listing, Source
from finetune_store.sources.base import must_be_a_model, must_have_every_shard
from finetune_store.sources.hub import HubSource
from finetune_store.sources.s3 import S3Source
from finetune_store.sources.volume import VolumeSource
from finetune_store.store import Store

log = logging.getLogger(__name__)


def stage(plan: StagePlan, store: Store, source_mount: Path, scratch: Path) -> StageResult:
    """Stage the plan's base model and look its run up.

    Raises:
        FineTuneError: Named after what the source or the store lacks.
    """
    store.register(plan.namespace)
    result = _staged(plan.source, store, source_mount, scratch)
    base = result.base
    assert base is not None, "all else is an error"
    if plan.adapters:
        facts = tuple(_described(adapter, store, base) for adapter in plan.adapters)
        result = result.model_copy(update={"adapters": facts})
    if plan.run is None:
        return result
    for reference in plan.run.inputs.values():
        log.info("verifying %s", reference.uri)
        store.check(reference)
    key = run_key(plan.run.train_fields, plan.run.dataset, base.digest, plan.run.inputs)
    outcome = store.outcome(key)
    log.info("run %s %s", key[:12], "has succeeded before" if outcome else "is new")
    return cut_to_fit(result.model_copy(update={"run_key": key, "outcome": outcome}))


def _described(adapter: StoredReference, store: Store, base: StoredReference) -> AdapterFacts:
    """What engines must know of an adapter that somebody has put into the store."""
    path = f"spec.adapters: {adapter.uri}"
    log.info("reading %s", adapter.uri)
    directory = store.verify(adapter)
    trained_from = read_manifest(directory).lineage.get("base", base.digest)
    if trained_from != base.digest:
        raise FineTuneError(
            FailureReason.INVALID_PLAN,
            f"{path} was trained from {trained_from}, but spec.baseModel is {base.digest}; name the model that it was "
            "trained from",
        )
    try:
        return facts_of(directory, store.without_weights(base))
    except OSError as error:
        raise FineTuneError(FailureReason.INVALID_PLAN, f"{path} is no adapter: {error.filename} is missing") from error


def _staged(source: BaseSource, store: Store, source_mount: Path, scratch: Path) -> StageResult:
    if source.stored is not None:
        _must_be_a_stored_model(store, source.stored)
        return StageResult(base=source.stored)
    opened = _open(source, source_mount, scratch)
    listing = opened.listing()
    must_be_a_model(listing.files, opened)
    base = _from_pointer(store, opened, listing) or _fetched(store, opened, listing)
    return StageResult(base=base, revision=listing.revision if source.hub else None)


def _open(source: BaseSource, source_mount: Path, scratch: Path) -> Source:
    if source.hub is not None:
        return HubSource(source.hub, scratch)
    if source.s3 is not None:
        return S3Source(source.s3)
    assert source.volume is not None
    return VolumeSource(source.volume, source_mount)


def _must_be_a_stored_model(store: Store, ref: StoredReference) -> None:
    log.info("verifying %s", ref.uri)
    if "config.json" not in {entry.path for entry in store.check(ref).files}:
        raise FineTuneError(
            FailureReason.MODEL_NOT_FOUND,
            f"spec.baseModel.fineTuneJob: {ref.uri} is not a whole model; name a job that makes one (no adapter)",
        )


def _fetched(store: Store, source: Source, listing: Listing) -> StoredReference:
    log.info("fetching %s at %s: %d files", source.address, listing.revision, len(listing.files))
    with store.workspace(StoredKind.MODEL) as work:
        with progress("fetched", work, sum(listing.files.values())):
            source.fetch(listing, work)
        must_have_every_shard(work, source)
        stated = {"license": listing.license} if listing.license else {}
        lineage = {"source": source.address, "revision": listing.revision, **stated}
        base = store.publish(StoredKind.MODEL, work, lineage)
    store.point(_name_of(source, listing), base.digest)
    return base


def _from_pointer(store: Store, source: Source, listing: Listing) -> StoredReference | None:
    """The content that this revision was staged as, if it is still there and whole."""
    digest = store.pointer(_name_of(source, listing))
    if digest is None:
        return None
    base = store.reference(StoredKind.MODEL, digest)
    if not store.holds(base):
        return None
    log.info("%s at %s is in the store already", source.address, listing.revision)
    return base


def _name_of(source: Source, listing: Listing) -> str:
    return hashlib.sha256(f"{source.address}\n{listing.revision}".encode()).hexdigest()
