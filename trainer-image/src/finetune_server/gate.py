"""What every request passes: API keys, limits of the body, the drain, and the count of requests in flight."""

import asyncio
import contextlib
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune_server.errors import ApiError
from finetune_server.keys import ApiKeys

BODY_LIMIT = 1024 * 1024
"""Bytes of a request; a prompt of this size is far over any context we serve."""

_READ_AND_DROPPED = 32 * BODY_LIMIT
"""Bytes of a refused request's body that are read before it is told: a client that still writes when the connection
closes sees a reset instead of the answer."""

_OPEN_PATHS = frozenset({"/health", "/info", "/metrics"})
"""What the kubelet, TGI's dashboards and Prometheus ask without a key."""


class Gate:
    """An ASGI middleware. Lets through what should run, and knows when nothing runs any more."""

    def __init__(self, app: ASGIApp, keys: ApiKeys | None, body_seconds: float) -> None:
        """Stand before an application.

        Args:
            app: What answers.
            keys: Who may ask; None: everybody.
            body_seconds: How long the client may take between two parts of its body.
        """
        self._app = app
        self._keys = keys
        self._body_seconds = body_seconds
        self._in_flight = 0
        self._is_parting = False
        self._is_draining = False
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def is_parting(self) -> bool:
        """Whether this server is leaving, though it may still answer."""
        return self._is_parting

    @property
    def is_draining(self) -> bool:
        """Whether new generations are refused."""
        return self._is_draining

    async def drain(self, linger: float, timeout: float) -> bool:  # noqa: ASYNC109 - the limit of waiting, not of the work
        """Part with everybody; whether all generations in flight ended in time.

        Args:
            linger: Seconds for which whoever still comes is answered, and told that this connection ends: those who
                route requests learn later than we that nobody should be sent here any more.
            timeout: Seconds that generations in flight get afterwards, while new ones are refused.
        """
        self._is_parting = True
        await asyncio.sleep(linger)
        self._is_draining = True
        try:
            async with asyncio.timeout(timeout):
                await self._is_idle.wait()
        except TimeoutError:
            return False
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; GETs (health, metrics, models) are answered while draining."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._unauthorized(scope)
        if scope["method"] != "POST" and not refusal:
            await self._app(scope, receive, self._parting(send))
            return
        refusal = refusal or self._refusal(scope)
        if refusal:
            await self._refuse(refusal, scope, receive, send)
            return
        self._in_flight += 1
        self._is_idle.clear()
        try:
            await self._app(scope, _limited(receive, self._body_seconds), self._parting(send))
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._is_idle.set()

    def _parting(self, send: Send) -> Send:
        """`send`, but an answer that begins while we part with everybody is its connection's last."""

        async def sending(message: Message) -> None:
            if self._is_parting and message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        return sending

    async def _refuse(self, refusal: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        is_openai = scope["path"].startswith("/v1/")
        body = refusal.as_openai() if is_openai else refusal.as_tgi()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._body_seconds):
                await _drop_body(receive)
        # What was not read even so is in the way of another request on this connection.
        headers = {**refusal.headers, "Connection": "close"}
        await JSONResponse(body, refusal.status, headers)(scope, receive, send)

    def _unauthorized(self, scope: Scope) -> ApiError | None:
        if self._keys is None or scope["path"] in _OPEN_PATHS:
            return None
        if self._keys.accepts(Headers(scope=scope).get("authorization")):
            return None
        message = "Incorrect API key provided; send one of this deployment's keys as 'Authorization: Bearer KEY'"
        return ApiError(HTTPStatus.UNAUTHORIZED, message, code="invalid_api_key")

    def _refusal(self, scope: Scope) -> ApiError | None:
        if self._is_draining:
            message = "this server is shutting down; try again"
            return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message, retry_after=1)
        length = Headers(scope=scope).get("content-length", "0")
        return _too_large() if length.isdigit() and int(length) > BODY_LIMIT else None


def _too_large() -> ApiError:
    return ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request is larger than {BODY_LIMIT} bytes")


def _limited(receive: Receive, seconds: float) -> Receive:
    """The limit again, for bodies that come in chunks and do not say their length; and one for bodies that stop."""
    received = 0
    is_complete = False

    async def limited() -> Message:
        nonlocal received, is_complete
        try:
            async with asyncio.timeout(None if is_complete else seconds):
                message = await receive()
        except TimeoutError:
            detail = f"nothing more of the body came within {seconds:g} s"
            # FastAPI reads the body and lets only its own kind of exception through.
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from None
        is_complete = not message.get("more_body", False)
        received += len(message.get("body", b""))
        if received > BODY_LIMIT:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(_too_large()), {"Connection": "close"})
        return message

    return limited


async def _drop_body(receive: Receive) -> None:
    dropped = 0
    while dropped < _READ_AND_DROPPED:
        message = await receive()
        dropped += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return
