"""How pods are asked. What a pod says is untrusted: bounded in time and size, no redirects, checked by the contract."""

import logging
from typing import TypeVar

import aiohttp
from pydantic import ValidationError

from finetune_contract.base import Document
from finetune_contract.paths import PROGRESS_LIMIT
from finetune_operator.entries import RunningPod

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Pods that are asked at a time."""

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)

D = TypeVar("D", bound=Document)


def pod_session() -> aiohttp.ClientSession:
    """For `ask`. No cookies: pods share nothing through us."""
    return aiohttp.ClientSession(timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar())


def host_of(pod: RunningPod) -> str:
    """A pod's address as it stands in a URL."""
    return f"[{pod.address}]" if ":" in pod.address else pod.address


async def ask(session: aiohttp.ClientSession, url: str, model: type[D]) -> D | str:
    """What a pod answers; `unreachable` or `invalid` where that is nothing."""
    try:
        async with session.get(url, allow_redirects=False) as response:
            response.raise_for_status()
            text = await response.content.read(PROGRESS_LIMIT + 1)
            while len(text) <= PROGRESS_LIMIT and (more := await response.content.read(PROGRESS_LIMIT)):
                text += more
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        log.debug("%s does not answer: %r", url, error)
        return "unreachable"
    try:
        if len(text) > PROGRESS_LIMIT:
            raise ValueError(f"more than {PROGRESS_LIMIT} bytes")
        return model.model_validate_json(text)
    except (ValidationError, ValueError) as error:
        log.info("%s answers nonsense: %s", url, error)
        return "invalid"
