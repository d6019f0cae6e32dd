"""Asks running training pods how far they are. Best effort: a pod that does not answer has not failed."""

import asyncio
from collections.abc import Callable

import aiohttp

from finetune_contract.paths import POD_PORT
from finetune_contract.results import Progress
from finetune_operator import metrics
from finetune_operator.cache import Cache
from finetune_operator.entries import Key, RunningPod
from finetune_operator.pods import AT_ONCE, ask, host_of, pod_session


class Poller:
    """Asks the newest running training pod of each job."""

    def __init__(
        self,
        cache: Cache,
        look_at: Callable[[Key, float], None],
        period: float,
        per_second: float,
        port: int = POD_PORT,
    ) -> None:
        """`look_at(key, seconds)` is called for jobs with news, spread so that no more than `per_second` come due."""
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
        """Ask each pod once."""
        newest: dict[Key, RunningPod] = {}
        for pod in sorted(self._cache.training_pods(), key=lambda pod: (pod.created, pod.uid)):
            newest[pod.key] = pod
        for key in set(self._cache.progress) - set(newest):
            del self._cache.progress[key]
        turns = asyncio.Semaphore(AT_ONCE)

        async def news(pod: RunningPod) -> Key | None:
            async with turns:
                progress = await self._ask(session, pod)
            if progress is None or progress == self._cache.progress.get(pod.key):
                return None
            self._cache.progress[pod.key] = progress
            return pod.key

        changed = [key for key in await asyncio.gather(*map(news, newest.values())) if key is not None]
        for turn, key in enumerate(changed):
            self._look_at(key, turn / self._per_second)

    async def _ask(self, session: aiohttp.ClientSession, pod: RunningPod) -> Progress | None:
        answer = await ask(session, f"http://{host_of(pod)}:{self._port}/progress", Progress)
        metrics.PROGRESS_POLLS.labels(answer if isinstance(answer, str) else "ok").inc()
        return None if isinstance(answer, str) else answer
