"""What every engine module has in common."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

from finetune_contract.adapterfacts import AdapterFacts, AdapterFeature
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

LINGER_SECONDS = 10
"""How long an engine that is told to end still takes new requests: kube-proxy, Gateways and load balancers learn of it
later than the pod, and send clients to it meanwhile. Longer than idle connections are kept (5 s in uvicorn)."""

LINGER: dict[str, Any] = {"lifecycle": {"preStop": {"sleep": {"seconds": LINGER_SECONDS}}}}
"""For engines that close their socket at SIGTERM; it counts towards the pod's grace period."""


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

_MERGED_ONLY = frozenset({AdapterFeature.DORA, AdapterFeature.BIAS, AdapterFeature.WHOLE_MODULES})
"""What no engine serves beside a base."""


def instead(features: Iterable[AdapterFeature], *engines: str) -> str:
    """What to do with an adapter that an engine refuses for its features.

    Args:
        features: All of the adapter's.
        engines: Types that take what only this engine refuses.
    """
    if _MERGED_ONLY.intersection(features):
        return f"{MERGE}, or train a plain LoRA"
    return f"{MERGE}, use engine type {' or '.join(engines)}, or train a plain LoRA"


NOT_DESCRIBED = (
    "nobody knows whether the engine can serve it: it was made before artifacts were described; name a FineTuneJob "
    "that was run since, or use engine type Transformers"
)
