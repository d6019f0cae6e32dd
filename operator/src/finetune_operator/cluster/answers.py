"""What the API server answers: documents, pages of lists, and errors, which become `errors.ClusterError`s here.

Lists are read with a schema that skips what nobody needs (half of the answer is the history of fields), and object by
object: ten thousands of them would otherwise be in memory as dicts at the same time.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec

from finetune_operator.cluster.interface import Head
from finetune_operator.cluster.resources import Resource
from finetune_operator.errors import AlreadyExists, ClusterError, Conflict, Denied, Expired, NotFound, Unavailable
from finetune_operator.manifests.naming import Manifest

T = TypeVar("T")


class ListMetadata(msgspec.Struct, rename="camel"):
    """Of a page: the version of the whole list, and how to go on."""

    resource_version: str
    token: str = msgspec.field(name="continue", default="")


class WholePage(msgspec.Struct):
    """Part of a list, its objects not read yet."""

    metadata: ListMetadata
    items: list[msgspec.Raw] | None = None
    """Null where a list is empty."""

    def objects(self, kind: str, resource: Resource) -> Iterator[Manifest]:
        """Each object as a watch would show it: lists leave the kind out."""
        for raw in self.items or ():
            item: Manifest = msgspec.json.decode(raw)
            item.update(apiVersion=resource.api_version, kind=kind)
            yield item


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    namespace: str
    uid: str
    resource_version: str


class _Bare(msgspec.Struct):
    metadata: _Metadata


class BarePage(msgspec.Struct):
    """Part of a list of metadata."""

    metadata: ListMetadata
    items: list[_Bare] | None = None

    def heads(self) -> list[Head]:
        """Of each object, which it is."""
        found = (item.metadata for item in self.items or ())
        return [Head(one.uid, one.namespace, one.name, int(one.resource_version)) for one in found]


ERRORS: dict[int, type[ClusterError]] = {
    HTTPStatus.UNAUTHORIZED: Unavailable,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.REQUEST_TIMEOUT: Unavailable,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GONE: Expired,
    HTTPStatus.TOO_MANY_REQUESTS: Unavailable,
}


def read(what: str, answer: bytes, type_: type[T]) -> T:
    """The answer to `what` as a document. Raises Unavailable if it is none, as when it was cut."""
    try:
        return msgspec.json.decode(answer, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(f"{what}: an answer that is not JSON, or not the JSON it should be: {error}") from error


def refuse(status: int, text: bytes) -> None:
    """Raise the error that an answer is."""
    if status < HTTPStatus.BAD_REQUEST:
        return
    try:
        answer: dict[str, Any] = msgspec.json.decode(text, type=dict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = {"message": text[:500].decode(errors="replace")}
    message = str(answer.get("message") or f"HTTP {status}")
    if status == HTTPStatus.CONFLICT and answer.get("reason") == "AlreadyExists":
        raise AlreadyExists(message)
    if "failed calling webhook" in message:
        # The API server itself is well: a webhook, such as Kueue's, stands in the way and should be named.
        raise Denied(message)
    unnamed = Unavailable if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Denied
    raise ERRORS.get(status, unnamed)(message)
