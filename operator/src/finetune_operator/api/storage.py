"""Where an object keeps what it makes: `spec.storage` of all kinds."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.storage import S3_URI
from finetune_operator.api.base import ApiModel, Name, Quantity, exactly_one_of, rule, rules


class AccessMode(StrEnum):
    """How many nodes may mount a volume."""

    READ_WRITE_MANY = "ReadWriteMany"
    """Pods run anywhere."""
    READ_WRITE_ONCE = "ReadWriteOnce"
    """Pods run on the node that holds it."""


class ClaimStorage(ApiModel):
    """A PersistentVolumeClaim of the namespace; made if there is none, and never deleted."""

    claim_name: Name | None = None
    """The claim's name; unset: the operator's default (chart value storage.claimName)."""
    storage_class_name: Name | None = None
    """StorageClass of a claim that has to be made; unset: the operator's default."""
    access_modes: Annotated[
        list[AccessMode], Field(max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """Access modes of a claim that has to be made; unset: the operator's default."""
    size: Quantity | None = None
    """Size of a claim that has to be made; unset: the operator's default. One that is there is not resized."""


class StoreSecret(ApiModel):
    """A Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN if there is one."""

    name: Name
    """The Secret's name."""


class S3Storage(ApiModel):
    """A prefix of a bucket, on AWS or any server that knows conditional writes; it is made for one namespace."""

    uri: Annotated[str, StringConstraints(min_length=8, max_length=900, pattern=S3_URI)]
    """`s3://bucket/prefix`; the bucket has to be there."""
    endpoint: Annotated[str, StringConstraints(max_length=1024, pattern=r"^https?://[^\s]+$")] | None = None
    """Address of an S3-compatible server; unset: AWS."""
    region: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    """The bucket's region."""
    credentials_secret_ref: StoreSecret | None = None
    """The Secret with the keys; unset: the identity of the pods' ServiceAccount (podTemplate.serviceAccountName)."""


class StorageSpec(ApiModel):
    """Where what the object makes is kept: exactly one. What it takes from others has to be in the same place."""

    persistent_volume_claim: ClaimStorage | None = None
    """A volume."""
    s3: S3Storage | None = None
    """A bucket; then no claim is made, and pods copy what they read to their own disks."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            exactly_one_of("persistentVolumeClaim", "s3"),
            rule(
                "has(self.s3) == has(oldSelf.s3) && (!has(self.s3) || self.s3.uri == oldSelf.s3.uri)",
                "what is stored does not move: create another object for another place",
            ),
            rule(
                "!has(self.persistentVolumeClaim) || !has(oldSelf.persistentVolumeClaim) || "
                "(has(self.persistentVolumeClaim.claimName) ? self.persistentVolumeClaim.claimName : '') == "
                "(has(oldSelf.persistentVolumeClaim.claimName) ? oldSelf.persistentVolumeClaim.claimName : '')",
                "claimName cannot change, as what is stored does not move: create another object for another claim",
            ),
        )
    )


STORAGE_RULE = rule(
    "has(self.storage) == has(oldSelf.storage)",
    "storage cannot be added or removed, as what is stored does not move: create another object",
)
"""For the specs that have the field."""
