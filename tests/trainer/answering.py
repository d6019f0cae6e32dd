"""A real OpenAI-compatible server that answers as a test says."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, str, dict[str, str]]
"""Status, the judge's words (or a body), headers."""


class Server(ThreadingHTTPServer):
    """Answers every question by a function of the number of requests so far and the last turn."""

    answer: Callable[[int, str], Answer]

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), _Handler)
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.seen.append(body)
            self.server.keys.append(self.headers["authorization"])
            number = len(self.server.seen)
        status, words, headers = self.server.answer(number, body["messages"][-1]["content"])
        data = json.dumps({"choices": [{"message": {"content": words}}]}) if status == 200 else words
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def answering(host: str = "127.0.0.1") -> Iterator[Server]:
    """A server that answers on an address of this machine."""
    found = Server(host)
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        found.shutdown()
        found.server_close()
        thread.join()
