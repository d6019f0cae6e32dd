"""Objects of an S3-compatible store; credentials come as AWS_* environment variables.

Each object is read at the ETag that the listing had: one that is replaced meanwhile ends the reading, by name.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from finetune_contract.datasets import S3Files
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_store.s3 import DENIED, NOT_FOUND, config_for, region_for

log = logging.getLogger(__name__)

_FIELD = "spec.source.s3"
_CHUNK = 1024 * 1024
_TRIES = 4
_CHANGED = ("412", "PreconditionFailed")


class _Object(NamedTuple):
    key: str
    size: int
    etag: str


def download(source: S3Files, directory: Path) -> dict[str, Path]:
    """The objects by their keys.

    Raises:
        FineTuneError: SourceNotFound, SourceAccessDenied, SourceChanged or SourceUnavailable.
    """
    return _Bucket(source).download(directory)


class _Bucket:
    def __init__(self, source: S3Files) -> None:
        import boto3

        self._source = source
        self._name, _, self._pattern = source.uri.removeprefix("s3://").partition("/")
        if not source.uri.startswith("s3://") or not self._name:
            raise FineTuneError(
                FailureReason.INVALID_PLAN, f"{_FIELD}.uri: {source.uri} is not an address; use s3://bucket/prefix"
            )
        self._client = boto3.session.Session().client(
            "s3",
            endpoint_url=source.endpoint,
            region_name=region_for(source.region, source.endpoint),
            config=config_for(source.endpoint),
        )

    def download(self, directory: Path) -> dict[str, Path]:
        with self._named_errors(self._source.uri):
            objects = self._objects()
        if not objects:
            raise FineTuneError(FailureReason.SOURCE_NOT_FOUND, f"{_FIELD}.uri: no object matches {self._source.uri}")
        files = {}
        for number, item in enumerate(objects):
            files[item.key] = directory / f"object-{number}"
            with self._named_errors(f"s3://{self._name}/{item.key}"):
                self._fetch(item, files[item.key])
        return files

    def _objects(self) -> list[_Object]:
        """What matches: the object of that very key, what is below that prefix, or what the glob says."""
        prefix = re.split(r"[*?\[]", self._pattern, maxsplit=1)[0]
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=prefix)
        found = [
            _Object(item["Key"], item["Size"], item["ETag"]) for page in pages for item in page.get("Contents", ())
        ]
        if prefix != self._pattern:
            matches = _glob(self._pattern)
            return [item for item in found if matches.fullmatch(item.key)]
        if exact := [item for item in found if item.key == self._pattern]:
            return exact
        folder = self._pattern.rstrip("/") + "/" if self._pattern else ""
        below = [item for item in found if item.key.startswith(folder) and item.size]
        # `_SUCCESS` and its like are what writers leave beside the data.
        return [item for item in below if not PurePosixPath(item.key).name.startswith(("_", "."))]

    def _fetch(self, item: _Object, path: Path) -> None:
        """Download an object, and go on where the connection broke off."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError

        with path.open("wb") as file:
            for attempt in range(_TRIES):
                start = file.tell()
                rest: dict[str, Any] = {"Range": f"bytes={start}-"} if start else {}
                answer = self._client.get_object(Bucket=self._name, Key=item.key, IfMatch=item.etag, **rest)
                if answer["ETag"] != item.etag:  # a server that does not know If-Match
                    raise self._changed(item.key)
                try:
                    for chunk in answer["Body"].iter_chunks(_CHUNK):
                        file.write(chunk)
                except (HTTPClientError, IncompleteReadError, ResponseStreamingError) as error:
                    if attempt + 1 == _TRIES:
                        raise
                    log.info("s3://%s/%s broke off at %d bytes: %s", self._name, item.key, file.tell(), error)
                else:
                    break
            if file.tell() != item.size:
                raise self._changed(item.key)

    def _changed(self, key: str) -> FineTuneError:
        return FineTuneError(
            FailureReason.SOURCE_CHANGED, f"{_FIELD}.uri: s3://{self._name}/{key} was replaced while it was read"
        )

    @contextmanager
    def _named_errors(self, address: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except ClientError as error:
            if error.response["Error"]["Code"] in _CHANGED:
                raise self._changed(address.partition(f"{self._name}/")[2]) from error
            raise FineTuneError(
                _reason_of(error.response["Error"]["Code"]), f"{_FIELD}.uri: {address}: {error}"
            ) from error
        except NoCredentialsError as error:
            message = f"{_FIELD}.credentialsSecretRef: {address}: {error}"
            raise FineTuneError(FailureReason.SOURCE_ACCESS_DENIED, message) from error
        except (BotoCoreError, Boto3Error) as error:
            raise FineTuneError(FailureReason.SOURCE_UNAVAILABLE, f"{_FIELD}.uri: {address}: {error}") from error


def _glob(pattern: str) -> re.Pattern[str]:
    """A glob as in a volume: `*` within a folder, `**/` over any number of them."""
    parts = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", pattern)
    meanings = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.compile(
        "".join(meanings.get(part) or (part if part.startswith("[") else re.escape(part)) for part in parts)
    )


def _reason_of(code: str) -> FailureReason:
    if code in NOT_FOUND:
        return FailureReason.SOURCE_NOT_FOUND
    return FailureReason.SOURCE_ACCESS_DENIED if code in DENIED else FailureReason.SOURCE_UNAVAILABLE
