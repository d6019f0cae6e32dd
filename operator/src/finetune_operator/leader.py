"""Which replica works: a Lease that one holds, renews and gives back.

Time is measured by the local monotonic clock alone: a lease is free when its record has not changed for its duration
as seen from here, so clocks of nodes may differ. Two leaders for a moment are harmless (every write is idempotent or
checked by version); the lease only saves work.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from finetune_operator import metrics
from finetune_operator.cluster import Cluster
from finetune_operator.errors import ClusterError, NotFound
from finetune_operator.manifests.naming import MANAGER, Manifest

log = logging.getLogger(__name__)


class LeadershipLostError(Exception):
    """The lease could not be renewed in time: another replica may work now, so this one must stop at once."""


class Elector:
    """One candidate for the lease."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        identity: str,
        duration: float,
        renew_within: float,
        retry: float,
        monotonic: Callable[[], float],
    ) -> None:
        """All times are seconds.

        A lease is free `duration` after its last change, a leader gives up when it has not renewed it for
        `renew_within`, and both look every `retry`.
        """
        self._cluster = cluster
        self._namespace = namespace
        self._identity = identity
        self._duration = duration
        self._renew_within = renew_within
        self._retry = retry
        self._monotonic = monotonic
        self._seen: str | None = None
        """resourceVersion of the record that was seen last."""
        self._seen_at = 0.0
        self._renewed_at = 0.0
        self.leads = False

    async def campaign(self) -> None:
        """Return once this replica leads."""
        while not await self.attempt():  # noqa: ASYNC110 - waits for another process
            await asyncio.sleep(self._retry)

    async def hold(self) -> None:
        """Renew the lease for ever; raises LeadershipLostError."""
        while True:
            await asyncio.sleep(self._retry)
            await self.attempt()

    async def attempt(self) -> bool:
        """Take or renew the lease once; answers whether this replica leads. Raises LeadershipLostError."""
        asked_at = self._monotonic()
        try:
            async with asyncio.timeout(self._renew_within / 2):
                holds = await self._take_or_renew(asked_at)
        except (ClusterError, TimeoutError) as error:
            log.info("the lease was not %s: %s", "renewed" if self.leads else "taken", error or "time-out")
            holds = False
        else:
            if self.leads and not holds:
                raise LeadershipLostError("the lease belongs to another replica")
        if holds:
            # From before the request: the others count from when they see the change, which is later.
            self._renewed_at = asked_at
        elif self.leads and self._monotonic() - self._renewed_at >= self._renew_within:
            raise LeadershipLostError(f"the lease was not renewed for {self._renew_within:g} s")
        if holds and not self.leads:
            log.info("%s leads", self._identity)
        self.leads = self.leads or holds
        metrics.LEADER.set(self.leads)
        return self.leads

    async def release(self) -> None:
        """Give the lease back, so that another replica need not wait."""
        if not self.leads:
            return
        self.leads = False
        metrics.LEADER.set(0)
        try:
            async with asyncio.timeout(self._retry):
                lease = await self._cluster.get("Lease", self._namespace, MANAGER)
                if lease["spec"].get("holderIdentity") == self._identity:
                    lease["spec"].update(holderIdentity="", leaseDurationSeconds=1)
                    await self._cluster.replace(lease)
        except (ClusterError, TimeoutError) as error:
            log.info("the lease was not given back: %s", error or "time-out")

    async def _take_or_renew(self, now: float) -> bool:
        try:
            lease = await self._cluster.get("Lease", self._namespace, MANAGER)
        except NotFound:
            created = await self._cluster.create(self._lease())
            return bool(created["spec"].get("holderIdentity") == self._identity)
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen:
            self._seen, self._seen_at = version, now
        holder = lease["spec"].get("holderIdentity")
        if holder not in ("", None, self._identity) and now - self._seen_at < self._duration:
            return False
        renewed = self._lease(lease)
        # Refused if somebody else has written it since: then the next look decides.
        await self._cluster.replace(renewed)
        return True

    def _lease(self, lease: Manifest | None = None) -> Manifest:
        timestamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata = {"name": MANAGER, "namespace": self._namespace}
        if lease is not None:
            metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
        before = lease["spec"] if lease is not None else {}
        is_mine = before.get("holderIdentity") == self._identity
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": max(1, round(self._duration)),
                "acquireTime": before.get("acquireTime", timestamp) if is_mine else timestamp,
                "renewTime": timestamp,
                "leaseTransitions": int(before.get("leaseTransitions") or 0) + (not is_mine),
            },
        }
