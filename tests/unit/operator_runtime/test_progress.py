from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from finetune_contract.paths import PROGRESS_LIMIT
from finetune_contract.results import Progress
from finetune_operator.cache import Cache
from finetune_operator.entries import Key
from finetune_operator.progress import ProgressPoller
from tests.unit.operator_runtime.fakes import NAMESPACE, FakeCluster, make_job, make_pod, make_resource

TUNE = Key("FineTuneJob", NAMESPACE, "tune")
PROGRESS = {
    "runKey": "3f9c1a",
    "attempt": 1,
    "phase": "Training",
    "step": 5,
    "totalSteps": 10,
    "updatedAt": "2026-11-21T00:00:00Z",
}


class TrainingPods:
    """Running pods, all at the address of one server."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.cache = Cache()
        self.answer = web.json_response(PROGRESS)
        self.looked_at: list[tuple[Key, float]] = []
        self.port = 0

    def run(self, name: str = "tune") -> None:
        tune = self.cluster.add(make_resource(name=name))
        job = self.cluster.add(make_job(tune))
        for manifest in (tune, job, self.cluster.add(make_pod(job, f"{name}-pod", ip="127.0.0.1"))):
            self.cache.put(manifest)

    async def handle(self, _: web.Request) -> web.StreamResponse:
        return self.answer

    async def poll(self) -> list[Key]:
        self.looked_at.clear()
        poller = ProgressPoller(self.cache, lambda *news: self.looked_at.append(news), 5, per_second=5, port=self.port)
        async with aiohttp.ClientSession() as session:
            await poller.poll(session)
        return [key for key, _ in self.looked_at]


@pytest.fixture
async def pods() -> AsyncIterator[TrainingPods]:
    pods = TrainingPods()
    application = web.Application()
    application.router.add_get("/progress", pods.handle)
    server = TestServer(application)
    await server.start_server()
    pods.port = server.port or 0
    yield pods
    await server.close()


async def test_news_is_kept_and_looked_at_once(pods: TrainingPods) -> None:
    pods.run()
    assert await pods.poll() == [TUNE]
    assert pods.cache.progress[TUNE] == Progress.model_validate(PROGRESS)
    pods.answer = web.json_response(PROGRESS)
    assert await pods.poll() == []
    pods.answer = web.json_response({**PROGRESS, "step": 6})
    assert await pods.poll() == [TUNE]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=500),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        lambda: web.Response(text="not JSON"),
        lambda: web.json_response({**PROGRESS, "more": 1}),
        lambda: web.json_response({**PROGRESS, "runKey": "x" * PROGRESS_LIMIT}),
        lambda: web.Response(text='{"runKey": NaN}'),
    ],
    ids=["error", "redirect", "not JSON", "unknown field", "too large", "not a number"],
)
async def test_nonsense_is_ignored(pods: TrainingPods, answer: object) -> None:
    pods.run()
    pods.answer = answer()  # type: ignore[operator]
    assert await pods.poll() == []
    assert pods.cache.progress == {}


async def test_a_pod_that_does_not_answer_keeps_what_it_said(pods: TrainingPods) -> None:
    pods.run()
    await pods.poll()
    pods.port = 1
    assert await pods.poll() == []
    assert pods.cache.progress[TUNE] == Progress.model_validate(PROGRESS)


async def test_what_a_pod_said_goes_with_it(pods: TrainingPods) -> None:
    pods.run()
    await pods.poll()
    pods.cache.remove(pods.cluster.take_away("Pod", "tune-pod"))
    await pods.poll()
    assert pods.cache.progress == {}


async def test_many_jobs_with_news_are_spread(pods: TrainingPods) -> None:
    for number in range(3):
        pods.run(f"job-{number}")
    pods.answer = web.json_response(PROGRESS)

    async def fresh(_: web.Request) -> web.Response:
        return web.json_response(PROGRESS)

    pods.handle = fresh  # type: ignore[method-assign]
    application = web.Application()
    application.router.add_get("/progress", fresh)
    server = TestServer(application)
    await server.start_server()
    pods.port = server.port or 0
    await pods.poll()
    await server.close()
    assert sorted(delay for _, delay in pods.looked_at) == [0.0, 0.2, 0.4]
