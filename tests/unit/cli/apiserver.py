"""An HTTP server on loopback that answers as an API server does: enough of it for the plugin, with real sockets."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from typer.testing import CliRunner, Result

from finetune_cli import __main__ as cli
from finetune_cli.facts import Object

OURS = "/apis/finetune.dev/v1alpha1"


def run(*arguments: str, stdin: str = "") -> Result:
    """The plugin as it is typed; KUBECONFIG says which server it asks."""
    return CliRunner().invoke(cli.app, list(arguments), input=stdin)


class ApiServer:
    """Objects by path, and what it was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        """Method, path, query, body."""
        self.refusal: tuple[int, str | None] | None = None
        """Status and message of every answer; without a message it is no Kubernetes Status."""
        self.chat: Callable[[Object], Iterator[bytes]] | None = None
        """What a served model streams."""
        self.changes: Callable[[str], None] = lambda _path: None
        """Called before each GET: time goes on."""
        self.url = ""

    def add(self, plural: str, *resources: Object) -> None:
        for resource in resources:
            metadata = resource["metadata"]
            stored = {**resource, "metadata": {"resourceVersion": "1", **metadata}}
            self.objects[f"{OURS}/namespaces/{metadata.get('namespace', 'team')}/{plural}/{metadata['name']}"] = stored

    def add_native(self, plural: str, name: str, namespace: str = "team", **content: Any) -> None:
        """An object of one of Kubernetes' own kinds."""
        self.objects[f"/api/v1/namespaces/{namespace}/{plural}/{name}"] = {"metadata": {"name": name}, **content}

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        self.asked.append((method, path, query, body))
        if self.refusal:
            code, message = self.refusal
            return code, _status(code, message) if message else "404 page not found\n"
        match method:
            case "GET":
                self.changes(path)
                return self._get(path)
            case "PATCH" if "metadata" not in body:
                return self._merge(path, body)
            case "PATCH":
                return self._apply(path, query, body)
            case "DELETE":
                return (200, self.objects.pop(path)) if path in self.objects else _missing(path)
        return 405, _status(405, f"{method} is not known")

    def _get(self, path: str) -> tuple[int, Any]:
        if path in self.objects:
            return 200, self.objects[path]
        parts = path.split("/")
        is_list = parts[-2] in ("v1alpha1", "v1") or (len(parts) >= 3 and parts[-3] == "namespaces")
        if not is_list:
            return _missing(path)
        everywhere = "namespaces" not in parts
        found = [
            one
            for key, one in self.objects.items()
            if key.rsplit("/", 2)[1] == parts[-1] and (everywhere or key.startswith(f"{path}/"))
        ]
        return 200, {"kind": "List", "items": found}

    def _merge(self, path: str, body: Object) -> tuple[int, Any]:
        """A patch of the spec's own fields."""
        if path not in self.objects:
            return _missing(path)
        self.objects[path]["spec"].update(body["spec"])
        return 200, self.objects[path]

    def _apply(self, path: str, query: dict[str, str], body: Object) -> tuple[int, Any]:
        before = self.objects.get(path)
        if before and before["metadata"].get("managedBy") and query.get("force") != "true":
            return 409, _status(
                409, f'Apply failed with 1 conflict: conflict with "{before["metadata"]["managedBy"]}": .spec.method'
            )
        same = before is not None and before["spec"] == body["spec"]
        version = before["metadata"]["resourceVersion"] if before and same else str(len(self.asked))
        after = {**(before or {}), **body, "metadata": {**body["metadata"], "resourceVersion": version}}
        if query.get("dryRun") != "All":
            self.objects[path] = after
        return 200, after


def _missing(path: str) -> tuple[int, Any]:
    plural, name = path.split("/")[-2:]
    return 404, _status(404, f'{plural}.finetune.dev "{name}" not found')


def _status(code: int, message: str) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


@contextmanager
def running() -> Iterator[ApiServer]:
    """The server, listening."""
    server = ApiServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            split = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or "null")
            query = {key: values[0] for key, values in parse_qs(split.query).items()}
            if "/proxy/" in split.path and server.chat and not server.refusal:
                server.asked.append((self.command, split.path, query, body))
                self.stream(server.chat(body))
                return
            code, answer = server.answer(self.command, split.path, query, body)
            content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PATCH = do_DELETE = do_POST = handle_any  # noqa: N815 - http.server's names

        def stream(self, pieces: Iterator[bytes]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        server.url = f"http://127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


def kubeconfig(path: Path, url: str, namespace: str = "team") -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "current-context": "here",
    }
    path.write_text(yaml.safe_dump(document))
    return path
