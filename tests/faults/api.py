"""The API server as the test itself sees it, past every proxy: requests, and a record of all that ever happened."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp

from finetune_operator.cluster import CHILD_KINDS, OWN_KINDS, RESOURCES, Resource

Object = dict[str, Any]

PATHS = {
    **RESOURCES,
    "Namespace": Resource("v1", "namespaces", frozenset()),
    "Secret": Resource("v1", "secrets", frozenset()),
    "ResourceQuota": Resource("v1", "resourcequotas", frozenset()),
    "ServiceAccount": Resource("v1", "serviceaccounts", frozenset()),
}
MERGE = "application/merge-patch+json"


class Api:
    """Requests that must succeed."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> Any:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": kind}
        async with self._session.request(method, path, data=data, headers=headers) as response:
            answer = await response.json()
            if response.status >= 400:
                raise RefusedError(response.status, f"{method} {path}: {answer.get('message')}")
            return answer

    async def create(self, item: Object) -> Object:
        kind, namespace = item["kind"], item["metadata"].get("namespace")
        return dict(await self.request("POST", PATHS[kind].path(namespace), item))

    async def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        try:
            return dict(await self.request("GET", PATHS[kind].path(namespace, name)))
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    async def patch(self, kind: str, namespace: str, name: str, change: Object, subresource: str | None = None) -> Any:
        return await self.request("PATCH", PATHS[kind].path(namespace, name, subresource), change, MERGE)

    async def delete(self, kind: str, namespace: str | None, name: str, **options: Any) -> None:
        try:
            await self.request("DELETE", PATHS[kind].path(namespace, name), options or None)
        except RefusedError as error:
            if error.status != 404:
                raise

    async def version(self, kind: str) -> str:
        """The resourceVersion of a list of all objects of a kind; waits while a new CRD's storage is being made."""
        while True:
            try:
                return str((await self.request("GET", PATHS[kind].path(None)))["metadata"]["resourceVersion"])
            except RefusedError as error:
                if error.status not in (404, 429, 503):
                    raise
                await asyncio.sleep(0.1)

    async def watch(self, kind: str, since: str) -> aiohttp.ClientResponse:
        path = f"{PATHS[kind].path(None)}?watch=true&allowWatchBookmarks=true&resourceVersion={since}"
        return await self._session.get(path, timeout=aiohttp.ClientTimeout(total=None))


class RefusedError(Exception):
    """The API server said no to the test itself."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Change(NamedTuple):
    """Something happened to an object."""

    type: str
    kind: str
    item: Object


class History:
    """All that happened in one namespace, in the API server's own order for each kind."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.objects: dict[tuple[str, str], Object] = {}
        self._news = asyncio.Event()

    def take(self, change: Change) -> None:
        self.changes.append(change)
        place = (change.kind, change.item["metadata"]["name"])
        if change.type == "DELETED":
            self.objects.pop(place, None)
        else:
            self.objects[place] = change.item
        self._news.set()
        self._news = asyncio.Event()

    def of(self, kind: str) -> list[Object]:
        return [item for (known, _), item in self.objects.items() if known == kind]

    def get(self, kind: str, name: str) -> Object:
        """The object; empty if there is none."""
        return self.objects.get((kind, name), {})

    async def until(self, what: str, holds: Callable[[], Any], seconds: float = 30.0) -> Any:
        """Wait until something is so; the failure shows what was there instead."""
        try:
            async with asyncio.timeout(seconds):
                while not (value := holds()):
                    await self._news.wait()
                return value
        except TimeoutError:
            raise AssertionError(f"{what}: not within {seconds:g} s\n{self.picture()}") from None

    def picture(self) -> str:
        """What a person would look at first."""
        lines = []
        for (kind, name), item in sorted(self.objects.items()):
            status = item.get("status") or {}
            conditions = [f"{c['type']}={c['status']} {c.get('reason')}" for c in status.get("conditions") or ()]
            lines.append(f"{kind}/{name} {status.get('phase', '')} {'; '.join(conditions)}")
        return "\n".join(lines)


class Recorder:
    """Watches everything of interest in all namespaces for as long as the control plane lives."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.histories: defaultdict[str, History] = defaultdict(History)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for kind in (*OWN_KINDS, *CHILD_KINDS):
            since = await self._api.version(kind)
            self._tasks.append(asyncio.create_task(self._follow(kind, since)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, kind: str, since: str) -> None:
        # The server ends a watch when its time is up, and those of a CRD when that has settled.
        while True:
            response = await self._api.watch(kind, since)
            buffer = b""
            async for chunk in response.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    assert event["type"] != "ERROR", f"the test's own watch of {kind} has failed: {event}"
                    item = event["object"]
                    since = item["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self.histories[item["metadata"]["namespace"]].take(Change(event["type"], kind, item))
