"""The API server, as the rest of the operator sees it: the only module that talks to it, but for Kopf's watches.

What may be asked for is the table `RESOURCES`; the chart's RBAC is tested against it, and a request outside of it is
a bug that fails here, before RBAC would fail it on a user's cluster.
"""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import aiohttp

from finetune_operator import metrics
from finetune_operator.errors import AlreadyExists, ClusterError, Conflict, Denied, Expired, NotFound, Unavailable
from finetune_operator.manifests.naming import API_VERSION, LABEL_MANAGED_BY, MANAGER, Manifest

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
MANAGED = f"{LABEL_MANAGED_BY}={MANAGER}"
"""Label selector of children."""


JOB_UID = "kueue.x-k8s.io/job-uid"
"""Label of a Workload: the uid of its Job."""


class Resource(NamedTuple):
    """Where a kind lives in the API, and what the operator does with it."""

    api_version: str
    plural: str
    verbs: frozenset[str]

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL's path; without a namespace, of all namespaces."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [root + self.api_version]
        if namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts += [part for part in (self.plural, name, subresource) if part is not None]
        return "/".join(parts)


def _resource(api_version: str, plural: str, verbs: str) -> Resource:
    return Resource(api_version, plural, frozenset(verbs.split()))


OWN_KINDS = ("Dataset", "FineTuneJob", "ModelDeployment")
CHILD_KINDS = ("Job", "Pod", "Deployment", "Service", "ConfigMap", "PersistentVolumeClaim")
WATCHED = "get list watch"
RESOURCES = {
    "Dataset": _resource(API_VERSION, "datasets", f"{WATCHED} update/status"),
    "FineTuneJob": _resource(API_VERSION, "finetunejobs", f"{WATCHED} update/status"),
    "ModelDeployment": _resource(API_VERSION, "modeldeployments", f"{WATCHED} update/status"),
    "Job": _resource("batch/v1", "jobs", f"{WATCHED} create delete"),
    "Pod": _resource("v1", "pods", WATCHED),
    "Deployment": _resource("apps/v1", "deployments", f"{WATCHED} create patch delete"),
    "Service": _resource("v1", "services", f"{WATCHED} create patch delete"),
    "ConfigMap": _resource("v1", "configmaps", f"{WATCHED} create delete"),
    "PersistentVolumeClaim": _resource("v1", "persistentvolumeclaims", f"{WATCHED} create"),
    "Workload": _resource("kueue.x-k8s.io/v1beta2", "workloads", "list"),
    "LocalQueue": _resource("visibility.kueue.x-k8s.io/v1beta2", "localqueues", "get/pendingworkloads"),
    "Event": _resource("events.k8s.io/v1", "events", "list create patch"),
    "Lease": _resource("coordination.k8s.io/v1", "leases", "get create update"),
}
"""Kind -> resource. `verb/subresource` is a verb on a subresource."""


class Page(NamedTuple):
    """Part of a list."""

    items: list[Manifest]
    resource_version: str
    """Of the whole list: every page shows the state at this version."""


class Connection(Protocol):
    """Where the API server is and how to log in; `kopf.ConnectionInfo` is one."""

    @property
    def server(self) -> str:
        """The URL."""

    def as_ssl_context(self) -> ssl.SSLContext:
        """Trust, and the client certificate if there is one."""

    def as_http_headers(self) -> dict[str, str]:
        """Authorization, if it is by token."""


class Cluster(Protocol):
    """Everything that the operator asks of the API server. Raises only `ClusterError`s."""

    async def get(self, kind: str, namespace: str, name: str) -> Manifest:
        """One object."""

    def list(self, kind: str, namespace: str | None, *, metadata_only: bool = False) -> AsyncIterator[Page]:
        """All objects of one of our kinds, or all our children of another, in pages."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; one that exists already and has the same controller counts as created."""

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply: the fields in the manifest become ours, others are left alone."""

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace an object if its resourceVersion is still the manifest's."""

    async def replace_status(self, manifest: Manifest) -> Manifest:
        """Replace an object's status if its resourceVersion is still the manifest's."""

    async def delete(self, kind: str, namespace: str, name: str, uid: str, *, foreground: bool = False) -> None:
        """Delete this very object, its dependents after or (`foreground`) before it; gone already counts as deleted."""

    async def record(self, event: Manifest, count: int) -> None:
        """Post an Event; one that exists already becomes a series of `count`."""

    async def events_about(self, namespace: str, kind: str, reason: str) -> tuple[Manifest, ...]:
        """Events of one reason about objects of one kind; of very many, some."""

    async def served_kinds(self) -> frozenset[str]:
        """Which of our kinds the API server knows."""

    async def workloads(self, namespace: str, jobs: Iterable[str]) -> tuple[Manifest, ...]:
        """Kueue's Workloads of the Jobs with these uids; NotFound where there is no Kueue."""

    async def pending_workloads(self, namespace: str, queue: str) -> tuple[Manifest, ...]:
        """What waits in a LocalQueue, in its order; NotFound where Kueue does not tell."""


