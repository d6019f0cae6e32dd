"""The operator's settings, from environment variables that the chart sets."""

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from finetune_contract.storage import S3_URI

PREFIX = "FINETUNE_"


class AcceleratorKind(BaseModel):
    """A kind of accelerator that the cluster has."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )

    name: str = Field(min_length=1, max_length=64)
    resource: str = "nvidia.com/gpu"
    """The extended resource that jobs ask for."""
    node_selector: dict[str, str] = {}
    """Only of jobs whose spec.scheduling.nodeSelector has these labels, such as a GPU's product."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Of one device; None: preflights do not compare with it."""
    teraflops: float | None = Field(default=None, gt=0)
    """What training reaches on one device (its peak times the MFU that earlier jobs reported); None: no hours."""
    price_per_hour: float | None = Field(default=None, ge=0)
    """Of one device; None: not known."""

    def is_for(self, resource: str, node_selector: Mapping[str, str]) -> bool:
        """Whether pods that ask for the resource and select such nodes run on this kind only."""
        return self.resource == resource and self.node_selector.items() <= node_selector.items()


class Settings(BaseModel):
    """Every field is the environment variable FINETUNE_<FIELD IN CAPITALS>."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    operator_image: str = "finetune-operator"
    """Image of stage Jobs and of the prober."""
    trainer_image: str = "finetune-trainer"
    """Image of dataset and training Jobs and of the Transformers engine."""
    vllm_image: str = "vllm/vllm-openai:v0.33.0"
    """Image of the VLLM engine."""
    tgi_image: str = "ghcr.io/huggingface/text-generation-inference:3.3.7"
    """Image of the TGI engine."""
    image_pull_policy: str = "IfNotPresent"

    claim_name: str = "finetune-artifacts"
    """The claim of each namespace that holds datasets, models, checkpoints and artifacts."""
    claim_storage_class: str | None = None
    """None: the cluster's default."""
    claim_access_mode: str = "ReadWriteMany"
    claim_size: str = "100Gi"
    s3_uri: str | None = None
    """`s3://bucket/prefix` of the store, in which `{namespace}` stands for the namespace's name. None: a claim."""
    s3_endpoint: str | None = None
    """Address of an S3-compatible server. None: AWS."""
    s3_region: str | None = None
    s3_secret: str | None = None
    """The Secret of each namespace with the keys. None: the identity of the pods' ServiceAccount."""
    store_label: str = ""
    """Tells pods whose object says where its store is from those of the default one; set per object."""
    retention_minimum_age_seconds: float | None = Field(default=None, gt=0)
    """What nothing has referred to for this long is deleted from the store. None: nothing is ever deleted."""
    collection_interval_seconds: float = Field(default=86400.0, gt=0)
    """How often a store is looked at for what to delete; at most half of the minimum age."""

    accelerators: tuple[AcceleratorKind, ...] = Field(default=(), max_length=32)
    """What there is, as JSON: memory for preflights, prices for costs. The first counts that fits and tells it."""
    currency: str = Field(default="", max_length=16)
    """Of the prices, such as EUR."""
    api_price_per_million_tokens: float | None = Field(default=None, ge=0)
    """What a million generated tokens of a hosted model cost that a tuned one would replace."""

    namespaces: tuple[str, ...] = ()
    """Namespaces to watch; none: all."""
    pod_namespace: str = "finetune-system"
    """Where the Lease is."""
    pod_name: str = "finetune-operator"
    """This replica's identity in the Lease."""
    workers: int = Field(default=16, ge=1, le=64)

    resync_seconds: float = 600.0
    """How often everything is listed to find deletions that no watch reported."""
    progress_poll_seconds: float = 5.0
    progress_write_seconds: float = 15.0
    """Progress is written to a job's status at most this often."""
    progress_per_second: float = 5.0
    """Jobs that are looked at per second because of progress alone."""
    queue_poll_seconds: float = 3.0
    """How often Kueue is asked about jobs that wait in its queues."""
    retry_seconds: float = 10.0
    """Pause after an attempt that failed; doubled with each further failure of the run, up to five minutes."""
    relist_seconds: float = 3.0
    """Pause between a watch's new list and the sweep after it, so that one sweep serves all kinds."""
    watch_lag_seconds: float = 5.0
    """How long the watches get to deliver what a sweep found missing, before it is read."""
    watch_idle_seconds: float = 70.0
    """A watch that says nothing for so long, not even a bookmark, is opened anew; bookmarks come every minute."""
    request_seconds: float = 30.0
    """Time-out of a request to the API server."""
    outage_retry_seconds: float = 30.0
    """Longest back-off while the API server is away."""
    refusal_retry_seconds: float = 300.0
    """Longest back-off of what the API server refuses: quota, admission."""
    reference_seconds: float = 3.0
    """How long a ConfigMap or claim that was read for one pass is used for others."""
    lease_duration_seconds: float = 12.0
    """A dead leader is replaced after this and twice `lease_retry_seconds`: within 20 s."""
    lease_renew_seconds: float = 8.0
    lease_retry_seconds: float = 2.0
    health_port: int = 8080
    """Port of /livez, /readyz and /metrics."""
    log_level: str = "INFO"
    log_format: Literal["text", "json"] = "text"

    @model_validator(mode="after")
    def _looks_are_close_enough(self) -> Self:
        age = self.retention_minimum_age_seconds
        if age is not None and 2 * self.collection_interval_seconds > age:
            raise ValueError("collection_interval_seconds must be at most half of retention_minimum_age_seconds")
        return self

    @model_validator(mode="after")
    def _store_is_an_address(self) -> Self:
        if self.s3_uri is not None and not re.fullmatch(S3_URI, self.s3_uri.replace("{namespace}", "team-a")):
            raise ValueError(f"s3_uri: {self.s3_uri} is not an address; use s3://bucket/prefix/{{namespace}}")
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read what is set; empty strings count as unset, lists are separated by commas."""
        values: dict[str, object] = {}
        for name in cls.model_fields:
            text = environment.get(PREFIX + name.upper(), "")
            if text:
                values[name] = _READERS.get(name, str)(text)
        return cls.model_validate(values)


def _json(name: str) -> Callable[[str], object]:
    def read(text: str) -> object:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{PREFIX}{name.upper()}: {text!r} is no JSON: {error}") from error

    return read


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


_READERS: Mapping[str, Callable[[str], object]] = {
    "namespaces": _words,
    "accelerators": _json("accelerators"),
}
"""Of settings that are no plain word or number."""
