"""Servers that pods of the local cluster reach: they listen on the node's own bridge and stop with the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tools.cluster.settings import NODE_IP


class _Handler(BaseHTTPRequestHandler):
    """`/good.jsonl` answers all rows; `/half.jsonl` promises them and hangs up in the middle; others are missing."""

    rows: bytes = b""

    def do_GET(self) -> None:
        if self.path not in ("/good.jsonl", "/half.jsonl"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.rows)))
        self.end_headers()
        half = self.path == "/half.jsonl"
        self.wfile.write(self.rows[: len(self.rows) // 2] if half else self.rows)
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
