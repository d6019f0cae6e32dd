"""Kopf's own processing with our storages: events arrive, nothing is computed for changes, nothing is kept."""

from typing import Any

import kopf
from kopf._cogs.structs.ephemera import Memo
from kopf._core.engines.indexing import OperatorIndexers
from kopf._core.reactor.inventory import ResourceMemories
from kopf._core.reactor.processing import process_resource_event

from finetune_operator.handlers import build_registry, configure
from finetune_operator.kopfstate import Forgetful
from finetune_operator.settings import Settings
from tests.unit.operator_runtime.fakes import make_resource


async def deliver(memories: ResourceMemories) -> list[tuple[str | None, dict[str, Any]]]:
    """What our handler gets of one event of a FineTuneJob, through Kopf's own code."""
    seen: list[tuple[str | None, dict[str, Any]]] = []
    settings = kopf.OperatorSettings()
    configure(settings, Settings())
    await process_resource_event(
        lifecycle=kopf.lifecycles.all_at_once,
        indexers=OperatorIndexers(),
        registry=build_registry(lambda change, item: seen.append((change, item))),
        settings=settings,
        memories=memories,
        memobase=Memo(),
        resource=kopf.Resource("finetune.dev", "v1alpha1", "finetunejobs", namespaced=True, preferred=True),
        raw_event={"type": "MODIFIED", "object": make_resource()},
        event_queue=None,  # type: ignore[arg-type]  # nothing is posted
    )
    return seen


async def test_an_event_reaches_our_handler_and_nobody_keeps_a_record() -> None:
    memories = Forgetful()
    seen = await deliver(memories)
    assert [(change, item["kind"]) for change, item in seen] == [("MODIFIED", "FineTuneJob")]
    assert list(memories.iter_all_memories()) == []


async def test_without_it_kopf_keeps_a_record_of_each_object() -> None:
    memories = ResourceMemories()
    await deliver(memories)
    assert len(list(memories.iter_all_memories())) == 1
