"""Objects under a prefix of an S3-compatible server, with a name for every way in which it fails.

Only what every such server has is used: GET, HEAD, PUT (with `If-None-Match` and `If-Match`), multipart uploads, LIST
and DELETE. boto3 repeats what can be repeated: 429, 500 and 503, time-outs, bodies that break off.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import ENV_STORE
from finetune_contract.storage import S3Location

if TYPE_CHECKING:
    from botocore.config import Config

NOT_FOUND = ("404", "NoSuchBucket", "NoSuchKey", "NotFound")
DENIED = ("401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
_FULL = ("507", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage")
_TAKEN = ("409", "412", "PreconditionFailed", "ConditionalRequestConflict")
_SHA256 = "sha256"
"""The metadata entry of an object that says what was uploaded."""

PART_BYTES = 32 * 1024 * 1024
"""A multipart upload has at most 10,000 parts: a file may have 312 GiB."""

AT_ONCE = 4
"""Files at a time, and parts at a time of each."""

ATTEMPTS = 8
"""Tries of one request; the pauses between them double, up to 20 s each."""


@dataclass(frozen=True)
class Item:
    """An object, as a listing tells of it."""

    key: str
    """Without the store's prefix."""
    size: int
    modified: datetime


@dataclass(frozen=True)
class Content:
    """A small object that was read."""

    data: bytes
    etag: str


def split_uri(uri: str) -> tuple[str, str]:
    """The bucket, and the prefix with a `/` at its end (or nothing)."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


def config_for(endpoint: str | None, attempts: int = 5) -> "Config":
    """How a server is spoken to."""
    from botocore.config import Config

    # Servers other than AWS's have no bucket subdomains and often none of its newer checksum trailers.
    return Config(
        s3={"addressing_style": "path"} if endpoint else {},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "max_attempts": attempts},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=2 * AT_ONCE * AT_ONCE,
    )


def region_for(region: str | None, endpoint: str | None) -> str | None:
    """Signing needs some region, which servers other than AWS's ignore."""
    return region or ("us-east-1" if endpoint else None)


