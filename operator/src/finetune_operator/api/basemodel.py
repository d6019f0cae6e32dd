"""Where a base model comes from; shared by FineTuneJob and ModelDeployment."""

from typing import Annotated

from pydantic import ConfigDict, StringConstraints

from finetune_operator.api.base import (
    ApiModel,
    NameReference,
    SecretKeyReference,
    VolumePath,
    exactly_one_of,
    rules,
)


class HuggingFaceModel(ApiModel):
    """A model of the Hugging Face Hub."""

    repo: Annotated[
        str, StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?$")
    ]
    """The repository, such as `meta-llama/Llama-3.1-8B-Instruct`."""
    revision: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "main"
    """A branch, tag or commit; resolved to a commit once per run."""
    token_secret_ref: SecretKeyReference | None = None
    """The Secret key that holds a Hub token, for gated or private models."""


class S3Credentials(ApiModel):
    """A Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    """The Secret's name; its keys become environment variables of the stage pod."""


class S3Model(ApiModel):
    """A model under an S3 prefix."""

    uri: Annotated[str, StringConstraints(max_length=1024, pattern=r"^s3://[a-z0-9][a-z0-9.-]+(/.*)?$")]
    """`s3://bucket/prefix`, the directory that holds config.json."""
    endpoint: Annotated[str, StringConstraints(max_length=1024, pattern=r"^https?://[^\s]+$")] | None = None
    """Address of an S3-compatible server; unset: AWS."""
    region: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The bucket's region."""
    credentials_secret_ref: S3Credentials | None = None
    """The Secret with the keys; unset: the pod's own identity."""


class BaseModelSource(ApiModel):
    """Where the base model comes from: exactly one."""

    hugging_face: HuggingFaceModel | None = None
    """A model of the Hugging Face Hub."""
    s3: S3Model | None = None
    """A model under an S3 prefix."""
    persistent_volume_claim: VolumePath | None = None
    """A model directory in a volume."""
    fine_tune_job: NameReference | None = None
    """The model that another FineTuneJob of this namespace made."""

    model_config = ConfigDict(
        json_schema_extra=rules(exactly_one_of("huggingFace", "s3", "persistentVolumeClaim", "fineTuneJob"))
    )
