"""Asks the probers of serving pods that are not ready what keeps their adapters. Best effort, as with progress."""

import asyncio
from collections.abc import Callable

import aiohttp

from finetune_contract.paths import PROBER_PORT
from finetune_contract.proof import ProofStatus
from finetune_operator.cache import Cache
from finetune_operator.entries import Key, RunningPod
from finetune_operator.pods import AT_ONCE, ask, host_of, pod_session


class ProofPoller:
    """Keeps `cache.proofs`."""

    def __init__(
        self,
        cache: Cache,
        look_at: Callable[[Key, float], None],
        period: float,
        per_second: float,
        port: int = PROBER_PORT,
    ) -> None:
        """`look_at(key, seconds)` is called for deployments with news, no more than `per_second` of them."""
        self._cache = cache
        self._look_at = look_at
        self._period = period
        self._per_second = per_second
        self._port = port

    async def run(self) -> None:
        """Ask for ever."""
        async with pod_session() as session:
            while True:
                await self.poll(session)
                await asyncio.sleep(self._period)

    async def poll(self, session: aiohttp.ClientSession) -> None:
        """Ask each prober once."""
        pods = {pod.uid: pod for pod in self._cache.unproven_pods()}
        for uid in self._cache.proofs.keys() - pods.keys():
            del self._cache.proofs[uid]
        turns = asyncio.Semaphore(AT_ONCE)

        async def news(pod: RunningPod) -> Key | None:
            async with turns:
                answer = await ask(session, f"http://{host_of(pod)}:{self._port}/status", ProofStatus)
            if isinstance(answer, str) or answer == self._cache.proofs.get(pod.uid):
                return None
            self._cache.proofs[pod.uid] = answer
            return pod.key

        changed = [key for key in await asyncio.gather(*map(news, pods.values())) if key is not None]
        for turn, key in enumerate(dict.fromkeys(changed)):
            self._look_at(key, turn / self._per_second)
