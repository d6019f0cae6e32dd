"""What engines count, read over real connections."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from finetune_operator.cache import Cache
from finetune_operator.entries import Key
from finetune_operator.reconcile.observed import Traffic
from finetune_operator.traffic import LIMIT, TrafficPoller, traffic_in
from finetune_server.metrics import Metrics

SERVED = Key("ModelDeployment", "team-a", "support")
TGI = """\
# TYPE tgi_request_count counter
tgi_request_count 10
# TYPE tgi_request_failure counter
tgi_request_failure{err="validation"} 3
tgi_request_failure{err="generation"} 2
tgi_request_failure{err="overloaded"} 1
# TYPE tgi_queue_size gauge
tgi_queue_size 0
"""
VLLM = """\
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="support"} 0.0
# TYPE http_requests_total counter
http_requests_total{handler="/v1/completions",method="POST",status="2xx"} 7.0
http_requests_total{handler="/v1/chat/completions",method="POST",status="5xx"} 2.0
http_requests_total{handler="/v1/completions",method="POST",status="4xx"} 1.0
http_requests_total{handler="/health",method="GET",status="5xx"} 99.0
"""


@pytest.mark.parametrize(
    ("text", "traffic"),
    [
        (TGI, Traffic(10, 2)),
        (VLLM, Traffic(10, 2)),
        (VLLM.partition("# TYPE http")[0], Traffic(0, 0)),
        ("# TYPE other counter\nother_total 3\n", None),
        ("", None),
    ],
    ids=["TGI", "vLLM", "vLLM before any request", "something else", "nothing"],
)
def test_each_engines_own_names_are_read(text: str, traffic: Traffic | None) -> None:
    assert traffic_in(text) == traffic


def test_our_own_engines_metrics_are_read() -> None:
    metrics = Metrics()
    assert traffic_in(metrics.text().decode()) == Traffic(0, 0)
    metrics.refuse("triage")
    assert traffic_in(metrics.text().decode()) == Traffic(1, 0)


class Pods:
    """Canary pods, all at the address of one server."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.answer = TGI
        self.port = 0
        self.version = 0

    def pod(self, uid: str = "one", *, role: str = "canary", phase: str = "Running") -> None:
        self.version += 1
        labels = {"kind": SERVED.kind, "name": SERVED.name, "role": role}
        self.cache.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": uid,
                    "namespace": SERVED.namespace,
                    "uid": uid,
                    "resourceVersion": str(self.version),
                    "creationTimestamp": "2026-11-21T00:00:00Z",
                    "labels": {f"finetune.dev/{name}": value for name, value in labels.items()},
                },
                "spec": {},
                "status": {"phase": phase, "podIP": "127.0.0.1"},
            }
        )

    async def handle(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text=self.answer)

    async def poll(self) -> list[Key]:
        news: list[Key] = []
        poller = TrafficPoller(self.cache, lambda key, _: news.append(key), 5, per_second=5, port=self.port)
        async with aiohttp.ClientSession() as session:
            await poller.poll(session)
        return news


@pytest.fixture
async def pods() -> AsyncIterator[Pods]:
    pods = Pods()
    application = web.Application()
    application.router.add_get("/metrics", pods.handle)
    async with TestServer(application) as server:
        pods.port = server.port or 0
        yield pods


async def test_what_a_canary_counts_is_kept_and_looked_at_when_it_changes(pods: Pods) -> None:
    pods.pod("one")
    pods.pod("two")
    assert await pods.poll() == [SERVED]
    assert pods.cache.traffic == {"one": Traffic(10, 2), "two": Traffic(10, 2)}
    assert await pods.poll() == []
    pods.pod("two", phase="Succeeded")
    await pods.poll()
    assert set(pods.cache.traffic) == {"one"}


@pytest.mark.parametrize("pod", [{"role": "serve"}, {"role": "train"}, {"phase": "Pending"}])
async def test_only_canaries_that_run_are_asked(pods: Pods, pod: dict[str, str]) -> None:
    pods.pod(**pod)
    assert await pods.poll() == []
    assert pods.cache.traffic == {}


@pytest.mark.parametrize("answer", ["tgi_request_count{ 3", "x" * (LIMIT + 1)], ids=["nonsense", "very much"])
async def test_nonsense_changes_nothing(pods: Pods, answer: str) -> None:
    pods.pod()
    pods.answer = answer
    assert await pods.poll() == []
    assert pods.cache.traffic == {}