class Bucket:
    """A prefix of a bucket: keys are relative to it.

    Every method raises FineTuneError: StorageUnavailable, StorageAccessDenied or StorageFull.
    """

    def __init__(self, location: S3Location, attempts: int = ATTEMPTS) -> None:
        """Take the address and the credentials in the environment; nothing is asked of the server yet."""
        import boto3
        from boto3.s3.transfer import TransferConfig
        from botocore.exceptions import BotoCoreError

        self.address = location.uri.rstrip("/")
        self._bucket, self._prefix = split_uri(location.uri)
        self._transfer = TransferConfig(
            multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=AT_ONCE
        )
        try:
            # A session of its own: boto3's default one remembers the keys that were there first.
            self._client: Any = boto3.session.Session().client(
                "s3",
                endpoint_url=location.endpoint,
                region_name=region_for(location.region, location.endpoint),
                config=config_for(location.endpoint, attempts),
                **_credentials(),
            )
        except (BotoCoreError, ValueError) as error:
            raise FineTuneError(FailureReason.STORAGE_UNAVAILABLE, f"{self.address}: {error}") from error

    def uri(self, key: str) -> str:
        """An object's address, for people and references."""
        return f"{self.address}/{key}"

    # --- small objects ---

    def get(self, key: str) -> Content | None:
        """A small object; None if there is none."""
        try:
            with self._named_errors(key):
                found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
                return Content(found["Body"].read(), found["ETag"])
        except _MissingError:
            return None

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> bool:
        """Write a small object; False where the condition does not hold, and nothing was written.

        Args:
            key: Where.
            data: What.
            if_absent: Only where there is no such object.
            if_match: Only while the object there has this ETag.
        """
        condition = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": if_match} if if_match else {}
        try:
            with self._named_errors(key):
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data, **condition)
        except _TakenError:
            # A request that was repeated finds what its first try has written.
            there = self.get(key)
            return there is not None and there.data == data
        except _MissingError:
            return False  # If-Match of an object that is gone
        return True

    def modified(self, key: str) -> datetime | None:
        """When an object was written, by the server's clock; None if there is none."""
        try:
            with self._named_errors(key):
                found = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
                return found["LastModified"]  # type: ignore[no-any-return]
        except _MissingError:
            return None

    # --- files ---

    def holds(self, key: str, size: int, sha256: str) -> bool:
        """Whether an object is what `upload` would make it, as far as the server tells."""
        try:
            with self._named_errors(key):
                found = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except _MissingError:
            return False
        return bool(found["ContentLength"] == size and found["Metadata"].get(_SHA256) == sha256)

    def upload(self, key: str, path: Path, sha256: str) -> None:
        """Write a file, in parts where it is large."""
        with self._named_errors(key):
            extra = {"Metadata": {_SHA256: sha256}}
            self._client.upload_file(str(path), self._bucket, self._prefix + key, extra, Config=self._transfer)

    def download(self, key: str, path: Path) -> bool:
        """Write an object to a file; False if there is none."""
        try:
            with self._named_errors(key):
                self._client.download_file(self._bucket, self._prefix + key, str(path), Config=self._transfer)
        except _MissingError:
            return False
        return True

    # --- many ---

    def items(self, folder: str) -> Iterator[Item]:
        """Every object below a folder (`models/`), in the order of their keys."""
        for page in self._pages(Prefix=self._prefix + folder):
            for found in page.get("Contents", ()):
                key = found["Key"].removeprefix(self._prefix)
                yield Item(key, found["Size"], found["LastModified"])

    def names(self, folder: str) -> list[str]:
        """What is directly in a folder, folders and objects alike, without its path."""
        before = self._prefix + folder
        found = []
        for page in self._pages(Prefix=before, Delimiter="/"):
            found += [entry["Prefix"].removeprefix(before).rstrip("/") for entry in page.get("CommonPrefixes", ())]
            found += [entry["Key"].removeprefix(before) for entry in page.get("Contents", ())]
        return found

    def remove(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are gone already are no error."""
        for key in keys:
            with self._named_errors(key):
                # One by one: DeleteObjects needs an MD5 that some servers want and some SDKs no longer send.
                self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def _pages(self, **query: str) -> Iterator[dict[str, Any]]:
        with self._named_errors(""):
            yield from self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, **query)

    @contextmanager
    def _named_errors(self, key: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        where = self.uri(key) if key else self.address
        try:
            yield
        except ClientError as error:
            raise _named(error, where) from error
        except NoCredentialsError as error:
            raise FineTuneError(FailureReason.STORAGE_ACCESS_DENIED, f"{where}: {error}") from error
        except (BotoCoreError, Boto3Error) as error:
            if isinstance(error.__context__, ClientError):  # s3transfer wraps what the server said
                raise _named(error.__context__, where) from error
            raise FineTuneError(FailureReason.STORAGE_UNAVAILABLE, f"{where}: {error}") from error


class _MissingError(FineTuneError):
    """There is no such object."""


class _TakenError(FineTuneError):
    """The condition of a write does not hold."""


def _named(error: Any, where: str) -> FineTuneError:  # noqa: ANN401 - botocore has no types
    code = str(error.response["Error"].get("Code", ""))
    status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    said = f"{where}: {error}"
    if code == "NoSuchBucket":
        return FineTuneError(FailureReason.STORAGE_UNAVAILABLE, f"{said}; create the bucket, or name another")
    if code in NOT_FOUND or status == "404":
        return _MissingError(FailureReason.STORAGE_UNAVAILABLE, f"{where}: is not in the store")
    if code in _TAKEN or status in _TAKEN:
        return _TakenError(FailureReason.STORAGE_UNAVAILABLE, said)
    if code in DENIED or status in DENIED:
        return FineTuneError(FailureReason.STORAGE_ACCESS_DENIED, said)
    if code in _FULL or status in _FULL:
        return FineTuneError(FailureReason.STORAGE_FULL, said)
    if status == "501" or code == "NotImplemented":
        hint = "the server must know If-None-Match and If-Match on PutObject, which publishing once rests on"
        return FineTuneError(FailureReason.STORAGE_UNAVAILABLE, f"{said}; {hint}")
    return FineTuneError(FailureReason.STORAGE_UNAVAILABLE, said)


def _credentials() -> dict[str, str]:
    """The store's own keys; none where the pod has an identity of its own, or the usual variables are set."""
    names = {
        "aws_access_key_id": "AWS_ACCESS_KEY_ID",
        "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "aws_session_token": "AWS_SESSION_TOKEN",
    }
    return {field: os.environ[ENV_STORE + name] for field, name in names.items() if os.environ.get(ENV_STORE + name)}
