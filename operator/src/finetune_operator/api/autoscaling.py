"""How the number of serving pods follows the requests that wait."""

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_operator.api.base import ApiModel, rule, rules


class Keda(ApiModel):
    """A ScaledObject of KEDA in place of a HorizontalPodAutoscaler."""

    prometheus: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^https?://[^\s]+$")]
    """Address of the Prometheus that collects the serving pods' metrics."""


class Autoscaling(ApiModel):
    """More pods while requests wait; never none."""

    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """The least pods."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    """The most pods."""
    queue_depth: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Requests per pod that may wait, on average, before there are more pods."""
    metric: Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[^\s/\"]+$")] | None = None
    """The custom metrics API's (or Prometheus') name for the engine's queue; unset: the engine's own."""
    keda: Keda | None = None
    """Set: KEDA scales; unset: a HorizontalPodAutoscaler, which needs an adapter for custom metrics."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
                "autoscaling.minReplicas: at most maxReplicas",
            )
        )
    )
