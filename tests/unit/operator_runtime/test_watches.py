"""Kopf under supervision: whatever it dies of, and even where it cannot die, it is started again."""

import asyncio
import time
from typing import Any

import kopf
import pytest

from finetune_operator import watches
from finetune_operator.watches import Watches


def fail() -> None:
    raise AssertionError("no current task")


async def hang_in_a_callback() -> None:
    """As Kopf 1.45.2 does when it stops a watch that is just being opened."""
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.Event().wait()


async def hang_and_ignore_the_first_cancellation() -> None:
    asyncio.get_running_loop().call_soon(fail)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0)


async def fail_at_once() -> None:
    raise RuntimeError("a watch answered 404")


@pytest.mark.parametrize("first", [fail_at_once, hang_in_a_callback, hang_and_ignore_the_first_cancellation])
def test_kopf_is_started_again(first: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[float] = []

    async def operator(*, stop_flag: asyncio.Event, **_: Any) -> None:
        starts.append(time.monotonic())
        if len(starts) == 1:
            await first()
        await stop_flag.wait()

    async def possible() -> None:
        return

    monkeypatch.setattr(kopf, "operator", operator)
    monkeypatch.setattr(watches, "PATIENCE", 0.05)
    monkeypatch.setattr(watches, "RESTART_PAUSE", 0.01)

    async def watched_from(_kind: str, _namespace: str | None) -> str:
        return "1"

    watched = Watches(kopf.OperatorRegistry(), (), possible, watched_from)
    watched.start()
    end = time.monotonic() + 10
    while len(starts) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    watched.stop()
    assert len(starts) == 2
