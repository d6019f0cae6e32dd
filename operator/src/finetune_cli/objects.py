"""Objects of any kind, read and written as plain dictionaries; and the way to a server behind a Service."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

from kubernetes import client

from finetune_cli.explanations import explained
from finetune_cli.facts import Object, part
from finetune_cli.kinds import GROUP, NATIVE, PLURALS, VERSION

FIELD_MANAGER = "kubectl-finetune"

REQUEST_SECONDS = (5, 30)
"""Limits for connecting and for an answer."""

ANSWER_SECONDS = (5, 300)
"""The same for a language model, which may have to wait for others."""


class Applied(NamedTuple):
    """What an apply came to."""

    resource: Object
    word: str
    """created, configured or unchanged."""


class Objects:
    """Objects of one namespace."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        # Any: this part of the client has no types.
        self._api: Any = api

    def get(self, plural: str, name: str, namespace: str | None = None) -> Object:
        """One of our objects.

        Raises:
            NotFoundError: there is none of that name.
        """
        where = namespace or self.namespace
        with explained(where, "get", plural, name):
            return self._json("GET", f"{_ours(where, plural)}/{quote(name)}")

    def native(self, kind: str, name: str, namespace: str | None = None) -> Object:
        """An object of one of Kubernetes' own kinds in `NATIVE`.

        Raises:
            NotFoundError: there is none of that name.
        """
        where, plural = namespace or self.namespace, NATIVE[kind]
        with explained(where, "get", plural, name):
            return self._json("GET", f"/api/v1/namespaces/{quote(where)}/{plural}/{quote(name)}")

    def all_of(
        self, plural: str, *, everywhere: bool = False, seconds: tuple[int, int] = REQUEST_SECONDS
    ) -> list[Object]:
        """All of ours, of this namespace or of all."""
        where = "" if everywhere else self.namespace
        with explained(where, "list", plural):
            return list(self._json("GET", _ours(where, plural), seconds=seconds)["items"])

    def namespaces(self, seconds: tuple[int, int]) -> list[Object]:
        """Every namespace of the cluster."""
        with explained("", "list", "namespaces"):
            return list(self._json("GET", "/api/v1/namespaces", seconds=seconds)["items"])

    def core(self, plural: str, **query: str) -> list[Object]:
        """Pods or events of the namespace."""
        with explained(self.namespace, "list", plural):
            found = self._json("GET", f"/api/v1/namespaces/{quote(self.namespace)}/{plural}", query)
        return list(found["items"])

    def apply(self, resource: Object, *, force: bool = False, dry_run: bool = False) -> Applied:
        """Server-side apply under the plugin's own name.

        Raises:
            CliError: the API server refuses it, or somebody else has set the same fields and `force` is not given.
        """
        metadata = resource["metadata"]
        where, name, plural = metadata.get("namespace") or self.namespace, metadata["name"], PLURALS[resource["kind"]]
        path = f"{_ours(where, plural)}/{quote(name)}"
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": str(force).lower()}
        if dry_run:
            query["dryRun"] = "All"
        body = {**resource, "metadata": {**metadata, "namespace": where}}
        with explained(where, "apply", plural, name):
            before = self._there(path)
            answer = self._json("PATCH", path, query, body, "application/apply-patch+yaml")
        word = "created" if before is None else "unchanged" if _wanted(before) == _wanted(answer) else "configured"
        return Applied(answer, f"{word} (dry run)" if dry_run else word)

    def patch(self, plural: str, name: str, spec: Object) -> Object:
        """Change fields of the spec of one of ours."""
        with explained(self.namespace, "patch", plural, name):
            path = f"{_ours(self.namespace, plural)}/{quote(name)}"
            query = {"fieldManager": FIELD_MANAGER}
            return self._json("PATCH", path, query, {"spec": spec}, "application/merge-patch+json")

    def delete(self, plural: str, name: str) -> None:
        """Delete one of our objects, and by its owner references what belongs to it."""
        with explained(self.namespace, "delete", plural, name):
            self._json("DELETE", f"{_ours(self.namespace, plural)}/{quote(name)}")

    @contextmanager
    def post_to_service(self, service: str, port: int, path: str, body: Object) -> Iterator[Iterator[bytes]]:
        """Ask a server in the cluster by way of the API server; the answer comes in pieces.

        It needs the right to create services/proxy.

        Raises:
            CliError: the API server, or the server behind it, refuses.
        """
        address = f"/api/v1/namespaces/{quote(self.namespace)}/services/http:{quote(service)}:{port}/proxy/{path}"
        with explained(self.namespace, "create", "services/proxy", service):
            answer = self._send("POST", address, {}, body, "application/json", ANSWER_SECONDS)
            try:
                yield answer.response.stream()
            finally:
                answer.response.close()

    def _there(self, path: str) -> Object | None:
        try:
            return self._json("GET", path)
        except client.ApiException as error:
            # Without CRDs the answer is no Status: the apply will tell.
            if error.status != 404:
                raise
            return None

    def _json(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        kind: str = "",
        seconds: tuple[int, int] = REQUEST_SECONDS,
    ) -> Object:
        answer = self._send(method, path, query or {}, body, kind, seconds)
        found: Object = json.loads(answer.read())
        return found

    def _send(
        self, method: str, path: str, query: dict[str, str], body: Object | None, kind: str, seconds: tuple[int, int]
    ) -> Any:  # noqa: ANN401 - the client's own response
        headers = {"Accept": "application/json", **({"Content-Type": kind} if kind else {})}
        request = self._api.param_serialize(
            method, path, query_params=list(query.items()), header_params=headers, body=body,
            auth_settings=["BearerToken"],
        )  # fmt: skip
        answer = self._api.call_api(*request, _request_timeout=seconds)
        if not 200 <= answer.status <= 299:
            said = answer.read().decode(errors="replace")
            raise client.ApiException.from_response(http_resp=answer, body=said, data=None)
        return answer


def _ours(namespace: str, plural: str) -> str:
    where = f"namespaces/{quote(namespace)}/" if namespace else ""
    return f"/apis/{GROUP}/{VERSION}/{where}{plural}"


def _wanted(resource: Object) -> list[Any]:
    """What people write of an object; the operator may write its status at any moment."""
    metadata = part(resource, "metadata")
    return [resource.get("spec"), metadata.get("labels"), metadata.get("annotations")]
