"""The HTTP proxy between one operator and the API server: passes everything on, but for what a rule says.

It knows Kubernetes requests (verb, kind, name, role of a child, the reason that a status gives) and watch streams line
by line. Every write and every watch event has a label that is the same in every run, so that a case can name it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from finetune_operator.cluster import RESOURCES
from finetune_operator.manifests.naming import LABEL_ATTEMPT, LABEL_ROLE

Object = dict[str, Any]
Forward = Callable[[], Awaitable["Reply"]]

KIND_OF = {resource.plural: kind for kind, resource in RESOURCES.items()}
PATH = re.compile(
    r"^/(?:api|apis/[^/]+)/[^/]+(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<subresource>status))?$"
)
METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
WRITES = frozenset(METHODS.values())
PASSED_ON = ("Accept", "Content-Type")
NO_LIMIT = aiohttp.ClientTimeout(total=None)


@dataclass(frozen=True)
class Request:
    """A request of the operator, as Kubernetes sees it."""

    verb: str
    kind: str
    namespace: str
    name: str
    subresource: str
    body: Object
    path: str

    @property
    def is_write(self) -> bool:
        """Whether it changes what people see: the lease is housekeeping."""
        return self.verb in WRITES and self.kind != "Lease"

    @property
    def label(self) -> str:
        """Names the request in every run of the same life: `create Job train-1`, `status FineTuneJob Staging`."""
        if self.verb not in WRITES:
            return f"{self.verb} {self.kind}"
        if self.kind == "Event":
            return f"{self.verb} Event {self.body.get('reason', '')}".strip()
        if self.subresource == "status":
            return f"status {self.kind} {state_of(self.body)}"
        return f"{self.verb} {self.kind} {part_of(self.body)}".strip()


@dataclass
class Reply:
    """What the API server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def to_response(self) -> web.Response:
        """As it is sent on."""
        kept = {name: value for name, value in self.headers.items() if name in ("Content-Type", "Retry-After")}
        return web.Response(status=self.status, body=self.body, headers=kept)


class HungUp(Exception):  # noqa: N818 - not an error of ours
    """The connection is to be cut without an answer."""


Action = Callable[[Request, Forward], Awaitable[web.StreamResponse]]


@dataclass
class Rule:
    """What happens to some requests."""

    matches: Callable[[Request], bool]
    action: Action
    times: int = 1
    """How many requests it is for."""
    skip: int = 0
    """How many matching requests go by before."""


@dataclass
class StreamRule:
    """What happens to some watch events; `action` answers whether the stream goes on, after writing what it likes."""

    matches: Callable[[str, str], bool]
    """Takes the kind and the label of an event."""
    action: Callable[[web.StreamResponse, bytes], Awaitable[bool]]
    times: int = 1


