"""How pods are asked. What a pod says is untrusted: bounded in time and size, no redirects, checked by the contract."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import ClassVar, Generic, TypeVar

import aiohttp

from finetune_contract.base import Document
from finetune_contract.paths import PROGRESS_LIMIT
from finetune_operator.cache import Cache
from finetune_operator.entries import Key, RunningPod

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Pods that are asked at a time."""

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)

D = TypeVar("D", bound=Document)
Place = TypeVar("Place", bound=Hashable)
Answer = TypeVar("Answer")


def pod_session() -> aiohttp.ClientSession:
    """For `ask`. No cookies: pods share nothing through us."""
    return aiohttp.ClientSession(timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar())


def host_of(pod: RunningPod) -> str:
    """A pod's address as it stands in a URL."""
    return f"[{pod.address}]" if ":" in pod.address else pod.address


async def read(session: aiohttp.ClientSession, url: str, limit: int) -> bytes:
    """What a pod answers.

    Raises:
        aiohttp.ClientError, TimeoutError, OSError: When it does not.
        ValueError: When that is more than `limit` bytes.
    """
    async with session.get(url, allow_redirects=False) as response:
        response.raise_for_status()
        text = await response.content.read(limit + 1)
        while len(text) <= limit and (more := await response.content.read(limit)):
            text += more
    if len(text) > limit:
        raise ValueError(f"more than {limit} bytes")
    return text


async def ask(session: aiohttp.ClientSession, url: str, model: type[D]) -> D | str:
    """What a pod answers; `unreachable` or `invalid` where that is nothing."""
    try:
        return model.model_validate_json(await read(session, url, PROGRESS_LIMIT))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        log.debug("%s does not answer: %r", url, error)
        return "unreachable"
    except ValueError as error:
        log.info("%s answers nonsense: %s", url, error)
        return "invalid"


class PodPoller(ABC, Generic[Place, Answer]):
    """Asks some pods round after round, keeps what they say in the cache, and has a resource with news looked at.

    Best effort: a pod that does not answer has not failed, and what it said last stays.
    """

    PORT: ClassVar[int]

    def __init__(
        self,
        cache: Cache,
        look_at: Callable[[Key, float], None],
        period: float,
        per_second: float,
        port: int | None = None,
    ) -> None:
        """`look_at(key, seconds)` is called where there is news, spread so that no more than `per_second` come due."""
        self._cache = cache
        self._look_at = look_at
        self._period = period
        self._per_second = per_second
        self._port = self.PORT if port is None else port

    @property
    @abstractmethod
    def _kept(self) -> dict[Place, Answer]:
        """The part of the cache that is kept."""

    @abstractmethod
    def _pods(self) -> Mapping[Place, RunningPod]:
        """Whom to ask in this round, by where the answer is kept; what nobody is asked for any more is forgotten."""

    @abstractmethod
    async def _ask(self, session: aiohttp.ClientSession, pod: RunningPod) -> Answer | None:
        """What a pod says; None where that is nothing."""

    async def run(self) -> None:
        """Ask for ever."""
        async with pod_session() as session:
            while True:
                await self.poll(session)
                await asyncio.sleep(self._period)

    async def poll(self, session: aiohttp.ClientSession) -> None:
        """One round: ask each pod once."""
        pods = self._pods()
        for place in self._kept.keys() - pods.keys():
            del self._kept[place]
        turns = asyncio.Semaphore(AT_ONCE)

        async def news(place: Place, pod: RunningPod) -> Key | None:
            async with turns:
                answer = await self._ask(session, pod)
            if answer is None or answer == self._kept.get(place):
                return None
            self._kept[place] = answer
            return pod.key

        answers = await asyncio.gather(*(news(place, pod) for place, pod in pods.items()))
        changed = dict.fromkeys(key for key in answers if key is not None)
        for turn, key in enumerate(changed):
            self._look_at(key, turn / self._per_second)

    def _url(self, pod: RunningPod, path: str) -> str:
        return f"http://{host_of(pod)}:{self._port}{path}"
