"""Asks the engines of canary pods how many requests they have answered and failed."""

import logging
from collections.abc import Mapping

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from finetune_contract.paths import POD_PORT
from finetune_operator.entries import RunningPod
from finetune_operator.pods import PodPoller, read
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


class TrafficPoller(PodPoller[str, Traffic]):
    """Keeps `cache.traffic`."""

    PORT = POD_PORT

    @property
    def _kept(self) -> dict[str, Traffic]:
        return self._cache.traffic

    def _pods(self) -> Mapping[str, RunningPod]:
        return {pod.uid: pod for pod in self._cache.canary_pods()}

    async def _ask(self, session: aiohttp.ClientSession, pod: RunningPod) -> Traffic | None:
        url = self._url(pod, "/metrics")
        try:
            return traffic_in((await read(session, url, LIMIT)).decode(errors="replace"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("%s does not answer: %r", url, error)
        except ValueError as error:
            log.info("%s answers nonsense: %s", url, error)
        return None
