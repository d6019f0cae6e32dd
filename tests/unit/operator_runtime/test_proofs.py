"""Probers are asked while their pods are not ready, over real connections."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from finetune_contract.proof import AdapterProof, ProofState, ProofStatus
from finetune_operator.cache import Cache
from finetune_operator.entries import Key
from finetune_operator.proofs import ProofPoller

SERVED = Key("ModelDeployment", "team-a", "support")
INERT = ProofStatus(
    ready=False,
    message="adapter triage is Inert",
    adapters=(AdapterProof(name="triage", digest="sha256:" + "a" * 64, state=ProofState.INERT, message="no change"),),
)


class Probers:
    """Serving pods, all at the address of one server."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.answer = INERT.to_json()
        self.asked = 0
        self.port = 0
        self.version = 0

    def pod(self, uid: str = "one", *, ready: bool = False, phase: str = "Running", role: str = "serve") -> None:
        self.version += 1
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
                    "labels": {
                        "finetune.dev/kind": SERVED.kind,
                        "finetune.dev/name": SERVED.name,
                        "finetune.dev/role": role,
                    },
                },
                "spec": {},
                "status": {
                    "phase": phase,
                    "podIP": "127.0.0.1",
                    "conditions": [{"type": "Ready", "status": str(ready)}],
                },
            }
        )

    async def handle(self, _: web.Request) -> web.StreamResponse:
        self.asked += 1
        return web.json_response(text=self.answer)

    async def poll(self) -> list[Key]:
        news: list[Key] = []
        poller = ProofPoller(self.cache, lambda key, _: news.append(key), 5, per_second=5, port=self.port)
        async with aiohttp.ClientSession() as session:
            await poller.poll(session)
        return news


@pytest.fixture
async def probers() -> AsyncIterator[Probers]:
    probers = Probers()
    application = web.Application()
    application.router.add_get("/status", probers.handle)
    server = TestServer(application)
    await server.start_server()
    probers.port = server.port or 0
    yield probers
    await server.close()


async def test_what_a_prober_says_is_kept_and_looked_at_once(probers: Probers) -> None:
    probers.pod()
    assert await probers.poll() == [SERVED]
    assert probers.cache.proofs == {"one": INERT}
    assert await probers.poll() == []


async def test_several_pods_are_one_look(probers: Probers) -> None:
    probers.pod("one")
    probers.pod("two")
    assert (await probers.poll()).count(SERVED) == 1


async def test_a_ready_pod_is_not_asked_and_its_verdict_forgotten(probers: Probers) -> None:
    probers.pod()
    await probers.poll()
    probers.pod(ready=True)
    assert await probers.poll() == []
    assert (probers.asked, probers.cache.proofs) == (1, {})


@pytest.mark.parametrize("pod", [{"phase": "Pending"}, {"role": "train"}, {"ready": True}])
async def test_only_serving_pods_that_run_and_are_not_ready_are_asked(probers: Probers, pod: dict[str, object]) -> None:
    probers.pod(**pod)  # type: ignore[arg-type]
    assert await probers.poll() == []
    assert probers.asked == 0


async def test_nonsense_changes_nothing(probers: Probers) -> None:
    probers.pod()
    probers.answer = '{"ready": "perhaps"}'
    assert await probers.poll() == []
    assert probers.cache.proofs == {}
