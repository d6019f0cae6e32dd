"""Servers that pods of the local cluster reach: they listen on the node's own bridge and stop with the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tools.cluster.settings import NODE_IP


class _Handler(BaseHTTPRequestHandler):
    """`/good.jsonl` answers all rows, `/half.jsonl` promises them and hangs up in the middle, `/page.jsonl` is a page
    for people, `/endless.jsonl` is one line of 100 MB; others are missing.
    """

    rows: bytes = b""

    def do_GET(self) -> None:
        bodies = {
            "/good.jsonl": self.rows,
            "/half.jsonl": self.rows,
            "/page.jsonl": b"<!doctype html><title>Sign in</title>",
        }
        if self.path not in (*bodies, "/endless.jsonl"):
            self.send_error(404)
            return
        megabytes = 100 if self.path == "/endless.jsonl" else 0
        body = bodies.get(self.path, b"")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + megabytes * 10**6))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/half.jsonl" else body)
        for _ in range(megabytes):
            self.wfile.write(b"a" * 10**6)
        self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        """Quiet: pytest shows what matters."""


@contextmanager
def http_server(rows: str) -> Iterator[str]:
    """The address of a server of these rows."""
    handler = type("Handler", (_Handler,), {"rows": rows.encode()})
    server = ThreadingHTTPServer((NODE_IP, 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{NODE_IP}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
