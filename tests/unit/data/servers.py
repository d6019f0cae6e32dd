"""Loopback servers that speak just enough of the Hub's and of S3's HTTP for the real clients to read data."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class Served:
    """Files by path, with what was asked for and what is answered instead."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.status = 200
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.url = ""
        self.cut: int | None = None
        """Bytes after which the next answer breaks off."""
        self.before: Callable[[str], None] = lambda _: None
        """Called with the name of each file that is asked for."""

    def etag(self, name: str) -> str:
        return '"' + hashlib.md5(self.files[name]).hexdigest() + '"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.served.requests.append(f"{self.command} {self.path}")
        self.served.tokens.add(self.headers["Authorization"])
        if self.served.status != 200:
            self.send(self.served.status, b"{}")
        else:
            self.route(urlsplit(self.path).path)

    def route(self, path: str) -> None:
        raise NotImplementedError

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            is_cut = self.served.cut is not None and "ETag" in headers
            self.wfile.write(body[: self.served.cut] if is_cut else body)
            if is_cut:
                self.served.cut = None
                self.close_connection = True

    def file(self, name: str, **headers: str) -> None:
        self.served.before(name)
        if name not in self.served.files:
            self.send(404, b"", X_Error_Code="EntryNotFound")
        elif self.headers["If-Match"] not in (None, self.served.etag(name)):
            self.send(412, b"<Error><Code>PreconditionFailed</Code><Message>changed</Message></Error>")
        else:
            body = self.served.files[name]
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            if start:
                headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.send(206 if start else 200, body[start:], ETag=self.served.etag(name), **headers)

    def log_message(self, *_: object) -> None:
        pass


class _Hub(_Handler):
    def route(self, path: str) -> None:
        resolved = f"/datasets/org/rows/resolve/{COMMIT}/"
        if path == "/api/datasets/org/rows/revision/main":
            siblings = [{"rfilename": name} for name in self.served.files]
            document = {"id": "org/rows", "sha": COMMIT, "siblings": siblings}
            self.send(200, json.dumps(document).encode(), Content_Type="application/json")
        elif path.startswith(resolved):
            self.file(unquote(path.removeprefix(resolved)), X_Repo_Commit=COMMIT)
        else:
            self.send(404, b"{}", X_Error_Code="RevisionNotFound" if "org/rows" in path else "RepoNotFound")


class _S3(_Handler):
    def route(self, path: str) -> None:
        bucket, _, key = unquote(path).removeprefix("/").partition("/")
        if bucket != "raw":
            self.send(404, b"<Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>")
        elif key:
            self.file(key)
        else:
            self.list(parse_qs(urlsplit(self.path).query).get("prefix", [""])[0])

    def list(self, prefix: str) -> None:
        entries = "".join(
            f"<Contents><Key>{name}</Key><Size>{len(body)}</Size><ETag>{self.served.etag(name)}</ETag></Contents>"
            for name, body in self.served.files.items()
            if name.startswith(prefix)
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        self.send(200, body.encode(), Content_Type="application/xml")


@contextmanager
def _serving(handler: type[_Handler], files: dict[str, bytes], host: str) -> Iterator[Served]:
    served = Served(files)
    server = ThreadingHTTPServer((host, 0), type("Handler", (handler,), {"served": served}))
    server.daemon_threads = True
    served.url = f"http://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hub(files: dict[str, bytes], host: str = "127.0.0.1") -> AbstractContextManager[Served]:
    """A Hub with the dataset repository org/rows."""
    return _serving(_Hub, files, host)


def s3(files: dict[str, bytes], host: str = "127.0.0.1") -> AbstractContextManager[Served]:
    """An S3 server with the bucket raw."""
    return _serving(_S3, files, host)
