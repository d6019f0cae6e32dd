"""Where a pod finds the store: a claim that is mounted in it, or a prefix of an S3-compatible server."""

from typing import Annotated, Self

from pydantic import StringConstraints, model_validator

from finetune_contract.base import Document

S3_URI = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()=-]+)*$"
"""`s3://bucket/prefix` in characters that need no escaping anywhere; no `/` at the end."""


class S3Location(Document):
    """A store in S3; credentials come as environment variables, never in a plan."""

    uri: Annotated[str, StringConstraints(max_length=1024, pattern=S3_URI)]
    """`s3://bucket/prefix`."""
    endpoint: str | None = None
    """Address of an S3-compatible server; None: AWS."""
    region: str | None = None


class StorePlan(Document):
    """A part of every plan whose pod reads or writes the store: exactly one of its fields is set."""

    claim: str = ""
    """The claim that is mounted at `/store`."""
    s3: S3Location | None = None
    """The store is in S3; an emptyDir at `/store` holds copies of what the pod uses."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if bool(self.claim) is (self.s3 is not None):
            raise ValueError("exactly one of claim, s3 must be set")
        return self
