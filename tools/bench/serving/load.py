"""A client that costs little beside the server it measures: raw sockets, and events told by counting."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_COMPLETION_TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')


@dataclass
class Answer:
    """One answered request."""

    began: float
    tokens: int = 0
    events: list[float] = field(default_factory=list)
    """When each event with text arrived; of an answer in one piece, when it did."""


@dataclass(frozen=True)
class Load:
    """What some concurrent streams got."""

    answers: list[Answer]
    seconds: float
    cpu_seconds: float
    """The server's."""

    @property
    def tokens(self) -> int:
        """Generated, of all answers."""
        return sum(answer.tokens for answer in self.answers)

    @property
    def tokens_per_s(self) -> float:
        """Of all streams together."""
        return self.tokens / self.seconds

    @property
    def first_token_seconds(self) -> list[float]:
        """Time to first token, per answer."""
        return [answer.events[0] - answer.began for answer in self.answers]

    @property
    def gaps(self) -> list[float]:
        """Seconds between two events of one answer."""
        return [
            after - before for one in self.answers for before, after in zip(one.events, one.events[1:], strict=False)
        ]


async def _ask(url: str, body: dict[str, object]) -> Answer:
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=2**22)
    content = json.dumps(body).encode()
    answer = Answer(time.monotonic())
    writer.write(
        f"POST /v1/completions HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    whole = b""
    seen = 0
    while part := await reader.read(2**20):
        whole += part
        now = time.monotonic()
        texts = whole.count(b'"text":"', max(0, seen - 7))
        answer.events.extend([now] * texts)
        seen = len(whole)
    writer.close()
    if b" 200 " not in whole[:20]:
        raise RuntimeError(f"{url}: {whole[:500]!r}")
    answer.tokens = int(_COMPLETION_TOKENS.findall(whole)[-1])
    return answer


async def _stream(url: str, bodies: Sequence[dict[str, object]]) -> list[Answer]:
    return [await _ask(url, body) for body in bodies]


def run(url: str, streams: Sequence[Sequence[dict[str, object]]], pid: int) -> Load:
    """Every stream sends its requests one after the other, all streams at once."""

    async def all_of_them() -> list[list[Answer]]:
        return await asyncio.gather(*(_stream(url, bodies) for bodies in streams))

    cpu, began = cpu_seconds(pid), time.monotonic()
    answers = asyncio.run(all_of_them())
    seconds = time.monotonic() - began
    return Load([answer for stream in answers for answer in stream], seconds, cpu_seconds(pid) - cpu)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process until now."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - not a file of ours
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def peak_mb(pid: int) -> float:
    """The most memory a process has held."""
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123
        kilobytes = next(line.split()[1] for line in file if line.startswith("VmHWM"))
    return int(kilobytes) / 1024
