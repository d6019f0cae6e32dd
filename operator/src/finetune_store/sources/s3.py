"""A prefix of an S3-compatible object store; credentials come as AWS_* environment variables."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.staging import S3Model
from finetune_store.files import make_directory
from finetune_store.sources.base import Listing, is_needed

if TYPE_CHECKING:
    from botocore.config import Config

_NOT_FOUND = ("404", "NoSuchBucket", "NoSuchKey")
_DENIED = ("401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")


class S3Source:
    """A model's files under `s3://bucket/prefix`."""

    field = "spec.baseModel.s3"

    def __init__(self, model: S3Model) -> None:
        """Take the address; nothing is asked of the server yet."""
        import boto3

        bucket, _, prefix = model.uri.removeprefix("s3://").partition("/")
        if not model.uri.startswith("s3://") or not bucket:
            raise FineTuneError(
                FailureReason.INVALID_PLAN, f"{self.field}.uri: {model.uri} is not an address; use s3://bucket/prefix"
            )
        self.address = model.uri
        self._bucket = bucket
        self._prefix = prefix.rstrip("/") + "/" if prefix else ""
        # Signing needs some region, which servers other than AWS's ignore.
        region = model.region or ("us-east-1" if model.endpoint else None)
        self._client = boto3.client("s3", endpoint_url=model.endpoint, region_name=region, config=_config(model))

    def listing(self) -> Listing:
        """The files a model needs; the revision is over their names, sizes and ETags."""
        with self._named_errors():
            pages = list(
                self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            )
        objects = {
            item["Key"].removeprefix(self._prefix): (item["Size"], item["ETag"])
            for page in pages
            for item in page.get("Contents", ())
        }
        needed = sorted((path, *facts) for path, facts in objects.items() if is_needed(path))
        revision = hashlib.sha256(json.dumps(needed).encode()).hexdigest()
        return Listing(revision, {path: size for path, size, _ in needed})

    def fetch(self, listing: Listing, directory: Path) -> None:
        """Download the files; an object that was replaced meanwhile is refused."""
        with self._named_errors():
            for path in listing.files:
                target = directory / path
                make_directory(target.parent)
                self._client.download_file(self._bucket, self._prefix + path, str(target))
        if self.listing().revision != listing.revision:
            raise FineTuneError(
                FailureReason.SOURCE_UNAVAILABLE, f"{self.field}.uri: {self.address} changed while it was read"
            )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except ClientError as error:
            raise FineTuneError(_reason_of(error.response["Error"]["Code"]), self._said(error)) from error
        except NoCredentialsError as error:
            raise FineTuneError(FailureReason.MODEL_ACCESS_DENIED, self._said(error)) from error
        except (BotoCoreError, Boto3Error) as error:
            raise FineTuneError(FailureReason.SOURCE_UNAVAILABLE, self._said(error)) from error

    def _said(self, error: Exception) -> str:
        return f"{self.field}.uri: {self.address}: {error}"


def _reason_of(code: str) -> FailureReason:
    if code in _NOT_FOUND:
        return FailureReason.MODEL_NOT_FOUND
    return FailureReason.MODEL_ACCESS_DENIED if code in _DENIED else FailureReason.SOURCE_UNAVAILABLE


def _config(model: S3Model) -> "Config":
    from botocore.config import Config

    # Servers other than AWS's have no bucket subdomains and often none of its newer checksum trailers.
    return Config(
        s3={"addressing_style": "path"} if model.endpoint else {},
        response_checksum_validation="when_required",
        retries={"mode": "standard", "max_attempts": 5},
    )
