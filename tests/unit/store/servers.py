"""Loopback servers that speak just enough of the Hub's and of S3's HTTP for the real clients."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class Served:
    """Files by path, with what was asked for and what is answered instead."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.status = 200
        self.requests: list[str] = []
        self.url = ""

    def downloads(self) -> int:
        return sum(request.startswith("GET") and "/resolve/" in request for request in self.requests)

    def etag(self, name: str) -> str:
        return hashlib.md5(self.files[name].encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    served: Served

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.served.requests.append(f"{self.command} {self.path}")
        if self.served.status != 200:
            self._send(self.served.status, b"{}", {})
        else:
            self._route(urlsplit(self.path).path)

    def _route(self, path: str) -> None:
        raise NotImplementedError

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _file(self, name: str, headers: dict[str, str]) -> None:
        if name not in self.served.files:
            self._send(404, b"", headers)
        else:
            self._send(200, self.served.files[name].encode(), {"ETag": f'"{self.served.etag(name)}"', **headers})

    def log_message(self, *_: object) -> None:
        pass


class _Hub(_Handler):
    def _route(self, path: str) -> None:
        if path == "/api/models/org/tiny/revision/main":
            siblings = [{"rfilename": name, "size": len(text)} for name, text in self.served.files.items()]
            self._json({"id": "org/tiny", "sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}})
        elif path == f"/api/models/org/tiny/tree/{COMMIT}":
            files = self.served.files.items()
            self._json(
                [
                    {"type": "file", "path": n, "size": len(t), "oid": hashlib.sha1(t.encode()).hexdigest()}
                    for n, t in files
                ]
            )
        elif path.startswith(f"/org/tiny/resolve/{COMMIT}/"):
            self._file(path.removeprefix(f"/org/tiny/resolve/{COMMIT}/"), {"X-Repo-Commit": COMMIT})
        else:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound" if "org/tiny" in path else "RepoNotFound"})

    def _json(self, document: object) -> None:
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})


class _S3(_Handler):
    def _route(self, path: str) -> None:
        bucket, _, key = unquote(path).removeprefix("/").partition("/")
        if bucket != "models":
            self._send(404, b"<Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>", {})
        elif key:
            self._file(key, {"Accept-Ranges": "bytes"})
        else:
            self._list(parse_qs(urlsplit(self.path).query).get("prefix", [""])[0])

    def _list(self, prefix: str) -> None:
        contents = "".join(
            f"<Contents><Key>{name}</Key><Size>{len(text)}</Size><ETag>&quot;{self.served.etag(name)}&quot;</ETag></Contents>"
            for name, text in self.served.files.items()
            if name.startswith(prefix)
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        self._send(200, body.encode(), {"Content-Type": "application/xml"})


@contextmanager
def _serving(handler: type[_Handler], files: dict[str, str]) -> Iterator[Served]:
    served = Served(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"served": served}))
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hub(files: dict[str, str]) -> AbstractContextManager[Served]:
    """A Hub with one repository, `org/tiny`, at COMMIT."""
    return _serving(_Hub, files)


def s3(files: dict[str, str]) -> AbstractContextManager[Served]:
    """An S3 server with one bucket, `models`."""
    return _serving(_S3, files)
