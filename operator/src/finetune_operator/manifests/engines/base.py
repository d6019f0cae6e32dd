"""What every engine module has in common."""

import math
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

from finetune_contract.adapterfacts import AdapterFacts
from finetune_contract.paths import ADAPTERS_MOUNT, POD_PORT, SCRATCH_MOUNT, STORE_MOUNT
from finetune_contract.serving import ServingPlan
from finetune_operator.api.base import seconds_of
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests.naming import Manifest
from finetune_operator.settings import Settings

BASE_ALIASES = ("tgi", "dummy")
"""What clients of Hugging Face send as a model name when they mean the base."""

WRITABLE = {
    "HF_HOME": str(SCRATCH_MOUNT / "huggingface"),
    "XDG_CACHE_HOME": str(SCRATCH_MOUNT / "cache"),
    "TRITON_CACHE_DIR": str(SCRATCH_MOUNT / "triton"),
    "TORCHINDUCTOR_CACHE_DIR": str(SCRATCH_MOUNT / "inductor"),
    "NUMBA_CACHE_DIR": str(SCRATCH_MOUNT / "numba"),
    # The user has no entry in the image's /etc/passwd; torch asks for its name.
    "USER": "finetune",
    "LOGNAME": "finetune",
}
"""For images that expect to run as root with a writable root."""


@dataclass(frozen=True)
class Served:
    """What an engine is told to serve."""

    plan: ServingPlan
    facts: dict[str, AdapterFacts]
    """By the adapter's name."""
    accelerators: int
    """Of each pod."""

    @property
    def base_path(self) -> str:
        """The base model's directory in the pod."""
        store = self.plan.s3.uri if self.plan.s3 else f"pvc://{self.plan.claim}"
        return str(STORE_MOUNT / PurePosixPath(self.plan.base.uri.removeprefix(f"{store}/")))

    @property
    def adapter_paths(self) -> dict[str, str]:
        """Each adapter's directory in the pod, sorted by name so that their order never rolls a pod."""
        found = {each.name: each.artifact.digest.removeprefix("sha256:") for each in self.plan.adapters}
        return {name: str(ADAPTERS_MOUNT / name / digest) for name, digest in sorted(found.items())}

    @property
    def rank(self) -> int:
        """The largest rank of all adapters."""
        return max((facts.rank for facts in self.facts.values()), default=0)


class EngineModule(Protocol):
    """What the module of an engine has."""

    @property
    def QUEUE_METRIC(self) -> str:  # noqa: N802 - a module's constant
        """The gauge of requests that wait, as the engine calls it."""

    def container(
        self, deployment: ModelDeployment, served: Served, settings: Settings, mounts: tuple[Manifest, ...]
    ) -> Manifest:
        """The engine's container; readiness is the prober's business."""

    def refusal(self, facts: AdapterFacts | None) -> str | None:
        """Why the engine cannot serve an adapter, and what to do; None when it can.

        Args:
            facts: None where nothing is known of it: its artifact is from before adapters were described.
        """

    def owned_arguments(self) -> frozenset[str]:
        """Arguments that users cannot set: the operator does, or they would undo what it promises."""


def probes(deployment: ModelDeployment, *, period: int, patience: int) -> dict[str, Any]:
    """Start-up as long as the spec allows; afterwards a tolerant liveness: a restart costs a load of the model.

    Args:
        deployment: Says how long a start may take.
        period: Seconds between looks at an engine that starts.
        patience: Looks in a row, half a minute apart, that a running engine may fail.
    """
    check = {"httpGet": {"path": "/health", "port": POD_PORT}, "timeoutSeconds": 10}
    seconds = seconds_of(deployment.spec.startup_timeout)
    return {
        "startupProbe": {**check, "periodSeconds": period, "failureThreshold": max(1, math.ceil(seconds / period))},
        "livenessProbe": {**check, "periodSeconds": 30, "failureThreshold": patience},
    }


MERGE = "serve it alone with adapterMode: Merged"
"""The remedy where an engine has no place for an adapter, but could serve the whole model."""

NOT_DESCRIBED = (
    "nobody knows whether the engine can serve it: it was made before artifacts were described; name a FineTuneJob "
    "that was run since, or use engine type Transformers"
)
