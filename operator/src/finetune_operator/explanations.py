"""Reads the Events about children that do not get on, and says when it is worth while to read again.

Events are neither watched nor cached: a cluster has more of them than of anything else, and almost all are about
objects that are not ours. They are asked for only while something is in doubt, in a list per namespace, kind and
reason that all passes of some seconds share: a thousand Jobs that are refused by one quota cost no more than one.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from finetune_operator.cluster import Cluster
from finetune_operator.errors import ClusterError
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.troubles import EVENT_REASONS, NO_REPORTS, Doubt, Reports, reports_of

log = logging.getLogger(__name__)

PATIENCE = 1.0
"""Seconds that an object gets to go on by itself, as nearly all do, before anybody asks."""
KEPT = 2.0
"""Seconds that a list is used for other passes."""
FIRST_LOOK = 2.0
LAST_LOOK = 30.0
"""Shortest and longest time between two looks in seconds; between them, a quarter of the doubt's age."""
LARGEST_MEMO = 1000
"""Lists that are remembered."""


class Explanations:
    """What Events say about objects in doubt."""

    def __init__(self, cluster: Cluster, now: Callable[[], datetime]) -> None:
        """`now` is the clock of the objects' time stamps."""
        self._cluster = cluster
        self._now = now
        self._memo: dict[tuple[str, str, str], tuple[datetime, tuple[Manifest, ...]]] = {}

    async def about(self, namespace: str, doubts: Sequence[Doubt]) -> Reports:
        """What is known; nothing while all doubts are fresh, and nothing where Events may not be read."""
        now = self._now()
        kinds = {doubt.kind for doubt in doubts if (now - doubt.since).total_seconds() >= PATIENCE}
        if not kinds:
            return NO_REPORTS
        events: list[Manifest] = []
        for kind in sorted(kinds):
            for reason in EVENT_REASONS[kind]:
                events += await self._events(namespace, kind, reason)
        return reports_of(doubts, events)

    def next_look(self, doubts: Sequence[Doubt]) -> float | None:
        """Seconds until the Events should be read again; None where nothing is in doubt."""
        now = self._now()
        youngest = min(((now - doubt.since).total_seconds() for doubt in doubts), default=None)
        return None if youngest is None else min(LAST_LOOK, max(FIRST_LOOK, youngest / 4))

    async def _events(self, namespace: str, kind: str, reason: str) -> tuple[Manifest, ...]:
        now, place = self._now(), (namespace, kind, reason)
        known = self._memo.get(place)
        if known is not None and (now - known[0]).total_seconds() < KEPT:
            return known[1]
        try:
            found = await self._cluster.events_about(namespace, kind, reason)
        except ClusterError as error:
            # An explanation is a courtesy: without it, the pass goes on and says what it knows.
            log.info("events in %s could not be read: %s", namespace, error)
            found = ()
        if len(self._memo) >= LARGEST_MEMO:
            self._memo.clear()
        self._memo[place] = (now, found)
        return found
