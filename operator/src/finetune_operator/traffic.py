"""Asks the engines of canary pods how many requests they have answered and failed. Best effort, as with progress."""

import asyncio
import logging
from collections.abc import Callable

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from finetune_contract.paths import POD_PORT
from finetune_operator.cache import Cache
from finetune_operator.entries import Key, RunningPod
from finetune_operator.pods import AT_ONCE, host_of, pod_session, read
from finetune_operator.reconcile.observed import Traffic

log = logging.getLogger(__name__)

LIMIT = 4 * 1024 * 1024
"""Bytes of an engine's metrics: vLLM's histograms are long."""

_CLIENTS_FAULT = frozenset({"validation", "template", "overloaded", "cancelled", "dropped"})
"""Values of `err` in TGI's failures for which no other weights would have done better."""


def traffic_in(text: str) -> Traffic | None:
    """What an engine has counted: TGI's names, which ours has too, or those of vLLM's HTTP layer; None without either.

    Raises:
        ValueError: When it is not Prometheus' text format.
    """
    requests = errors = 0.0
    found = False
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # Parsers add _total to a counter's name.
            name, labels = sample.name.removesuffix("_total"), sample.labels
            if name == "tgi_request_count":
                requests, found = requests + sample.value, True
            elif name == "tgi_request_failure":
                errors += 0.0 if labels.get("err") in _CLIENTS_FAULT else sample.value
            elif name == "http_requests" and labels.get("handler", "").startswith("/v1/"):
                requests += sample.value
                errors += sample.value if labels.get("status", "").startswith("5") else 0.0
            # Without a request yet, neither has a line of the kind above.
            found = found or name in ("tgi_queue_size", "vllm:num_requests_waiting")
    return Traffic(round(requests), round(errors)) if found else None


class TrafficPoller:
    """Keeps `cache.traffic`."""

    def __init__(
        self,
        cache: Cache,
        look_at: Callable[[Key, float], None],
        period: float,
        per_second: float,
        port: int = POD_PORT,
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
        """Ask each canary pod once."""
        pods = {pod.uid: pod for pod in self._cache.canary_pods()}
        for uid in self._cache.traffic.keys() - pods.keys():
            del self._cache.traffic[uid]
        turns = asyncio.Semaphore(AT_ONCE)

        async def news(pod: RunningPod) -> Key | None:
            async with turns:
                traffic = await self._ask(session, pod)
            if traffic is None or traffic == self._cache.traffic.get(pod.uid):
                return None
            self._cache.traffic[pod.uid] = traffic
            return pod.key

        changed = [key for key in await asyncio.gather(*map(news, pods.values())) if key is not None]
        for turn, key in enumerate(dict.fromkeys(changed)):
            self._look_at(key, turn / self._per_second)

    async def _ask(self, session: aiohttp.ClientSession, pod: RunningPod) -> Traffic | None:
        url = f"http://{host_of(pod)}:{self._port}/metrics"
        try:
            return traffic_in((await read(session, url, LIMIT)).decode(errors="replace"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("%s does not answer: %r", url, error)
        except ValueError as error:
            log.info("%s answers nonsense: %s", url, error)
        return None
