"""API keys: who may ask. Read from a mounted file, and again when it has changed."""

import hashlib
import hmac
import logging
from pathlib import Path

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import ENV_API_KEYS_FILE

log = logging.getLogger(__name__)

_SCHEME = "bearer "


class ApiKeys:
    """The keys of one file, of which every request must carry one."""

    def __init__(self, file: Path) -> None:
        """Read the file.

        Raises:
            FineTuneError: InvalidPlan when it cannot be read or holds no key: a server that nobody can ask has been
                set up wrongly, and should not look healthy.
        """
        self._file = file
        self._version: tuple[int, ...] = ()
        self._digests: tuple[bytes, ...] = ()
        self._refresh()
        if not self._digests:
            message = f"{ENV_API_KEYS_FILE}: {file} holds no key; write one key per line"
            raise FineTuneError(FailureReason.INVALID_PLAN, message)

    def accepts(self, authorization: str | None) -> bool:
        """Whether a request with this `Authorization` header is let in."""
        self._refresh()
        given = authorization or ""
        if given[: len(_SCHEME)].lower() != _SCHEME:
            return False
        # Digests have one length, and every key is compared: how long this takes says nothing about any of them.
        digest = _digest(given[len(_SCHEME) :])
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0

    def _refresh(self) -> None:
        """Read the file again if it is another one: the kubelet swaps a link when a Secret changes."""
        try:
            status = self._file.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version == self._version:
                return
            lines = self._file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            # Whoever takes the file away wants the old keys to end.
            if self._digests:
                log.error("no API key is accepted any more: %s", error)  # noqa: TRY400 - the trace is no news
            self._version, self._digests = (), ()
            return
        self._version = version
        self._digests = tuple(_digest(line) for line in lines if line.strip())
        log.info("%d API keys are accepted", len(self._digests))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