def controller_uid(manifest: Manifest) -> str | None:
    """The uid of the owner that controls an object."""
    owners = manifest["metadata"].get("ownerReferences", ())
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), None)


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
        return await self._request("get", _permitted(kind, "get").path(namespace, name))

    async def list(self, kind: str, namespace: str | None, *, metadata_only: bool = False) -> AsyncIterator[Page]:
        """See Cluster: pages of one kind."""
        resource = _permitted(kind, "list")
        params = {"limit": str(PAGE_SIZE)}
        if kind in CHILD_KINDS:
            params["labelSelector"] = MANAGED
        accept = "application/json"
        if metadata_only:
            accept += ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        while True:
            page = await self._request("list", resource.path(namespace), params=params, headers={"Accept": accept})
            items = page["items"] or []  # null where a list of metadata is empty
            for item in items:
                # Lists leave them out, watches do not.
                item.update(apiVersion=resource.api_version, kind=kind)
            yield Page(items, page["metadata"]["resourceVersion"])
            if not page["metadata"].get("continue"):
                return
            params["continue"] = page["metadata"]["continue"]

    async def create(self, manifest: Manifest) -> Manifest:
        """See Cluster: created, or found with the same controller."""
        kind, namespace, name = _identity(manifest)
        try:
            return await self._write("create", _permitted(kind, "create").path(namespace), manifest)
        except AlreadyExists:
            found = await self.get(kind, namespace, name)
        expected = controller_uid(manifest)
        if controller_uid(found) != expected or found["metadata"].get("deletionTimestamp"):
            raise Conflict(f"{kind} {name} exists, but belongs to another owner or is being deleted")
        return found

    async def apply(self, manifest: Manifest) -> Manifest:
        """See Cluster: server-side apply."""
        kind, namespace, name = _identity(manifest)
        path = _permitted(kind, "patch").path(namespace, name)
        content_type = "application/apply-patch+yaml"
        return await self._write("patch", path, manifest, content_type=content_type, params={"force": "true"})

    async def replace(self, manifest: Manifest) -> Manifest:
        """See Cluster: a write checked by version."""
        kind, namespace, name = _identity(manifest)
        return await self._write("update", _permitted(kind, "update").path(namespace, name), manifest)

    async def replace_status(self, manifest: Manifest) -> Manifest:
        """See Cluster: a write checked by version."""
        kind, namespace, name = _identity(manifest)
        path = _permitted(kind, "update/status").path(namespace, name, "status")
        return await self._write("update", path, manifest)

    async def delete(self, kind: str, namespace: str, name: str, uid: str, *, foreground: bool = False) -> None:
        """See Cluster: this very object."""
        policy = "Foreground" if foreground else "Background"
        options = {"propagationPolicy": policy, "preconditions": {"uid": uid}}
        try:
            await self._request("delete", _permitted(kind, "delete").path(namespace, name), body=options)
        except NotFound:
            log.debug("%s %s/%s was gone already", kind, namespace, name)

    async def record(self, event: Manifest, count: int) -> None:
        """See Cluster: an Event, or its series."""
        kind, namespace, name = _identity(event)
        try:
            await self._write("create", _permitted(kind, "create").path(namespace), event)
        except AlreadyExists:
            series = {"series": {"count": max(2, count), "lastObservedTime": event["eventTime"]}}
            path = _permitted(kind, "patch").path(namespace, name)
            await self._write("patch", path, series, content_type="application/merge-patch+json")

    async def events_about(self, namespace: str, kind: str, reason: str) -> tuple[Manifest, ...]:
        """See Cluster: by a field selector."""
        path = _permitted("Event", "list").path(namespace)
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
        found = await self._request("list", _permitted("Workload", "list").path(namespace), params=params)
        return tuple(found["items"])

    async def pending_workloads(self, namespace: str, queue: str) -> tuple[Manifest, ...]:
        """See Cluster: Kueue's visibility API."""
        path = _permitted("LocalQueue", "get/pendingworkloads").path(namespace, queue, "pendingworkloads")
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
        """Send a request; log in again once, and come back when a busy server says so."""
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
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
                return _result(f"{verb} {path}", status, text)
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
ERRORS: dict[int, type[ClusterError]] = {
    HTTPStatus.UNAUTHORIZED: Unavailable,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.REQUEST_TIMEOUT: Unavailable,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GONE: Expired,
    HTTPStatus.TOO_MANY_REQUESTS: Unavailable,
}


def _permitted(kind: str, verb: str) -> Resource:
    resource = RESOURCES[kind]
    assert verb in resource.verbs, f"{verb} of {kind} is not in cluster.RESOURCES, hence not in the chart's RBAC"
    return resource


def _identity(manifest: Manifest) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata["namespace"], metadata["name"]


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdigit() else 1.0


def _result(what: str, status: int, text: bytes) -> Manifest:
    """The parsed answer, or the error that it is."""
    try:
        answer: Any = json.loads(text)
    except ValueError as error:
        if status < HTTPStatus.BAD_REQUEST:
            raise Unavailable(f"{what}: HTTP {status} with a body that is not JSON") from error
        answer = {"message": text[:500].decode(errors="replace")}
    if status < HTTPStatus.BAD_REQUEST:
        return dict(answer)
    message = str(answer.get("message") or f"HTTP {status}")
    if status == HTTPStatus.CONFLICT and answer.get("reason") == "AlreadyExists":
        raise AlreadyExists(message)
    if "failed calling webhook" in message:
        # The API server itself is well: a webhook, such as Kueue's, stands in the way and should be named.
        raise Denied(message)
    unnamed = Unavailable if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Denied
    raise ERRORS.get(status, unnamed)(message)
