"""A prefix of an S3-compatible object store; credentials come as AWS_* environment variables."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.staging import S3Model
from finetune_store.files import make_directory
from finetune_store.s3 import DENIED, NOT_FOUND, config_for, region_for, split_uri
from finetune_store.sources.base import Listing, is_needed


class S3Source:
    """A model's files under `s3://bucket/prefix`."""

    field = "spec.baseModel.s3"

    def __init__(self, model: S3Model) -> None:
        """Take the address; nothing is asked of the server yet."""
        import boto3

        bucket, prefix = split_uri(model.uri)
        if not model.uri.startswith("s3://") or not bucket:
            raise FineTuneError(
                FailureReason.INVALID_PLAN, f"{self.field}.uri: {model.uri} is not an address; use s3://bucket/prefix"
            )
        self.address = self.name = model.uri
        self._bucket = bucket
        self._prefix = prefix
        region, config = region_for(model.region, model.endpoint), config_for(model.endpoint)
        self._client = boto3.session.Session().client(
            "s3", endpoint_url=model.endpoint, region_name=region, config=config
        )

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
    if code in NOT_FOUND:
        return FailureReason.MODEL_NOT_FOUND
    return FailureReason.MODEL_ACCESS_DENIED if code in DENIED else FailureReason.SOURCE_UNAVAILABLE
