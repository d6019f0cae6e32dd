from aiohttp.test_utils import TestClient, TestServer

from finetune_operator.cache import Cache
from finetune_operator.health import LONGEST_PASS, LONGEST_SILENCE, Health
from tests.unit.operator_runtime.fakes import FakeCluster, make_resource


class Facts:
    longest_pass = 0.0
    silence = 0.0
    synced = True


async def ask(facts: Facts, path: str, cache: Cache | None = None) -> tuple[int, str]:
    health = Health(
        cache or Cache(),
        longest_pass=lambda: facts.longest_pass,
        longest_wait=lambda: 0.0,
        silence=lambda: facts.silence,
        is_synced=lambda: facts.synced,
    )
    async with TestClient(TestServer(health.application())) as client:
        response = await client.get(path)
        return response.status, await response.text()


async def test_a_healthy_replica_is_live_and_ready() -> None:
    assert await ask(Facts(), "/livez") == (200, "ok")
    assert await ask(Facts(), "/readyz") == (200, "ok")


async def test_a_replica_without_its_caches_is_live_but_not_ready() -> None:
    facts = Facts()
    facts.synced = False
    assert (await ask(facts, "/readyz"))[0] == 503
    assert (await ask(facts, "/livez"))[0] == 200


async def test_a_stuck_pass_or_dead_watches_end_the_process() -> None:
    facts = Facts()
    facts.longest_pass = LONGEST_PASS + 1
    assert (await ask(facts, "/livez"))[0] == 503
    facts = Facts()
    facts.silence = LONGEST_SILENCE + 1
    status, text = await ask(facts, "/livez")
    assert (status, "silent" in text) == (503, True)


async def test_metrics_count_resources_by_phase_and_reason() -> None:
    cache = Cache()
    ready = {"type": "Ready", "status": "False", "reason": "NodeLost"}
    cache.put(FakeCluster().add(make_resource(status={"phase": "Failed", "conditions": [ready]})))
    _, text = await ask(Facts(), "/metrics", cache)
    assert 'finetune_operator_objects{kind="FineTuneJob",phase="Failed",reason="NodeLost"} 1.0' in text
    assert "finetune_operator_workqueue_depth" in text
