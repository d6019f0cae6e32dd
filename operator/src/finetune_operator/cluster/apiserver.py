"""`Cluster` over HTTP."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from http import HTTPStatus
from typing import TypeVar

import aiohttp
import msgspec

from finetune_operator import metrics
from finetune_operator.cluster.answers import BarePage, WholePage, read, refuse
from finetune_operator.cluster.interface import Connection, Heads, Page
from finetune_operator.cluster.resources import CHILD_KINDS, JOB_UID, MANAGED, controller_uid, permitted
from finetune_operator.errors import AlreadyExists, Conflict, NotFound, Unavailable
from finetune_operator.manifests.naming import API_VERSION, MANAGER, Manifest

log = logging.getLogger(__name__)

PAGE_SIZE = 500
"""Objects per list request: large enough to be fast, small enough that a continuation never expires."""
CONNECT_SECONDS = 10.0
EVENT_PAGES = 4
"""Pages of Events that are read; each is kept for an hour by the API server, so that there can be many."""
PATIENCE = 3
"""How often a request is sent when the server asks to come back later (429)."""
LONGEST_PAUSE = 5.0
"""Seconds that a Retry-After is obeyed within a request; the queue's back-off does the rest."""

P = TypeVar("P", WholePage, BarePage)


class ApiServer:
    """`Cluster` over HTTP."""

    def __init__(self, login: Callable[[], Connection], seconds: float = 30.0) -> None:
        """`login` is called at first use and after each refused token: it reads what is on disk now.

        A request that takes longer than `seconds` has failed.
        """
        self._login = login
        self._timeout = aiohttp.ClientTimeout(total=seconds, connect=min(seconds, CONNECT_SECONDS))
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, kind: str, namespace: str, name: str) -> Manifest:
        """See Cluster: one object."""
        return await self._request("get", permitted(kind, "get").path(namespace, name))

    async def list(self, kind: str, namespace: str | None) -> AsyncIterator[Page]:
        """See Cluster: pages of one kind."""
        resource = permitted(kind, "list")
        async for page in self._pages(kind, namespace, "application/json", WholePage):
            yield Page(page.objects(kind, resource), page.metadata.resource_version)

    async def heads(self, kind: str, namespace: str | None) -> AsyncIterator[Heads]:
        """See Cluster: pages of metadata."""
        accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        async for page in self._pages(kind, namespace, accept, BarePage):
            yield Heads(page.heads(), page.metadata.resource_version)

    async def _pages(self, kind: str, namespace: str | None, accept: str, type_: type[P]) -> AsyncIterator[P]:
        """One page after another; while one is worked on, the API server has time to make the next."""
        path = permitted(kind, "list").path(namespace)
        params = {"limit": str(PAGE_SIZE)}
        if kind in CHILD_KINDS:
            params["labelSelector"] = MANAGED

        def ask(token: str) -> asyncio.Task[bytes]:
            query = {**params, "continue": token} if token else params
            return asyncio.create_task(self._send("list", path, params=query, headers={"Accept": accept}))

        coming = ask("")
        try:
            while True:
                page = read(f"list {path}", await coming, type_)
                token = page.metadata.token
                if token:
                    coming = ask(token)
                yield page
                if not token:
                    return
        finally:
            coming.cancel()

    async def create(self, manifest: Manifest) -> Manifest:
        """See Cluster: created, or found with the same controller."""
        kind, namespace, name = _identity(manifest)
        try:
            return await self._write("create", permitted(kind, "create").path(namespace), manifest)
        except AlreadyExists:
            found = await self.get(kind, namespace, name)
        expected = controller_uid(manifest)
        if controller_uid(found) != expected or found["metadata"].get("deletionTimestamp"):
            raise Conflict(f"{kind} {name} exists, but belongs to another owner or is being deleted")
        return found

    async def apply(self, manifest: Manifest) -> Manifest:
        """See Cluster: server-side apply."""
        kind, namespace, name = _identity(manifest)
        path = permitted(kind, "patch").path(namespace, name)
        content_type = "application/apply-patch+yaml"
        return await self._write("patch", path, manifest, content_type=content_type, params={"force": "true"})

    async def replace(self, manifest: Manifest) -> Manifest:
        """See Cluster: a write checked by version."""
        kind, namespace, name = _identity(manifest)
        return await self._write("update", permitted(kind, "update").path(namespace, name), manifest)

    async def replace_status(self, manifest: Manifest) -> Manifest:
        """See Cluster: a write checked by version."""
        kind, namespace, name = _identity(manifest)
        path = permitted(kind, "update/status").path(namespace, name, "status")
        return await self._write("update", path, manifest)

    async def delete(self, kind: str, namespace: str, name: str, uid: str, *, foreground: bool = False) -> None:
        """See Cluster: this very object."""
        policy = "Foreground" if foreground else "Background"
        options = {"propagationPolicy": policy, "preconditions": {"uid": uid}}
        try:
            await self._request("delete", permitted(kind, "delete").path(namespace, name), body=options)
        except NotFound:
            log.debug("%s %s/%s was gone already", kind, namespace, name)

    async def record(self, event: Manifest, count: int) -> None:
        """See Cluster: an Event, or its series."""
        kind, namespace, name = _identity(event)
        try:
            await self._write("create", permitted(kind, "create").path(namespace), event)
        except AlreadyExists:
            series = {"series": {"count": max(2, count), "lastObservedTime": event["eventTime"]}}
            path = permitted(kind, "patch").path(namespace, name)
            await self._write("patch", path, series, content_type="application/merge-patch+json")

    async def events_about(self, namespace: str, kind: str, reason: str) -> tuple[Manifest, ...]:
        """See Cluster: by a field selector."""
        path = permitted("Event", "list").path(namespace)
        params = {"limit": str(PAGE_SIZE), "fieldSelector": f"regarding.kind={kind},reason={reason}"}
        found: tuple[Manifest, ...] = ()
        for _ in range(EVENT_PAGES):
            page = await self._request("list", path, params=params)
            found += tuple(page["items"] or ())
            if not page["metadata"].get("continue"):
                break
            params["continue"] = page["metadata"]["continue"]
        return found

    async def served_kinds(self) -> frozenset[str]:
        """See Cluster: by discovery."""
        try:
            found = await self._request("get", f"/apis/{API_VERSION}")
        except NotFound:
            return frozenset()
        return frozenset(resource["kind"] for resource in found["resources"])

    async def workloads(self, namespace: str, jobs: Iterable[str]) -> tuple[Manifest, ...]:
        """See Cluster: by the label that Kueue puts on every Workload of a Job."""
        params = {"labelSelector": f"{JOB_UID} in ({','.join(sorted(jobs))})"}
        found = await self._request("list", permitted("Workload", "list").path(namespace), params=params)
        return tuple(found["items"])

    async def pending_workloads(self, namespace: str, queue: str) -> tuple[Manifest, ...]:
        """See Cluster: Kueue's visibility API."""
        path = permitted("LocalQueue", "get/pendingworkloads").path(namespace, queue, "pendingworkloads")
        return tuple((await self._request("get", path))["items"] or ())

    async def _write(
        self,
        verb: str,
        path: str,
        body: Manifest,
        *,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
    ) -> Manifest:
        query = {"fieldManager": MANAGER, **(params or {})}
        return await self._request(verb, path, params=query, headers={"Content-Type": content_type}, body=body)

    async def _request(
        self,
        verb: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        body: Manifest | None = None,
    ) -> Manifest:
        """Send a request; the document that it is answered with."""
        what = f"{verb} {path}"
        return read(what, await self._send(verb, path, params=params, headers=headers, body=body), dict)

    async def _send(
        self,
        verb: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        body: Manifest | None = None,
    ) -> bytes:
        """Send a request; log in again once, and come back when a busy server says so."""
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json", **(headers or {})}
        logins = 0
        for attempt in range(1, PATIENCE + 2):
            session = self._connected()
            try:
                async with session.request(METHODS[verb], path, params=params, headers=headers, data=data) as response:
                    status, text, pause = response.status, await response.read(), response.headers.get("Retry-After")
            except (aiohttp.ClientError, TimeoutError, RuntimeError) as error:
                # RuntimeError: the session was closed by another request's new login.
                metrics.API_REQUESTS.labels(verb, 0).inc()
                raise Unavailable(f"{verb} {path}: {error or type(error).__name__}") from error
            metrics.API_REQUESTS.labels(verb, status).inc()
            if status == HTTPStatus.UNAUTHORIZED and logins == 0:
                logins = 1
                await self._forget(session)
            elif status == HTTPStatus.TOO_MANY_REQUESTS and attempt < PATIENCE:
                await asyncio.sleep(min(_seconds(pause), LONGEST_PAUSE))
            else:
                refuse(status, text)
                return text
        raise Unavailable(f"{verb} {path}: no answer after {PATIENCE + 1} requests")

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            try:
                connection = self._login()
                connector = aiohttp.TCPConnector(limit=64, ssl=connection.as_ssl_context())
            except (OSError, ValueError) as error:
                raise Unavailable(f"cannot log in to the API server: {error}") from error
            headers = {"User-Agent": MANAGER, **connection.as_http_headers()}
            self._session = aiohttp.ClientSession(
                connection.server, connector=connector, headers=headers, timeout=self._timeout, auto_decompress=True
            )
        return self._session

    async def _forget(self, session: aiohttp.ClientSession) -> None:
        """Log in again at the next request, unless another request did already."""
        if self._session is session:
            log.info("the API server refused the token: logging in again")
            await self.close()


METHODS = {"get": "GET", "list": "GET", "create": "POST", "patch": "PATCH", "update": "PUT", "delete": "DELETE"}


def _identity(manifest: Manifest) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata["namespace"], metadata["name"]


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdigit() else 1.0
