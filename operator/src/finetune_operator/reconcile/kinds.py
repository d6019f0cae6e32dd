"""The kinds that the operator reconciles, each with its pure functions."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile import batchinference, dataset, finetunejob, modeldeployment
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import Outcome
from finetune_operator.settings import Settings


@dataclass(frozen=True)
class Kind:
    """One custom resource."""

    kind: str
    plural: str
    references: Callable[[Manifest, Settings], tuple[Reference, ...]]
    """Which other objects of the namespace a pass needs to see."""
    reconcile: Callable[[Manifest, Observed, datetime], Outcome]
    """What is to be done; never raises for what a user wrote."""


KINDS: dict[str, Kind] = {
    "Dataset": Kind("Dataset", "datasets", dataset.references, dataset.reconcile),
    "FineTuneJob": Kind("FineTuneJob", "finetunejobs", finetunejob.references, finetunejob.reconcile),
    "ModelDeployment": Kind(
        "ModelDeployment", "modeldeployments", modeldeployment.references, modeldeployment.reconcile
    ),
    "BatchInference": Kind("BatchInference", "batchinferences", batchinference.references, batchinference.reconcile),
}
