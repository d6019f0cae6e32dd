"""What keeps an entry of a store in S3 from being collected: its last use. And who decides when both meet.

S3 has no rename: what `retention` does by one is done by a note beside the entry, changed only by conditional writes:

    a user         writes `.used/<entry>`, then looks for a note; one that says `aside` it turns into `kept`
    the collector  writes the note `aside`, then looks again at `.used/<entry>`, then turns the note into `doomed`

Whatever the order, either the collector sees the mark, or the user sees the note, and of the two changes to the note
only one succeeds. What is doomed counts as gone; it is published anew once the collector has finished.
"""

import json
import logging
import time
import uuid
from datetime import UTC, datetime

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import MANIFEST_FILE, OUTCOME_FILE
from finetune_store.s3 import Bucket, Content

log = logging.getLogger(__name__)

NAMESPACES = ".namespaces"
_ASIDE = ".collected"
_USED = ".used"
_LONGEST_DELETION = 2 * 3600.0
"""A collector lives for an hour at most: what it has not finished after two, others finish."""
_PATIENCE = 60.0
"""Seconds that a user waits for a collector to finish."""


def use(bucket: Bucket, entry: str) -> None:
    """Say that an entry (`models/<hex>`) is used now. Must come before it is read.

    Raises:
        FineTuneError: StorageUnavailable while a collector that could not be stopped any more deletes it.
    """
    try:
        bucket.put(f"{_USED}/{entry}", b"")
    except FineTuneError as error:
        if error.reason is FailureReason.STORAGE_ACCESS_DENIED:
            return  # a pod that may only read: what it reads is in its plan, so it is in use anyway
        raise
    deadline = time.monotonic() + _PATIENCE
    while not _is_free(bucket, entry):
        if time.monotonic() > deadline:
            message = f"{bucket.uri(entry)}: is being deleted, as nothing referred to it; try again later"
            raise FineTuneError(FailureReason.STORAGE_UNAVAILABLE, message)
        time.sleep(1)


def _is_free(bucket: Bucket, entry: str) -> bool:
    """Whether nobody deletes an entry; takes it back where that is still possible."""
    note = bucket.get(_note(entry))
    if note is None or _says(note, "kept"):
        return True
    if _says(note, "aside"):
        return _change(bucket, entry, note, "kept") is not None
    began = bucket.modified(_note(entry))
    if began and (datetime.now(UTC) - began).total_seconds() > _LONGEST_DELETION:
        log.info("%s: its deletion is finished, which another pod has begun", bucket.uri(entry))
        discard(bucket, entry)
    return False


# --- the collector's part ---


def last_use(bucket: Bucket, entry: str) -> float:
    """When an entry was last used, in seconds since 1970; 0 if nobody ever said so."""
    used = bucket.modified(f"{_USED}/{entry}")
    return used.timestamp() if used else 0.0


def set_aside(bucket: Bucket, entry: str) -> Content | None:
    """Begin to delete an entry; None where another collector is at it."""
    document = _document("aside")
    if not bucket.put(_note(entry), document, if_absent=True):
        note = bucket.get(_note(entry))
        # One that a user has taken back is free to be judged anew.
        return _change(bucket, entry, note, "aside") if note and _says(note, "kept") else None
    return _own(bucket, entry, document)


def doom(bucket: Bucket, entry: str, note: Content) -> bool:
    """From here on nobody can take it back; False where a user has done so."""
    return _change(bucket, entry, note, "doomed") is not None


def bring_back(bucket: Bucket, entry: str, note: Content) -> None:
    """Leave an entry where it is."""
    _change(bucket, entry, note, "kept")


def discard(bucket: Bucket, entry: str) -> int:
    """Delete a doomed entry, what makes it complete first; answers its bytes."""
    complete = (f"{entry}/{MANIFEST_FILE}", f"{entry}/{OUTCOME_FILE}")
    items = sorted(bucket.items(f"{entry}/"), key=lambda item: item.key not in complete)
    bucket.remove(item.key for item in items)
    bucket.remove([f"{_USED}/{entry}", _note(entry)])
    return sum(item.size for item in items)


def all_aside(bucket: Bucket) -> list[str]:
    """Entries whose deletion was begun and not finished."""
    return [item.key.removeprefix(f"{_ASIDE}/") for item in bucket.items(f"{_ASIDE}/")]


def settle(bucket: Bucket, entry: str) -> None:
    """Finish or undo what a collector that died has begun."""
    note = bucket.get(_note(entry))
    if note is None:
        return
    if _says(note, "doomed"):
        discard(bucket, entry)
    elif not _says(note, "aside") or _change(bucket, entry, note, "kept"):
        bucket.remove([_note(entry)])


def _note(entry: str) -> str:
    return f"{_ASIDE}/{entry}"


def _document(state: str) -> bytes:
    # No two are alike: a request that was repeated knows its own by it.
    return json.dumps({"state": state, "by": uuid.uuid4().hex}).encode()


def _says(note: Content, state: str) -> bool:
    try:
        return bool(json.loads(note.data)["state"] == state)
    except (ValueError, KeyError, TypeError):
        return False


def _change(bucket: Bucket, entry: str, note: Content, state: str) -> Content | None:
    document = _document(state)
    return _own(bucket, entry, document) if bucket.put(_note(entry), document, if_match=note.etag) else None


def _own(bucket: Bucket, entry: str, document: bytes) -> Content | None:
    """The note as it was just written; None where somebody has changed it since."""
    note = bucket.get(_note(entry))
    return note if note and note.data == document else None
