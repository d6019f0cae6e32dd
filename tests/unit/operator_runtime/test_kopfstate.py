"""Kopf's own processing with our storages: events arrive, nothing is listed, computed for changes or kept."""

from typing import Any, cast

import kopf
import pytest
from kopf._cogs.clients import api, fetching, watching
from kopf._cogs.structs.bodies import RawBody
from kopf._cogs.structs.ephemera import AnyMemo, Memo
from kopf._core.engines.indexing import OperatorIndexers
from kopf._core.reactor.inventory import ResourceMemories
from kopf._core.reactor.processing import process_resource_event

from finetune_operator.handlers import build_registry, configure
from finetune_operator.kopfstate import Forgetful, list_by
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
        registry=build_registry(lambda change, item: seen.append((change, item)), Settings()),
        settings=settings,
        memories=memories,
        memobase=AnyMemo(Memo()),
        resource=kopf.Resource("finetune.dev", "v1alpha1", "finetunejobs", namespaced=True, preferred=True),
        raw_event={"type": "MODIFIED", "object": cast("RawBody", make_resource())},
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


async def watched(resource: kopf.Resource, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[Any]]:
    """The first requests of Kopf's own watch of a resource, and what it says."""
    asked: list[str] = []

    async def get(url: str, **_: Any) -> Any:
        asked.append(url)
        return {"items": [], "metadata": {"resourceVersion": "1"}}

    async def stream(url: str, **_: Any) -> Any:
        asked.append(url)
        yield {"type": "ADDED", "object": make_resource()}

    async def watched_from(kind: str, namespace: str | None) -> str:
        return f"version-of-{kind}-in-{namespace}"

    monkeypatch.setattr(api, "get", get)
    monkeypatch.setattr(api, "stream", stream)
    monkeypatch.setattr(fetching, "fetch_objs", fetching.fetch_objs)  # put back afterwards
    list_by(watched_from)
    settings = kopf.OperatorSettings()
    configure(settings, Settings())
    seen: list[Any] = []
    async for event in watching.infinite_watch(settings=settings, resource=resource, namespace=None, _iterations=1):
        seen.append(event)
        if len(seen) == 2:
            break
    return asked, seen


async def test_kopf_lists_nothing_and_watches_from_where_our_list_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = kopf.Resource("finetune.dev", "v1alpha1", "finetunejobs", namespaced=True, preferred=True)
    (asked, (listed, event)) = await watched(resource, monkeypatch)
    assert listed is watching.Bookmark.LISTED
    assert event["type"] == "ADDED"
    assert len(asked) == 1
    assert "watch=true" in asked[0]
    assert "resourceVersion=version-of-FineTuneJob-in-None" in asked[0]


async def test_kopf_lists_what_is_not_ours_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, _ = await watched(kopf.Resource("", "v1", "namespaces", namespaced=False, preferred=True), monkeypatch)
    assert "watch=true" not in asked[0]
    assert "resourceVersion=1" in asked[1]
