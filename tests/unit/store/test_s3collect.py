"""What the collector of a store in S3 deletes and, above all, what it leaves."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.collection import CollectionPlan, CollectionResult, prefixes_in
from finetune_contract.failure import FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_contract.storage import S3Location
from finetune_store import s3retention
from finetune_store.collect import collect
from finetune_store.s3checkpoints import S3Checkpoints
from finetune_store.s3store import S3Store
from tests.unit.store.test_both_stores import KEY, MODEL, make_outcome, put, save

WEEK = 7 * 24 * 3600.0
BEGIN = datetime(2033, 5, 18, tzinfo=UTC)
"""Later than any real time, so that what is written today is old."""
OTHER = {"config.json": "{1}"}


class Shelf:
    """A store in S3, a clock that is moved by hand, and looks at the store."""

    def __init__(self, location: S3Location, directory: Path) -> None:
        self._location = location
        self._directory = directory
        self._pods = 0
        self.now = BEGIN
        self.live: set[str] = set()
        self.store = self.pod()

    def pod(self) -> S3Store:
        self._pods += 1
        root = self._directory / f"pod-{self._pods}"
        root.mkdir()
        return S3Store(root, self._location)

    def refer(self, *named: StoredReference | str) -> None:
        self.live = {prefix for name in named for prefix in prefixes_in(name if isinstance(name, str) else name.digest)}

    def look(self, as_of: datetime | None = None) -> CollectionResult:
        plan = CollectionPlan(
            namespace="team",
            s3=self._location,
            as_of=as_of or self.now,
            live=tuple(sorted(self.live)),
            minimum_age_seconds=WEEK,
        )
        return collect(plan, self.store, clock=self.now.timestamp)

    def look_daily(self, days: int) -> list[CollectionResult]:
        results = []
        for _ in range(days):
            results.append(self.look())
            self.now += timedelta(days=1)
        return results


@pytest.fixture
def shelf(s3_location: S3Location, tmp_path: Path) -> Shelf:
    return Shelf(s3_location, tmp_path)


def key_of(ref: StoredReference) -> str:
    return "/".join(ref.uri.split("/")[-2:])


def test_what_nothing_refers_to_goes_after_the_minimum_age(shelf: Shelf) -> None:
    model, kept = put(shelf.pod(), MODEL), put(shelf.pod(), OTHER)
    size = sum(item.size for item in shelf.store.bucket.items(f"{key_of(model)}/"))
    shelf.refer(kept)
    *looks, last = shelf.look_daily(8)
    assert [(result.removed, result.waiting, result.in_use) for result in looks] == [(0, 1, 1)] * 7
    assert (last.removed, last.waiting, last.in_use, last.bytes) == (1, 0, 1, size)
    assert not list(shelf.store.bucket.items(f"{key_of(model)}/"))
    assert s3retention.all_aside(shelf.store.bucket) == []
    assert shelf.pod().holds(kept)
    shelf.pod().verify(put(shelf.pod(), MODEL))


def test_what_is_in_use_keeps_what_it_was_made_from_and_the_rest_goes_as_a_whole(shelf: Shelf) -> None:
    base, store = put(shelf.pod(), MODEL), shelf.pod()
    with store.workspace(StoredKind.ARTIFACT) as work:
        (work / "adapter.safetensors").write_text("weights")
        artifact = store.publish(StoredKind.ARTIFACT, work, {"base": base.digest, "runKey": KEY})
    save(S3Checkpoints(store, KEY, "pod-a", 2), 1, 2)
    store.publish_outcome(make_outcome(artifact))
    shelf.refer(KEY)
    first, *others = shelf.look_daily(9)
    # A run that has succeeded needs no checkpoints.
    assert (first.in_use, first.checkpoints_removed) == (3, 1)
    assert {(result.in_use, result.removed, result.checkpoints_removed) for result in others} == {(3, 0, 0)}
    assert shelf.pod().outcome(KEY) is not None
    shelf.refer()
    assert [result.removed for result in shelf.look_daily(8)] == [0] * 7 + [3]
    assert shelf.pod().outcome(KEY) is None


def test_checkpoints_of_a_run_that_goes_on_stay(shelf: Shelf) -> None:
    save(S3Checkpoints(shelf.pod(), KEY, "pod-a", 2), 1)
    shelf.refer(KEY)
    assert {result.checkpoints_removed for result in shelf.look_daily(9)} == {0}
    assert S3Checkpoints(shelf.pod(), KEY, "pod-b", 2).newest() is not None


def test_a_bucket_that_namespaces_share_is_left_alone(shelf: Shelf) -> None:
    put(shelf.pod(), MODEL)
    shelf.look_daily(7)
    shelf.store.register("another-team")
    with pytest.raises(FineTuneError, match="another-team keep things in the same place"):
        shelf.look()


# --- a user and the collector at the same time ---

STEPS = ["last_use", "set_aside", "doom", "discard"]


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("step", STEPS)
def test_a_user_between_any_two_steps_of_the_collector(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, step: str, before: bool
) -> None:
    """Either what it is told to be there stays, or it is published anew: nobody ends with half a directory."""
    model = put(shelf.pod(), MODEL)
    shelf.look_daily(7)
    real = s3retention.last_use
    said: list[bool] = []

    def use() -> None:
        if said:
            return
        try:
            said.append(shelf.pod().holds(model))
        except FineTuneError:
            said.append(False)

    def watched(*arguments: object) -> object:
        if before:
            use()
        result = original(*arguments)
        if not before:
            use()
        return result

    with monkeypatch.context() as patch:
        patch.setattr(s3retention, "_PATIENCE", 0.0)
        # The server marks uses with today's date, which is long before the collector's.
        patch.setattr(s3retention, "last_use", lambda *where: shelf.now.timestamp() if said else real(*where))
        original: Callable[..., object] = getattr(s3retention, step)
        patch.setattr(s3retention, step, watched)
        removed = shelf.look().removed
    if said[0]:
        assert removed == 0
        shelf.pod().verify(model)
    else:
        assert removed == 1
    for entry in s3retention.all_aside(shelf.store.bucket):
        s3retention.settle(shelf.store.bucket, entry)
    shelf.pod().verify(put(shelf.pod(), MODEL))


@pytest.mark.parametrize("state", ["aside", "doomed"])
def test_what_a_collector_that_died_has_begun_is_finished_or_undone(shelf: Shelf, state: str) -> None:
    model, bucket = put(shelf.pod(), MODEL), shelf.store.bucket
    note = s3retention.set_aside(bucket, key_of(model))
    assert note is not None
    if state == "doomed":
        assert s3retention.doom(bucket, key_of(model), note)
        bucket.remove([f"{key_of(model)}/config.json"])
    shelf.refer(model)
    shelf.look()
    assert s3retention.all_aside(bucket) == []
    assert shelf.pod().holds(model) == (state == "aside")
    shelf.pod().verify(put(shelf.pod(), MODEL))
