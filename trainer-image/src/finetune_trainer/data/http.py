"""Downloads that resume where they broke off, and never pass for whole when they are not."""

import logging
import time
from pathlib import Path

import httpx

from finetune_contract.datasets import HttpSource
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_store.files import sha256_of
from finetune_store.progress import in_units

log = logging.getLogger(__name__)

_BACK_OFF_SECONDS = (1.0, 2.0, 4.0)
_PROGRESS_SECONDS = 5.0


def download(source: HttpSource, directory: Path) -> list[Path]:
    """Download every URL.

    Raises:
        FineTuneError: SourceUnavailable or SourceNotFound naming the URL and its status, DatasetInvalid for a wrong
            checksum.
    """
    if source.sha256 and len(source.sha256) != len(source.urls):
        raise FineTuneError(
            FailureReason.INVALID_PLAN,
            f"spec.source.http.sha256: has {len(source.sha256)} checksums for {len(source.urls)} URLs; give one each",
        )
    paths = []
    # Byte ranges are of what is sent, so nothing may be compressed on the way.
    headers = {"Accept-Encoding": "identity", "User-Agent": "finetune-operator"}
    with httpx.Client(follow_redirects=True, timeout=30, headers=headers) as client:
        for number, url in enumerate(source.urls):
            path = directory / f"download-{number}"
            _Download(client, url, path).run()
            paths.append(path)
            if source.sha256:
                _check(path, url, source.sha256[number], number)
    return paths


def _check(path: Path, url: str, wanted: str, number: int) -> None:
    found = sha256_of(path)
    if found != wanted.lower().removeprefix("sha256:"):
        raise FineTuneError(
            FailureReason.DATASET_INVALID, f"spec.source.http.sha256[{number}]: {url} has {found}, not {wanted}"
        )


class _Download:
    """One URL, until it is whole or has failed too often."""

    def __init__(self, client: httpx.Client, url: str, path: Path) -> None:
        self._client = client
        self._url = url
        self._path = path
        self._etag: str | None = None

    def run(self) -> None:
        self._path.unlink(missing_ok=True)
        for pause in (*_BACK_OFF_SECONDS, None):
            try:
                return self._attempt()
            except httpx.InvalidURL as error:
                raise FineTuneError(FailureReason.INVALID_PLAN, f"spec.source.http: {self._url}: {error}") from error
            except httpx.HTTPError as error:
                fault = f"{self._url} {self._fault(error)}"
                if pause is None or not _may_pass(error):
                    raise FineTuneError(_reason_of(error), f"spec.source.http: {fault}") from error
            log.info("%s; trying again in %g s", fault, pause)
            time.sleep(pause)
        return None

    def _attempt(self) -> None:
        received = self._received()
        # Only an unchanged file may be continued: If-Range asks for all of it otherwise.
        resume = {"Range": f"bytes={received}-", "If-Range": self._etag} if received and self._etag else {}
        with self._client.stream("GET", self._url, headers=resume) as response:
            response.raise_for_status()
            self._etag = response.headers.get("ETag")
            is_rest = response.status_code == httpx.codes.PARTIAL_CONTENT
            if is_rest and not response.headers.get("Content-Range", "").startswith(f"bytes {received}-"):
                raise httpx.RemoteProtocolError("the server answered with another range than was asked for")
            self._receive(response, append=is_rest)

    def _receive(self, response: httpx.Response, append: bool) -> None:
        said = time.monotonic()
        # httpx raises when the connection ends before Content-Length bytes, or before a chunked body's end.
        with self._path.open("ab" if append else "wb") as file:
            # Chunks as they come: a chunk size would hold the last, broken-off one back.
            for chunk in response.iter_raw():
                file.write(chunk)
                if time.monotonic() - said > _PROGRESS_SECONDS:
                    said = time.monotonic()
                    log.info("%s: %s received", self._url, in_units(file.tell()))

    def _received(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def _fault(self, error: httpx.HTTPError) -> str:
        if isinstance(error, httpx.HTTPStatusError):
            return f"answered {error.response.status_code} {error.response.reason_phrase}"
        return f"stopped after {in_units(self._received())}: {error or type(error).__name__}"


def _reason_of(error: httpx.HTTPError) -> FailureReason:
    gone = (httpx.codes.NOT_FOUND, httpx.codes.GONE)
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in gone:
        return FailureReason.SOURCE_NOT_FOUND
    return FailureReason.SOURCE_UNAVAILABLE


def _may_pass(error: httpx.HTTPError) -> bool:
    """Whether asking again can help."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.is_server_error or error.response.status_code == httpx.codes.TOO_MANY_REQUESTS
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
