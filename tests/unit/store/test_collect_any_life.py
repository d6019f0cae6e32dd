"""The collector never deletes what a status refers to, whatever happens between any two of its steps.

Operators copy references from status to status and drop them, pods find or make content and report it later, looks
are taken piece by piece, and collectors act on them late, while all of that goes on, or die in the middle.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.base import StoredReference
from finetune_contract.collection import CollectionPlan, prefixes_in
from finetune_contract.failure import FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_store import retention
from finetune_store.collect import collect
from finetune_store.collection import Collection
from finetune_store.manifests import verify_directory
from finetune_store.store import Store

HOUR = 3600.0
MINIMUM_AGE = 4 * HOUR
LONGEST_FLIGHT = MINIMUM_AGE / 2 - 1
"""What a pod has found is in its termination message within this time."""
REAL_TIMES_END = 1.9e9
CONTENTS = ("one", "two")
SOURCES, COPIES = ("dataset", "upstream"), ("job", "deployment")
"""Statuses that get references from pods, and those that get them from other statuses."""


class Died(BaseException):
    """The collector's pod is gone."""


class Life:
    """A store, the statuses that refer to it, and the pods at work on it."""

    def __init__(self, root: Path, actions: list[tuple[str, int]]) -> None:
        self.store = Store(root, "claim")
        self.seconds = 2e9
        self.actions: Iterator[tuple[str, int]] = iter(actions)
        self.statuses: dict[str, StoredReference] = {}
        self.flights: dict[str, tuple[float, StoredReference]] = {}
        self.looking: tuple[float, set[str]] | None = None
        self.looked: tuple[float, set[str]] | None = None
        self.is_collecting = False
        self.steps = 0
        self.dies_at = 0
        self.meanwhile = 0
        self.deleted = 0

    def live(self) -> None:
        for action in self.actions:
            self.act(*action)

    def act(self, name: str, number: int) -> None:
        getattr(self, name)(number)
        self.stamp()
        self.check()

    # --- what may happen ---

    def find(self, number: int) -> None:
        """A pod makes content, or finds that it is there; nobody knows of it yet."""
        with self.store.workspace(StoredKind.MODEL) as work:
            (work / "config.json").write_text(CONTENTS[number % 2])
            ref = self.store.publish(StoredKind.MODEL, work, {})
        self.flights[SOURCES[number % 4 // 2]] = self.seconds, ref

    def report(self, number: int) -> None:
        """The pod ends, and its result gets into a status."""
        name = SOURCES[number % 2]
        if name in self.flights:
            self.statuses[name] = self.flights.pop(name)[1]

    def adopt(self, number: int) -> None:
        """Both at once."""
        self.find(number)
        self.report(number // 2)

    def copy(self, number: int) -> None:
        """The operator takes a reference over into another resource's status."""
        source = SOURCES[number % 2]
        if source in self.statuses:
            self.statuses[COPIES[number % 4 // 2]] = self.statuses[source]

    def drop(self, number: int) -> None:
        """An object is deleted, or refers to something else."""
        self.statuses.pop((*SOURCES, *COPIES)[number % 4], None)

    def read(self, number: int) -> None:
        """A pod reads what its plan refers to."""
        ref = self.statuses.get((*SOURCES, *COPIES)[number % 4])
        if ref is not None:
            self.store.verify(ref)

    def wait(self, number: int) -> None:
        seconds = (0, 1, 2.1, 4.1)[number % 4] * HOUR
        self.seconds += seconds
        for name, (since, _) in list(self.flights.items()):
            if self.seconds - since > LONGEST_FLIGHT:
                del self.flights[name]  # too slow: its Job is tried again, and finds it anew

    def look(self, _: int) -> None:
        """The operator lists sources first, and what copies from them after."""
        if self.looking is None:
            self.looking = self.seconds, self.named(SOURCES)
        else:
            began, found = self.looking
            self.looked, self.looking = (began, found | self.named(COPIES)), None

    def collect(self, number: int) -> None:
        """A collector acts on the last look; other things happen at its steps, and perhaps it dies at one."""
        if self.looked is None or self.is_collecting:
            return
        self.is_collecting, self.steps, self.dies_at, self.meanwhile = True, 0, number % STEPS, number // STEPS
        began, prefixes = self.looked
        plan = CollectionPlan(
            namespace="team",
            claim="claim",
            as_of=datetime.fromtimestamp(began, UTC),
            minimum_age_seconds=MINIMUM_AGE,
            live=tuple(sorted(prefixes)),
        )
        with self.steps_watched(), suppress(FineTuneError, Died):
            self.deleted += collect(plan, self.store, self.clock).removed
        self.is_collecting = False

    # --- inside ---

    def step(self) -> None:
        """Between two of the collector's steps."""
        self.stamp()
        self.check()
        self.steps += 1
        if self.steps == self.dies_at:
            raise Died
        if self.meanwhile > 0 and (action := next(self.actions, None)):
            self.meanwhile -= 1
            self.act(*action)

    def clock(self) -> float:
        """The collector's; while it looks, things happen."""
        now = self.seconds
        self.step()
        return now

    @contextmanager
    def steps_watched(self) -> Iterator[None]:
        """Things happen right after a directory was set aside, too, and right before and after it is moved for good."""
        set_aside, discard = retention.set_aside, Collection._discard

        def set_aside_watched(root: Path, directory: Path) -> Path:
            aside = set_aside(root, directory)
            self.step()
            return aside

        def discard_watched(this: Collection, path: Path) -> int:
            self.step()
            size = discard(this, path)
            self.step()
            return size

        with (
            patch.object(retention, "set_aside", set_aside_watched),
            patch.object(Collection, "_discard", discard_watched),
        ):
            yield

    def named(self, names: tuple[str, ...]) -> set[str]:
        digests = (self.statuses[name].digest for name in names if name in self.statuses)
        return {prefix for digest in digests for prefix in prefixes_in(digest)}

    def stamp(self) -> None:
        """What was written or used since the last call happened now."""
        for path in (self.store.root, *self.store.root.rglob("*")):
            if path.stat().st_mtime < REAL_TIMES_END:
                os.utime(path, (self.seconds, self.seconds))

    def check(self) -> None:
        aside = {place: path for path, place in retention.all_aside(self.store.root)}
        for name, ref in self.statuses.items():
            place = self.store.path(ref)
            there = place if place.exists() else aside.get(place)
            assert there is not None, f"{name} refers to {ref.uri}, which is gone"
            assert verify_directory(there).digest == ref.digest


STEPS = 8
"""More than a collector takes to delete one thing."""
NAMES = ("find", "report", "adopt", "copy", "drop", "read", "wait", "wait", "look", "look", "collect", "collect")
ACTIONS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 5 * STEPS)), max_size=40)

LOOK: list[tuple[str, int]] = [("look", 0), ("look", 0)]
LOOK_AND_COLLECT = [*LOOK, ("collect", 0)]
ONE_IS_DUE = [("find", 0), ("wait", 3), *LOOK_AND_COLLECT, ("wait", 2), *LOOK_AND_COLLECT, ("wait", 2), *LOOK]
"""Content that nobody refers to, and a look after which the next collector deletes it."""
FOUND: list[tuple[str, int]] = [("find", 0), ("report", 0), ("copy", 0)]


def lived(actions: list[tuple[str, int]]) -> Life:
    with tempfile.TemporaryDirectory() as root:
        life = Life(Path(root), actions)
        life.live()
        for ref in life.statuses.values():
            life.store.verify(ref)  # as a pod does, which brings back what a dead collector has set aside
        return life


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([[], ONE_IS_DUE]), ACTIONS)
def test_what_a_status_refers_to_is_never_deleted(
    before: list[tuple[str, int]], actions: list[tuple[str, int]]
) -> None:
    lived([*before, *actions])


@pytest.mark.parametrize("dies_at", range(STEPS))
@pytest.mark.parametrize("delay", range(STEPS))
def test_content_found_at_any_step_of_its_deletion_stays(delay: int, dies_at: int) -> None:
    nothing: list[tuple[str, int]] = [("wait", 0)] * delay
    life = lived([*ONE_IS_DUE, ("collect", (delay + 3) * STEPS + dies_at), *nothing, *FOUND])
    assert set(life.statuses) == {"dataset", "job"}


@pytest.mark.parametrize("delay", range(4))
def test_a_collector_that_stood_still_for_hours_deletes_nothing(delay: int) -> None:
    nothing: list[tuple[str, int]] = [("wait", 0)] * delay
    life = lived([*ONE_IS_DUE, ("collect", 8 * STEPS), *nothing, ("adopt", 0), ("wait", 3)])
    assert set(life.statuses) == {"dataset"}
    assert life.seconds - 2e9 > 3 * MINIMUM_AGE


def test_what_nothing_refers_to_is_deleted() -> None:
    assert lived([*ONE_IS_DUE, ("collect", 0)]).deleted == 1
    assert lived([*ONE_IS_DUE, ("find", 0), ("report", 0), ("collect", 0)]).deleted == 0
