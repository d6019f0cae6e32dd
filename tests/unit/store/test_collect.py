"""What the collector deletes and, above all, what it leaves."""

import errno
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.collection import CollectionPlan, CollectionResult, prefixes_in
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_store import retention
from finetune_store.__main__ import main
from finetune_store.collect import collect
from finetune_store.collection import Ledger
from finetune_store.store import Store
from tests.factories import training_result
from tests.unit.store.conftest import Publish

DAY = 24 * 3600.0
WEEK = 7 * DAY
BEGIN = datetime(2033, 5, 18, tzinfo=UTC)
"""Later than any real time, so that a file of today is old unless `Shelf.now_written` says when it was written."""
RUN = "a" * 64


class Shelf:
    """A store, a clock that is moved by hand, and looks at it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = BEGIN
        self.live: set[str] = set()

    def refer(self, *named: StoredReference | str) -> None:
        self.live = {prefix for name in named for prefix in prefixes_in(name if isinstance(name, str) else name.digest)}

    def later(self, days: float) -> None:
        self.now += timedelta(days=days)

    def now_written(self, *paths: Path) -> None:
        for path in paths:
            os.utime(path, (self.now.timestamp(),) * 2)

    def plan(self, **fields: object) -> CollectionPlan:
        plan = {
            "namespace": "team",
            "claim": "finetune-artifacts",
            "as_of": self.now,
            "live": tuple(sorted(self.live)),
            "minimum_age_seconds": WEEK,
        }
        return CollectionPlan.model_validate({**plan, **fields})

    def look(self, plan: CollectionPlan | None = None) -> CollectionResult:
        return collect(plan or self.plan(), self.store, clock=self.now.timestamp)

    def look_daily(self, days: int) -> list[CollectionResult]:
        results = []
        for _ in range(days):
            results.append(self.look())
            self.later(1)
        return results

    def has(self, ref: StoredReference) -> bool:
        return self.store.path(ref).exists()


@pytest.fixture
def shelf(store: Store) -> Shelf:
    return Shelf(store)


def test_what_nothing_refers_to_goes_after_the_minimum_age(shelf: Shelf, publish: Publish) -> None:
    model, other = publish(), publish({"config.json": "{1}"})
    size = sum(path.stat().st_size for path in shelf.store.path(model).rglob("*") if path.is_file())
    shelf.refer(other)
    *looks, last = shelf.look_daily(8)
    assert [(result.removed, result.waiting, result.in_use) for result in looks] == [(0, 1, 1)] * 7
    assert (last.removed, last.waiting, last.in_use, last.bytes) == (1, 0, 1, size)
    assert not shelf.has(model)
    assert shelf.store.holds(other)


def test_a_reference_that_came_back_starts_the_wait_anew(shelf: Shelf, publish: Publish) -> None:
    model = publish()
    shelf.look_daily(6)
    shelf.refer(model)
    shelf.look_daily(1)
    shelf.refer()
    assert sum(result.removed for result in shelf.look_daily(7)) == 0
    assert shelf.look().removed == 1


def test_a_use_keeps_what_was_marked_long_ago(shelf: Shelf, publish: Publish) -> None:
    model = publish()
    shelf.look_daily(7)
    assert shelf.store.holds(model)  # a stage pod finds it
    shelf.now_written(shelf.store.path(model))
    assert shelf.look().removed == 0
    shelf.later(6)
    shelf.look()
    shelf.later(1)
    assert shelf.look().removed == 1


def test_what_is_in_use_keeps_what_it_was_made_from(shelf: Shelf, publish: Publish) -> None:
    base, dataset = publish(), publish({"train.parquet": "rows"}, StoredKind.DATASET)
    with shelf.store.workspace(StoredKind.ARTIFACT) as work:
        (work / "adapter.safetensors").write_text("weights")
        lineage = {"base": base.digest, "dataset": dataset.digest, "runKey": RUN}
        artifact = shelf.store.publish(StoredKind.ARTIFACT, work, lineage)
    result = training_result(RUN)
    assert result.artifact is not None
    found = result.artifact.model_copy(update={"digest": artifact.digest, "uri": artifact.uri})
    shelf.store.publish_outcome(result.model_copy(update={"artifact": found}))
    shelf.refer(RUN)
    for result_ in shelf.look_daily(9):
        assert (result_.in_use, result_.removed) == (4, 0)
    shelf.refer()
    assert [result.removed for result in shelf.look_daily(8)] == [0] * 7 + [4]
    assert shelf.store.outcome(RUN) is None


def test_an_export_stays_with_its_reference_and_goes_with_its_pointer(shelf: Shelf, publish: Publish) -> None:
    base, artifact = publish(), publish({"adapter.safetensors": "weights"}, StoredKind.ARTIFACT)
    with shelf.store.workspace(StoredKind.EXPORT) as work:
        (work / "model.safetensors").write_text("weights")
        lineage = {"base": base.digest, "artifact": artifact.digest}
        export = shelf.store.publish(StoredKind.EXPORT, work, lineage)
    shelf.store.point("f" * 64, export.digest)
    shelf.refer(export)
    for result in shelf.look_daily(9):
        assert (result.in_use, result.removed) == (3, 0)
    assert shelf.store.pointer("f" * 64) == export.digest
    shelf.refer()
    assert [result.removed for result in shelf.look_daily(8)] == [0] * 7 + [3]
    assert shelf.store.pointer("f" * 64) is None


def test_the_checkpoints_of_a_succeeded_run_go_and_its_outcome_stays(shelf: Shelf, publish: Publish) -> None:
    artifact = publish({"adapter.safetensors": "weights"}, StoredKind.ARTIFACT)
    result = training_result(RUN)
    assert result.artifact is not None
    found = result.artifact.model_copy(update={"digest": artifact.digest, "uri": artifact.uri})
    shelf.store.publish_outcome(result.model_copy(update={"artifact": found}))
    checkpoint = shelf.store.run_directory(RUN) / "checkpoints" / "pod-a" / "checkpoint-10"
    checkpoint.mkdir(parents=True)
    (checkpoint / "optimizer.pt").write_text("state")
    unfinished = shelf.store.run_directory("b" * 64) / "checkpoints" / "pod-a" / "checkpoint-10"
    unfinished.mkdir(parents=True)
    shelf.refer(RUN, "b" * 64)
    shelf.now_written(checkpoint / "optimizer.pt")
    assert shelf.look().checkpoints_removed == 0
    shelf.later(7)
    result_ = shelf.look()
    assert (result_.checkpoints_removed, result_.bytes, result_.removed) == (1, 5, 0)
    assert not checkpoint.exists()
    assert unfinished.exists()
    assert shelf.store.outcome(RUN) is not None


def test_a_run_that_is_written_to_stays(shelf: Shelf) -> None:
    state = shelf.store.run_directory(RUN) / "checkpoints" / "pod-a" / "checkpoint-10" / "optimizer.pt"
    state.parent.mkdir(parents=True)
    for day in range(10):
        state.write_text(str(day))
        shelf.now_written(state)
        assert shelf.look().removed == 0
        shelf.later(1)


@pytest.mark.parametrize(
    ("days_old", "said"),
    [(4, "too long ago to delete by it"), (-1, "")],
    ids=["older than half the age", "ahead of us"],
)
def test_an_old_plan_decides_nothing(shelf: Shelf, publish: Publish, days_old: float, said: str) -> None:
    publish()
    shelf.look_daily(7)
    plan = shelf.plan(as_of=shelf.now - timedelta(days=days_old))
    if said:
        with pytest.raises(FineTuneError, match=said) as raised:
            shelf.look(plan)
        assert raised.value.reason is FailureReason.INVALID_PLAN
    else:
        shelf.look(plan)


def test_an_earlier_look_is_not_acted_on_after_a_later_one(shelf: Shelf) -> None:
    earlier = shelf.plan()
    shelf.later(0.1)
    shelf.look()
    with pytest.raises(FineTuneError, match="a later look"):
        shelf.look(earlier)


def test_marks_from_before_a_long_silence_count_no_more(shelf: Shelf, publish: Publish) -> None:
    publish()
    shelf.look()
    shelf.later(8)
    assert shelf.look().removed == 0
    assert [result.removed for result in shelf.look_daily(8)] == [0] * 7 + [1]


def test_a_damaged_ledger_only_delays(shelf: Shelf, publish: Publish) -> None:
    publish()
    shelf.look_daily(7)
    (shelf.store.root / "collection.json").write_text("{")
    assert shelf.look().removed == 0


def test_a_volume_that_namespaces_share_is_left_alone(shelf: Shelf, publish: Publish) -> None:
    publish()
    shelf.look_daily(7)
    retention.register(shelf.store.root, "another-team")
    with pytest.raises(FineTuneError, match="another-team keep things in the same place"):
        shelf.look()


def test_what_is_not_named_like_ours_is_not_ours(shelf: Shelf) -> None:
    for name in ("models/my-own", "runs/notes", f"datasets/{'g' * 64}", f"elsewhere/{'a' * 64}"):
        (shelf.store.root / name).mkdir(parents=True)
    shelf.look_daily(9)
    assert (shelf.store.root / "models" / "my-own").exists()
    assert (shelf.store.root / "runs" / "notes").exists()
    assert (shelf.store.root / "datasets" / ("g" * 64)).exists()
    assert (shelf.store.root / "elsewhere" / ("a" * 64)).exists()


def test_a_pointer_to_a_model_that_is_gone_goes_too(shelf: Shelf, publish: Publish) -> None:
    gone, stays = publish(), publish({"config.json": "{1}"})
    folder = shelf.store.root / "sources"
    folder.mkdir()
    for name, ref in (("gone", gone), ("stays", stays)):
        (folder / f"{name}.json").write_text(json.dumps({"digest": ref.digest}))
    shelf.refer(stays)
    shelf.look_daily(8)
    assert [path.name for path in folder.iterdir()] == ["stays.json"]


def test_what_a_dead_collector_set_aside_is_judged_anew(shelf: Shelf, publish: Publish) -> None:
    wanted, unwanted = publish(), publish({"config.json": "{1}"})
    shelf.refer(wanted)
    shelf.look_daily(7)
    for ref in (wanted, unwanted):
        retention.set_aside(shelf.store.root, shelf.store.path(ref))
    assert shelf.look().removed == 1
    assert shelf.store.holds(wanted)
    assert not shelf.has(unwanted)
    assert retention.all_aside(shelf.store.root) == []


def test_what_was_published_again_beside_its_aside_stays(shelf: Shelf, publish: Publish) -> None:
    ref = publish()
    aside = retention.set_aside(shelf.store.root, shelf.store.path(ref))
    assert not shelf.has(ref)
    copy = aside.with_name("copy")
    aside.rename(copy)
    publish()
    copy.rename(aside)
    shelf.refer(ref)
    shelf.look()
    assert shelf.store.holds(ref)
    assert not aside.exists()


def test_a_reader_brings_back_what_was_set_aside(store: Store, publish: Publish) -> None:
    ref = publish()
    retention.set_aside(store.root, store.path(ref))
    assert store.holds(ref)


def test_adopting_a_run_uses_it_and_its_artifact(store: Store, publish: Publish) -> None:
    artifact = publish({"adapter.safetensors": "weights"}, StoredKind.ARTIFACT)
    result = training_result(RUN)
    assert result.artifact is not None
    found = result.artifact.model_copy(update={"digest": artifact.digest, "uri": artifact.uri})
    store.publish_outcome(result.model_copy(update={"artifact": found}))
    paths = [store.root / "runs" / RUN, store.path(artifact)]
    for path in paths:
        os.utime(path, (1e9, 1e9))
    retention.set_aside(store.root, paths[1])
    assert store.outcome(RUN) is not None
    assert all(retention.last_use(path) > 1e9 for path in paths)


def test_using_a_part_uses_the_whole(store: Store, publish: Publish) -> None:
    path = store.path(publish())
    os.utime(path, (1e9, 1e9))
    retention.use(store.root, path / "weights")
    assert retention.last_use(path) > 1e9


def test_a_volume_that_is_mounted_read_only_can_be_read(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = publish()

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    store.verify(ref)
    monkeypatch.setattr(os, "utime", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        store.verify(ref)


def test_a_run_that_was_set_aside_is_found(store: Store) -> None:
    (store.run_directory(RUN) / "note").write_text("here")
    retention.set_aside(store.root, store.root / "runs" / RUN)
    assert (store.run_directory(RUN) / "note").read_text() == "here"


def test_digests_are_found_wherever_they_stand() -> None:
    digest, key = "0123456789ab" + "c" * 52, "f" * 64
    text = json.dumps({"data": {"plan.json": json.dumps({"digest": f"sha256:{digest}", "uri": f"pvc://a/runs/{key}"})}})
    assert prefixes_in(text) == {"0123456789ab", "f" * 12}
    assert prefixes_in("a" * 63 + " " + "a" * 65) == set()


def test_the_command_leaves_its_result(store: Store, publish: Publish, tmp_path: Path) -> None:
    publish()
    plan, log = tmp_path / "plan.json", tmp_path / "log"
    document = CollectionPlan(
        namespace="team", claim=store.claim, as_of=datetime.now(UTC), minimum_age_seconds=WEEK, live=()
    )
    plan.write_text(document.to_json())
    options = ["--plan", str(plan), "--store", str(store.root), "--termination-log", str(log)]
    assert main(["collect", *options]) == 0
    assert CollectionResult.model_validate_json(log.read_bytes()) == CollectionResult(waiting=1)
    assert len(Ledger.model_validate_json((store.root / "collection.json").read_bytes()).unreferenced_since) == 1
    retention.register(store.root, "another-team")
    assert main(["collect", *options]) == 74
    failure = CollectionResult.model_validate_json(log.read_bytes()).failure
    assert failure is not None
    assert failure.reason is FailureReason.STORAGE_UNAVAILABLE
