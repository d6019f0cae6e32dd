"""The faults: what a rule of the proxy does to a request or to a watch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from tests.faults.proxy import Action, Forward, HungUp, Request, refusal

REASONS = {
    400: "BadRequest", 403: "Forbidden", 409: "Conflict", 422: "Invalid", 429: "TooManyRequests", 500: "InternalError",
    503: "ServiceUnavailable", 504: "Timeout", 410: "Expired", 404: "NotFound",
}  # fmt: skip


def answer(status: int, message: str = "injected by a test", headers: dict[str, str] | None = None) -> Action:
    """Refuse, and do nothing."""

    async def act(_request: Request, _forward: Forward) -> web.StreamResponse:
        return refusal(status, REASONS[status], message, headers)

    return act


def answer_after_commit(status: int) -> Action:
    """Do it, and say that it failed: what the API server's own time-out looks like."""

    async def act(_request: Request, forward: Forward) -> web.StreamResponse:
        await forward()
        return refusal(status, REASONS[status], "request did not complete within the allotted timeout")

    return act


def hang_after_commit(seconds: float) -> Action:
    """Do it, and say nothing: the client's own time-out."""

    async def act(_request: Request, forward: Forward) -> web.StreamResponse:
        await forward()
        await asyncio.sleep(seconds)
        raise HungUp

    return act


async def reset(_request: Request, _forward: Forward) -> web.StreamResponse:
    """Cut the connection; nothing was done."""
    raise HungUp


async def reset_after_commit(_request: Request, forward: Forward) -> web.StreamResponse:
    """Do it, and cut the connection."""
    await forward()
    raise HungUp


async def half_an_answer(_request: Request, forward: Forward) -> web.StreamResponse:
    """Do it, and answer 200 with half of the document."""
    reply = await forward()
    return web.Response(status=reply.status, body=reply.body[: len(reply.body) // 2], content_type="application/json")


def crash_before(kill: Callable[[], None]) -> Action:
    """The operator dies before the API server hears of the request."""

    async def act(_request: Request, _forward: Forward) -> web.StreamResponse:
        kill()
        raise HungUp

    return act


def crash_after(kill: Callable[[], None]) -> Action:
    """The operator dies before it hears that the request was carried out."""

    async def act(_request: Request, forward: Forward) -> web.StreamResponse:
        await forward()
        kill()
        raise HungUp

    return act


def meanwhile(deed: Callable[[], Awaitable[object]]) -> Action:
    """Somebody does something just before the request arrives."""

    async def act(_request: Request, forward: Forward) -> web.StreamResponse:
        await deed()
        return (await forward()).to_response()

    return act


# --- watches

StreamAction = Callable[[web.StreamResponse, bytes], Awaitable[bool]]


async def drop(_response: web.StreamResponse, _line: bytes) -> bool:
    """The event is lost."""
    return True


async def close(_response: web.StreamResponse, _line: bytes) -> bool:
    """The stream ends before the event, as when the server's time is up."""
    return False


async def twice(response: web.StreamResponse, line: bytes) -> bool:
    """The event comes twice."""
    await response.write(line + line)
    return True


async def half_a_line(response: web.StreamResponse, line: bytes) -> bool:
    """The stream ends within the event."""
    await response.write(line[: len(line) // 2])
    return False


async def fall_silent(_response: web.StreamResponse, _line: bytes) -> bool:
    """The connection stays open and nothing comes any more, not even bookmarks."""
    await asyncio.sleep(3600)
    return False


def error(code: int) -> StreamAction:
    """An ERROR event ends the stream."""

    async def act(response: web.StreamResponse, _line: bytes) -> bool:
        status = {"kind": "Status", "code": code, "reason": REASONS[code], "message": "injected", "status": "Failure"}
        await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
        return False

    return act
