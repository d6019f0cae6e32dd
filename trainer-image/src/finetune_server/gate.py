"""What every request passes: the body limit, the drain, and the count of requests in flight."""

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune_server.errors import ApiError

BODY_LIMIT = 1024 * 1024
"""Bytes of a request; a prompt of this size is far over any context we serve."""


class Gate:
    """An ASGI middleware. Lets through what should run, and knows when nothing runs any more."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._in_flight = 0
        self._is_draining = False
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def is_draining(self) -> bool:
        """Whether new generations are refused."""
        return self._is_draining

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109 - the limit of waiting, not of the work
        """Refuse new generations and wait for those in flight; whether all ended in time."""
        self._is_draining = True
        try:
            async with asyncio.timeout(timeout):
                await self._is_idle.wait()
        except TimeoutError:
            return False
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; GETs (health, metrics, models) are answered while draining."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal:
            is_openai = scope["path"].startswith("/v1/")
            body = refusal.as_openai() if is_openai else refusal.as_tgi()
            # The rest of the body is not read, so the connection cannot carry another request.
            headers = {**refusal.headers, "Connection": "close"}
            await JSONResponse(body, refusal.status, headers)(scope, receive, send)
            return
        self._in_flight += 1
        self._is_idle.clear()
        try:
            await self._app(scope, _limited(receive), send)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._is_idle.set()

    def _refusal(self, scope: Scope) -> ApiError | None:
        if self._is_draining:
            message = "this server is shutting down; try again"
            return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message, retry_after=1)
        length = Headers(scope=scope).get("content-length", "0")
        return _too_large() if length.isdigit() and int(length) > BODY_LIMIT else None


def _too_large() -> ApiError:
    return ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request is larger than {BODY_LIMIT} bytes")


def _limited(receive: Receive) -> Receive:
    """The limit again, for bodies that come in chunks and do not say their length."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > BODY_LIMIT:
            # FastAPI reads the body and lets only its own kind of exception through.
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(_too_large()), {"Connection": "close"})
        return message

    return limited