@dataclass
class Proxy:
    """One proxy; its rules may be changed at any time."""

    upstream: str
    connector: Callable[[], aiohttp.TCPConnector]
    rules: list[Rule] = field(default_factory=list)
    stream_rules: list[StreamRule] = field(default_factory=list)
    token: str = "token-0"
    is_silent: bool = False
    """Watches that are open deliver nothing more; their connections stay."""
    is_down: bool = False
    """Every connection is refused, as while the API server is away."""
    injected: int = 0
    """Faults that were really injected."""
    writes: list[str] = field(default_factory=list)
    """Labels of the writes that came through here, in order, the lease's excepted."""
    requests: list[str] = field(default_factory=list)
    """Labels of the other requests."""
    events: list[str] = field(default_factory=list)
    """Labels of the watch events that were delivered or dropped."""
    port: int = 0

    async def start(self) -> None:
        """Listen on a free port."""
        self._session = aiohttp.ClientSession(self.upstream, connector=self.connector(), timeout=NO_LIMIT)
        self._streams: list[web.Request] = []
        application = web.Application(client_max_size=8 * 2**20)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Cut everything."""
        self.hang_up_all()
        await self._runner.cleanup()
        await self._session.close()

    def hang_up_all(self) -> None:
        """Cut the watches that are open."""
        for request in list(self._streams):
            if request.transport is not None:
                request.transport.abort()

    def inject(self, rule: Rule | StreamRule) -> None:
        """Add a rule; earlier ones are asked first."""
        if isinstance(rule, Rule):
            self.rules.append(rule)
        else:
            self.stream_rules.append(rule)

    # Inside

    async def _handle(self, raw: web.Request) -> web.StreamResponse:
        if self.is_down:
            return self._cut(raw)
        if raw.headers.get("Authorization") != f"Bearer {self.token}":
            self.injected += 1
            return refusal(401, "Unauthorized", "the token has expired")
        body = await raw.read()
        request = parse(raw.method, raw.path, raw.query.get("watch") == "true", body)
        (self.writes if request.is_write else self.requests).append(request.label)
        try:
            action = self._action_for(request)
            if action is not None:
                return await action(request, lambda: self._forward(raw, body))
            if request.verb == "watch":
                return await self._watch(raw, request)
            return (await self._forward(raw, body)).to_response()
        except (HungUp, aiohttp.ClientError):
            return self._cut(raw)

    def _action_for(self, request: Request) -> Action | None:
        for rule in self.rules:
            if rule.times > 0 and rule.matches(request):
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                rule.times -= 1
                self.injected += 1
                return rule.action
        return None

    def _cut(self, raw: web.Request) -> web.Response:
        if raw.transport is not None:
            raw.transport.abort()
        return web.Response()

    async def _forward(self, raw: web.Request, body: bytes) -> Reply:
        headers = {name: raw.headers[name] for name in PASSED_ON if name in raw.headers}
        async with self._session.request(raw.method, raw.raw_path, headers=headers, data=body or None) as answer:
            return Reply(answer.status, dict(answer.headers), await answer.read())

    async def _watch(self, raw: web.Request, request: Request) -> web.StreamResponse:
        headers = {name: raw.headers[name] for name in PASSED_ON if name in raw.headers}
        async with self._session.get(raw.raw_path, headers=headers) as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
            await response.prepare(raw)
            self._streams.append(raw)
            try:
                await self._pass_on(answer.content, response, request.kind)
            finally:
                self._streams.remove(raw)
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    async def _pass_on(self, source: aiohttp.StreamReader, response: web.StreamResponse, kind: str) -> None:
        buffer = b""
        async for chunk in source.iter_any():
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                event = json.loads(line)
                label = event_label(kind, event)
                if event["type"] != "BOOKMARK":
                    self.events.append(label)
                if not await self._deliver(response, line + b"\n", kind, label):
                    return

    async def _deliver(self, response: web.StreamResponse, line: bytes, kind: str, label: str) -> bool:
        if self.is_silent:
            return True
        for rule in self.stream_rules:
            if rule.times > 0 and rule.matches(kind, label):
                rule.times -= 1
                self.injected += 1
                return await rule.action(response, line)
        await response.write(line)
        return True


def parse(method: str, path: str, is_watch: bool, body: bytes) -> Request:
    """Read a request the way the API server does."""
    found = PATH.match(path)
    if found is None or found["plural"] not in KIND_OF:
        return Request("get", "", "", "", "", {}, path)
    verb = METHODS.get(method) or ("watch" if is_watch else "get" if found["name"] else "list")
    document = json.loads(body) if body else {}
    return Request(
        verb=verb,
        kind=KIND_OF[found["plural"]],
        namespace=found["namespace"] or "",
        name=found["name"] or str((document.get("metadata") or {}).get("name", "")),
        subresource=found["subresource"] or "",
        body=document,
        path=path,
    )


def part_of(item: Object) -> str:
    """Which child an object is: `train-1`, `prepare-1`; nothing for others."""
    labels = (item.get("metadata") or {}).get("labels") or {}
    return "-".join(labels[name] for name in (LABEL_ROLE, LABEL_ATTEMPT) if name in labels)


def state_of(item: Object) -> str:
    """What one of our resources says: phase, the reason of Ready, and what it waits for."""
    status = item.get("status") or {}
    ready = next((entry for entry in status.get("conditions") or () if entry["type"] == "Ready"), None)
    if ready is None:
        return "New"
    # PodPending comes and goes faster than two runs agree on.
    detail = re.search(r"Pod(?!Pending)[A-Z]\w+|Ending", f"{ready['reason']}: {ready.get('message', '')}")
    reason = "" if ready["reason"] == "PodPending" else ready["reason"]
    is_about_another = reason == "DatasetNotReady"
    words = [status.get("phase", ""), reason, detail[0] if detail and not is_about_another else ""]
    return " ".join(dict.fromkeys(word for word in words if word))


def event_label(kind: str, event: Object) -> str:
    """Names a watch event in every run: what it is about and what it shows."""
    item = event["object"]
    if event["type"] in ("BOOKMARK", "ERROR"):
        return f"{event['type']} {kind}"
    if kind in ("Dataset", "FineTuneJob", "ModelDeployment", "BatchInference"):
        return f"{event['type']} {kind} {state_of(item)}"
    shown = ""
    status = item.get("status") or {}
    if kind == "Pod":
        shown = status.get("phase", "")
    elif kind == "Job":
        ended = [c["type"] for c in status.get("conditions") or () if c["status"] == "True"]
        shown = "Ended" if {"Complete", "Failed"} & set(ended) else "Active" if status.get("startTime") else "New"
    return f"{event['type']} {kind} {part_of(item)} {shown}".strip()


def refusal(status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error as the API server words it."""
    document = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status,
    }  # fmt: skip
    return web.json_response(document, status=status, headers=headers)
