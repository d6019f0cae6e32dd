"""Asks running training pods how far they are. Best effort: a pod that does not answer has not failed.

What a pod says is untrusted: bounded in time and size, no redirects, checked against the contract.
"""

import asyncio
import logging
from collections.abc import Callable

import aiohttp
from pydantic import ValidationError

from finetune_contract.paths import POD_PORT, PROGRESS_LIMIT
from finetune_contract.results import Progress
from finetune_operator import metrics
from finetune_operator.cache import Cache
from finetune_operator.entries import Key, TrainingPod

log = logging.getLogger(__name__)

TIMEOUT = aiohttp.ClientTimeout(total=2.0)
AT_ONCE = 16
"""Pods that are asked at a time."""


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
        # No cookies: pods share nothing through us.
        async with aiohttp.ClientSession(timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                await self.poll(session)
                await asyncio.sleep(self._period)

    async def poll(self, session: aiohttp.ClientSession) -> None:
        """Ask each pod once."""
        newest: dict[Key, TrainingPod] = {}
        for pod in sorted(self._cache.training_pods(), key=lambda pod: (pod.created, pod.uid)):
            newest[pod.key] = pod
        for key in set(self._cache.progress) - set(newest):
            del self._cache.progress[key]
        turns = asyncio.Semaphore(AT_ONCE)

        async def ask(pod: TrainingPod) -> Key | None:
            async with turns:
                progress = await self._ask(session, pod)
            if progress is None or progress == self._cache.progress.get(pod.key):
                return None
            self._cache.progress[pod.key] = progress
            return pod.key

        changed = [key for key in await asyncio.gather(*map(ask, newest.values())) if key is not None]
        for turn, key in enumerate(changed):
            self._look_at(key, turn / self._per_second)

    async def _ask(self, session: aiohttp.ClientSession, pod: TrainingPod) -> Progress | None:
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        try:
            async with session.get(f"http://{host}:{self._port}/progress", allow_redirects=False) as response:
                response.raise_for_status()
                text = await response.content.read(PROGRESS_LIMIT + 1)
                while len(text) <= PROGRESS_LIMIT and (more := await response.content.read(PROGRESS_LIMIT)):
                    text += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("%s of %s does not answer: %r", pod.uid, pod.key, error)
            metrics.PROGRESS_POLLS.labels("unreachable").inc()
            return None
        try:
            if len(text) > PROGRESS_LIMIT:
                raise ValueError(f"more than {PROGRESS_LIMIT} bytes")
            progress = Progress.model_validate_json(text)
        except (ValidationError, ValueError) as error:
            log.info("%s of %s answers nonsense: %s", pod.uid, pod.key, error)
            metrics.PROGRESS_POLLS.labels("invalid").inc()
            return None
        metrics.PROGRESS_POLLS.labels("ok").inc()
        return progress
