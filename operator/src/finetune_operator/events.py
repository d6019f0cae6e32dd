"""Kubernetes Events on our resources: the same words become one Event with a count, and nobody is flooded.

Events are for people who watch; nothing decides by them, so a failure to post one is only logged.
"""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from finetune_operator.cluster import Cluster
from finetune_operator.errors import ClusterError
from finetune_operator.manifests.naming import MANAGER, Manifest
from finetune_operator.reconcile.outcome import Event

log = logging.getLogger(__name__)

BURST = 25
"""Events on one object at once; client-go's figure."""
REFILL_SECONDS = 300.0
"""Seconds after which one more is allowed; client-go's figure."""
REMEMBERED = 4096
"""Objects and Events that are remembered; the oldest are forgotten."""
LONGEST_NOTE = 1024
"""Bytes of a note that the API server accepts."""


class Allowance(NamedTuple):
    """Events that an object may still have."""

    left: float
    at: datetime


class Recorder:
    """Posts Events."""

    def __init__(self, cluster: Cluster, reporter: str, now: Callable[[], datetime]) -> None:
        """`reporter` is this replica's name."""
        self._cluster = cluster
        self._reporter = reporter
        self._now = now
        self._allowances: OrderedDict[str, Allowance] = OrderedDict()
        self._counts: OrderedDict[str, int] = OrderedDict()

    async def post(self, resource: Manifest, event: Event) -> None:
        """Post an Event on a resource, if it has not had too many."""
        uid = resource["metadata"]["uid"]
        if not self._is_allowed(uid):
            log.debug("too many events on %s: %s dropped", uid, event.reason)
            return
        manifest = self._manifest(resource, event)
        name = manifest["metadata"]["name"]
        count = self._counts[name] = self._counts.pop(name, 0) + 1
        _cut(self._counts)
        try:
            await self._cluster.record(manifest, count)
        except ClusterError as error:
            log.info("event %s on %s was not posted: %s", event.reason, resource["metadata"]["name"], error)

    def _is_allowed(self, uid: str) -> bool:
        now = self._now()
        left, at = self._allowances.pop(uid, Allowance(BURST, now))
        left = min(float(BURST), left + (now - at).total_seconds() / REFILL_SECONDS)
        allowed = left >= 1
        self._allowances[uid] = Allowance(left - allowed, now)
        _cut(self._allowances)
        return allowed

    def _manifest(self, resource: Manifest, event: Event) -> Manifest:
        metadata = resource["metadata"]
        note = event.message.encode()[:LONGEST_NOTE].decode(errors="ignore")
        digest = hashlib.sha256(f"{metadata['uid']} {event.reason} {note}".encode()).hexdigest()[:16]
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name'][:200]}.{digest}", "namespace": metadata["namespace"]},
            "eventTime": self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": MANAGER,
            "reportingInstance": self._reporter[:128],
            "action": "Reconcile",
            "type": event.type,
            "reason": event.reason,
            "note": note,
            "regarding": {
                "apiVersion": resource["apiVersion"],
                "kind": resource["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
        }


def _cut(remembered: OrderedDict[str, Allowance] | OrderedDict[str, int]) -> None:
    if len(remembered) > REMEMBERED:
        remembered.popitem(last=False)
