"""Asks the probers of serving pods that are not ready what keeps their adapters."""

from collections.abc import Mapping

import aiohttp

from finetune_contract.paths import PROBER_PORT
from finetune_contract.proof import ProofStatus
from finetune_operator.entries import RunningPod
from finetune_operator.pods import PodPoller, ask


class ProofPoller(PodPoller[str, ProofStatus]):
    """Keeps `cache.proofs`."""

    PORT = PROBER_PORT

    @property
    def _kept(self) -> dict[str, ProofStatus]:
        return self._cache.proofs

    def _pods(self) -> Mapping[str, RunningPod]:
        return {pod.uid: pod for pod in self._cache.unproven_pods()}

    async def _ask(self, session: aiohttp.ClientSession, pod: RunningPod) -> ProofStatus | None:
        answer = await ask(session, self._url(pod, "/status"), ProofStatus)
        return None if isinstance(answer, str) else answer
