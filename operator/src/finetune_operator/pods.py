"""How pods are asked. What a pod says is untrusted: bounded in time and size, no redirects, checked by the contract."""

import logging
from typing import TypeVar

import aiohttp

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
