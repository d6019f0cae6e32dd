"""Downloads from a server that misbehaves."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from finetune_contract.datasets import DatasetSource, HttpSource
from finetune_contract.failure import FailureReason
from finetune_trainer.data import http
from tests.unit.data.conftest import Pod, jsonl, make_text

BODY = jsonl({"text": make_text(number)} for number in range(200)).encode()
HALF = len(BODY) // 2


class Server:
    """Answers every request with the next of its behaviours, the last one for ever."""

    def __init__(self) -> None:
        self.behaviours: list[Callable[[BaseHTTPRequestHandler], None]] = [whole]
        self.ranges: list[str | None] = []
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.ranges.append(request.headers["Range"])
        behaviour = self.behaviours[0] if len(self.behaviours) == 1 else self.behaviours.pop(0)
        behaviour(request)


def send(
    request: BaseHTTPRequestHandler, body: bytes, status: int = 200, length: int | None = None, **headers: str
) -> None:
    request.send_response(status)
    headers.setdefault("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def whole(request: BaseHTTPRequestHandler) -> None:
    send(request, BODY)


def half(request: BaseHTTPRequestHandler) -> None:
    send(request, BODY[:HALF], length=len(BODY), ETag='"1"')


def half_without_etag(request: BaseHTTPRequestHandler) -> None:
    send(request, BODY[:HALF], length=len(BODY))


def rest(request: BaseHTTPRequestHandler) -> None:
    assert request.headers["If-Range"] == '"1"'
    start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    content_range = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    send(request, BODY[start:], status=206, ETag='"1"', Content_Range=content_range)


def another_range(request: BaseHTTPRequestHandler) -> None:
    send(request, BODY[5:], status=206, ETag='"1"', Content_Range=f"bytes 5-{len(BODY) - 1}/{len(BODY)}")


def html(request: BaseHTTPRequestHandler) -> None:
    send(request, b"<!doctype html><title>Sign in</title>")


def status(code: int) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: send(request, b"", status=code)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(http, "_BACK_OFF_SECONDS", (0.0, 0.0, 0.0))
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listener.server_port}/data/tickets.jsonl"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    listener.shutdown()
    listener.server_close()
    thread.join()


def source(server: Server, *sha256: str) -> DatasetSource:
    return DatasetSource(http=HttpSource(urls=(server.url,), sha256=sha256))


def test_a_file_is_downloaded_and_checked(pod: Pod, server: Server) -> None:
    assert pod.prepare(source(server, hashlib.sha256(BODY).hexdigest())).rows_kept == 200


@pytest.mark.parametrize(
    ("behaviours", "ranges"),
    [
        ([half, rest], [None, f"bytes={HALF}-"]),
        ([half, status(503), rest], [None, f"bytes={HALF}-", f"bytes={HALF}-"]),
        ([half, whole], [None, f"bytes={HALF}-"]),
        ([half_without_etag, whole], [None, None]),
        ([half, another_range, rest], [None, f"bytes={HALF}-", f"bytes={HALF}-"]),
    ],
    ids=["resumed", "unavailable in between", "no ranges", "no ETag", "another range"],
)
def test_a_dropped_connection_is_resumed(
    pod: Pod,
    server: Server,
    behaviours: list[Callable[[BaseHTTPRequestHandler], None]],
    ranges: list[str | None],
) -> None:
    server.behaviours = behaviours
    assert pod.prepare(source(server, hashlib.sha256(BODY).hexdigest())).rows_kept == 200
    assert server.ranges == ranges


@pytest.mark.parametrize(
    ("behaviour", "requests", "said"),
    [
        (status(403), 1, "answered 403 Forbidden"),
        (status(500), 4, "answered 500 Internal Server Error"),
        (half_without_etag, 4, f"stopped after {HALF / 1000:.1f} kB: peer closed connection"),
    ],
    ids=["403", "500", "stops half-way"],
)
def test_a_source_that_does_not_deliver_never_yields_a_revision(
    pod: Pod, server: Server, behaviour: Callable[[BaseHTTPRequestHandler], None], requests: int, said: str
) -> None:
    server.behaviours = [behaviour]
    result = pod.prepare(source(server))
    pod.fails(result, FailureReason.SOURCE_UNAVAILABLE, f"spec.source.http: {server.url} {said}")
    assert len(server.ranges) == requests


def test_an_address_that_leads_nowhere_is_named_and_asked_once(pod: Pod, server: Server) -> None:
    server.behaviours = [status(404)]
    result = pod.prepare(source(server))
    pod.fails(result, FailureReason.SOURCE_NOT_FOUND, f"spec.source.http: {server.url} answered 404 Not Found")
    assert len(server.ranges) == 1


def test_a_wrong_checksum_is_named(pod: Pod, server: Server) -> None:
    found = hashlib.sha256(BODY).hexdigest()
    said = f"spec.source.http.sha256[0]: {server.url} has {found}, not {'0' * 64}"
    pod.fails(pod.prepare(source(server, "0" * 64)), FailureReason.DATASET_INVALID, said)


def test_html_instead_of_json_is_named(pod: Pod, server: Server) -> None:
    server.behaviours = [html]
    said = "tickets.jsonl: is HTML or XML, not JSON lines"
    pod.fails(pod.prepare(source(server)), FailureReason.DATASET_INVALID, said)


@pytest.mark.parametrize(
    ("url", "reason", "said"),
    [
        ("http://127.0.0.1:9/x", FailureReason.SOURCE_UNAVAILABLE, "http://127.0.0.1:9/x stopped after 0 bytes"),
        ("ftp://127.0.0.1/x", FailureReason.SOURCE_UNAVAILABLE, "unsupported protocol"),
        ("http://host:port/", FailureReason.INVALID_PLAN, "Invalid port"),
    ],
    ids=["nobody there", "scheme", "no URL"],
)
def test_an_address_without_a_server_is_named(
    pod: Pod, server: Server, url: str, reason: FailureReason, said: str
) -> None:
    pod.fails(pod.prepare(DatasetSource(http=HttpSource(urls=(url,)))), reason, said)


def test_as_many_checksums_as_urls_are_wanted(pod: Pod, server: Server) -> None:
    said = "spec.source.http.sha256: has 2 checksums for 1 URLs"
    pod.fails(pod.prepare(source(server, "0" * 64, "0" * 64)), FailureReason.INVALID_PLAN, said)
