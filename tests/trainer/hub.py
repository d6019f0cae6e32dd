"""A Hub on loopback that keeps what is pushed to it: the few routes of huggingface.co that an upload uses.

It is not the Hub: it shows that the real client makes repository, branch and commit, and what arrives. The Hub's newer
protocol for large files (Xet) is not spoken here.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Repository:
    """Branches, each a list of commits with all files."""

    def __init__(self, *, private: bool) -> None:
        self.private = private
        self.branches: dict[str, list[dict[str, bytes]]] = {"main": [{}]}

    def head(self, branch: str) -> str:
        """A name for the newest commit."""
        return hashlib.sha1(f"{branch}/{len(self.branches[branch])}".encode()).hexdigest()


class Hub:
    """Repositories, and the large files that wait for their commit."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.url = ""
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.down = False

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        """What a branch holds."""
        return self.repositories[repo].branches[branch][-1]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        if self.hub.down:
            self._send(503, {})
        elif path.startswith("/large/"):
            self.hub.large[path.removeprefix("/large/")] = body
            self._send(200, {})
        elif self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._send(401, {"error": "Invalid credentials"})
        elif path == "/api/repos/create":
            wish = json.loads(body)
            name = f"{wish['organization']}/{wish['name']}"
            self.hub.repositories.setdefault(name, Repository(private=wish.get("visibility") == "private"))
            self._send(200, {"url": f"{self.hub.url}/{name}"})
        elif path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [self._large(item) for item in json.loads(body)["objects"]]
            self._send(200, {"transfer": "basic", "objects": objects})
        else:
            self._repository(path, body)

    def _large(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "actions": {"upload": {"href": f"{self.hub.url}/large/{item['oid']}"}}}

    def _repository(self, path: str, body: bytes) -> None:
        owner, name, *rest = path.removeprefix("/api/models/").split("/")
        repository = self.hub.repositories.get(f"{owner}/{name}")
        if repository is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        action, branch = rest or ("", "main")
        if action == "branch":
            repository.branches.setdefault(branch, [{}])
            self._send(200, {})
        elif action == "preupload":
            self._send(200, {"files": [self._mode(repository, branch, item) for item in json.loads(body)["files"]]})
        elif action == "commit":
            self._commit(repository, branch, [json.loads(line) for line in body.decode().splitlines()])
            url = f"{self.hub.url}/{owner}/{name}/commit/{repository.head(branch)}"
            self._send(200, {"commitUrl": url, "commitOid": repository.head(branch)})
        else:
            self._send(200, {"id": f"{owner}/{name}", "sha": repository.head(branch), "siblings": []})

    def _mode(self, repository: Repository, branch: str, item: dict[str, Any]) -> dict[str, Any]:
        known = repository.branches[branch][-1].get(item["path"])
        is_large = item["path"].endswith((".safetensors", ".gguf"))
        oid = None
        if known is not None:
            blob = b"blob %d\0" % len(known) + known
            oid = hashlib.sha256(known).hexdigest() if is_large else hashlib.sha1(blob).hexdigest()
        mode = "lfs" if is_large else "regular"
        return {"path": item["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _commit(self, repository: Repository, branch: str, lines: list[dict[str, Any]]) -> None:
        files = dict(repository.branches[branch][-1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        repository.branches[branch].append(files)

    def _send(self, status: int, document: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, value in {**fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(token: str) -> Iterator[Hub]:
    """A Hub that knows one token."""
    hub = Hub(token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
