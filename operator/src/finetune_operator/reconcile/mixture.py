"""The Datasets that a mixture is made of."""

from typing import Any

from finetune_contract.base import StoredReference
from finetune_contract.datasets import MixturePart, Teacher
from finetune_operator.api.dataset import Dataset
from finetune_operator.reconcile.lineage import circle
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.resources import ready_message
from finetune_operator.reconcile.storage import in_another_store

PATH = "spec.source.mixture"


def circle_of(dataset: Dataset, observed: Observed) -> str | None:
    """Says that mixtures are parts of each other, where they are."""
    for number, part in enumerate(dataset.spec.source.mixture or ()):
        around = circle(dataset.metadata.name, part.dataset, observed.references, "Dataset")
        if around:
            return (
                f"{PATH}[{number}].dataset: each is a part of the one before: {' -> '.join(around)}; leave one of them "
                "out"
            )
    return None


def parts_of(dataset: Dataset, observed: Observed) -> tuple[MixturePart, ...] | tuple[str, str]:
    """The revisions that the parts have now, or why one has none: a reason and a message."""
    found = []
    for number, part in enumerate(dataset.spec.source.mixture or ()):
        raw = observed.references.get(Reference("Dataset", part.dataset))
        if raw is None:
            where = f"there is no Dataset {part.dataset!r} in namespace {dataset.metadata.namespace}"
            return "DatasetNotFound", f"{PATH}[{number}].dataset: {where}; create it, or name another"
        revision = (raw.get("status") or {}).get("revision")
        if revision is None:
            message = f"{PATH}[{number}].dataset: Dataset {part.dataset!r} has no revision yet: {ready_message(raw)}"
            return "DatasetNotReady", message
        reference = StoredReference(digest=revision["digest"], uri=revision["uri"])
        found.append(
            MixturePart(
                name=part.dataset,
                revision=reference,
                weight=part.weight,
                license=revision.get("license"),
                **_terms(revision, (raw.get("spec") or {}).get("license") or {}),
            )
        )
    things = {f"revision of Dataset {part.name!r}": part.revision for part in found}
    elsewhere = in_another_store(observed.settings, things)
    return ("StorageMismatch", elsewhere) if elsewhere else tuple(found)


def _terms(revision: dict[str, Any], license_: dict[str, Any]) -> dict[str, Any]:
    """What a part says of its rows, beside the licence; a mixture's revision knows what it has inherited, too."""
    said = revision if revision.get("parts") else license_
    teachers = said.get("teachers") or ([license_["teacher"]] if license_.get("teacher") else [])
    return {
        "attribution": said.get("attribution"),
        "teachers": tuple(Teacher(model=teacher["model"], terms=teacher.get("terms")) for teacher in teachers),
    }
