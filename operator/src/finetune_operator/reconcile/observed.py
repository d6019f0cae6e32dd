"""The facts that a reconcile decides from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from finetune_contract.batching import BatchProgress
from finetune_contract.proof import ProofStatus
from finetune_contract.results import Progress
from finetune_operator.reconcile.admission import Admission
from finetune_operator.reconcile.troubles import NO_REPORTS, Reports
from finetune_operator.settings import Settings


class Reference(NamedTuple):
    """Another object of the same namespace that a resource depends on."""

    kind: str
    """Dataset, FineTuneJob, ConfigMap or PersistentVolumeClaim."""
    name: str


class Traffic(NamedTuple):
    """What a serving pod has counted since it started."""

    requests: int
    errors: int
    """Requests that failed by the server's fault: not those that it refused as wrong or for want of room."""


@dataclass(frozen=True)
class Observed:
    """Everything around a resource, as it was when the pass began."""

    settings: Settings
    children: Mapping[str, tuple[dict[str, Any], ...]] = field(default_factory=dict)
    """Kind -> our children of this resource (slimmed: metadata, status, for Pods spec.nodeName), oldest first.

    Pods that are gone stay among them, marked with `metadata.deletionTimestamp`, while a Job of theirs is there.
    """
    references: Mapping[Reference, dict[str, Any] | None] = field(default_factory=dict)
    """What `references` asked for, and the jobs above a job (see `lineage`); None where there is no such object."""
    progress: Progress | None = None
    """What the newest running training pod said last."""
    batch_progress: BatchProgress | None = None
    """What the newest running batch pod said last."""
    proofs: Mapping[str, ProofStatus] = field(default_factory=dict)
    """Uid of a serving pod that is not ready -> what its prober says of the adapters."""
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    """Uid of a canary pod -> what it has counted."""
    admissions: Mapping[str, Admission] = field(default_factory=dict)
    """Uid of a Job that waits in a queue -> what Kueue says of it."""
    denials: Mapping[str, str] = field(default_factory=dict)
    """Name of an object that the API server refused to create or change -> its words (quota, admission, schema).

    Go on asking for the object in `create` or `apply`: the engine tries again with back-off until it is let in.
    """

    reports: Reports = NO_REPORTS
    """What Events say about children and claims that do not get on and do not say why."""

    def of(self, kind: str) -> tuple[dict[str, Any], ...]:
        """The children of one kind, oldest first."""
        return self.children.get(kind, ())
