"""A proxy before a real S3 server that answers as servers do on bad days."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Faults:
    """What goes wrong, and what was asked."""

    url: str = ""
    refuse: Callable[[str, str], int] = lambda _method, _path: 0
    """The status that a request is answered with instead; 0: none."""
    truncate: Callable[[str, str], bool] = lambda _method, _path: False
    """Whether the connection breaks off in the middle of the body."""
    delay: float = 0.0
    """Seconds before each answer."""
    requests: list[str] = field(default_factory=list)


def once_for_each(status: int, *methods: str) -> Callable[[str, str], int]:
    """Every request of some methods fails the first time."""
    seen: set[tuple[str, str]] = set()
    lock = threading.Lock()

    def refuse(method: str, path: str) -> int:
        with lock:
            if method not in methods or (method, path) in seen:
                return 0
            seen.add((method, path))
            return status

    return refuse


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: Faults
    upstream: str

    def _forward(self) -> None:
        faults = self.faults
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        faults.requests.append(f"{self.command} {self.path}")
        time.sleep(faults.delay)
        status = faults.refuse(self.command, self.path)
        if status:
            self._answer(status, {}, b"" if self.command == "HEAD" else b"<Error><Code>%d</Code></Error>" % status)
            return
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        headers = {name: value for name, value in answer.getheaders() if name.lower() != "transfer-encoding"}
        if self.command != "HEAD":
            headers["Content-Length"] = str(len(content))
        self._answer(answer.status, headers, content, cut=faults.truncate(self.command, self.path))
        connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815 - the names that http.server calls

    def _answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def faulty(endpoint: str) -> Iterator[Faults]:
    """A proxy of an S3 server, until the end of the block."""
    faults = Faults()
    handler = type("Handler", (_Handler,), {"faults": faults, "upstream": urlsplit(endpoint).netloc})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    faults.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
