"""The names by which documents call each other: who is called, and who calls in a circle."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finetune_cli.facts import part
from finetune_cli.offline.documents import Document
from finetune_cli.offline.problems import Path, Problem

Key = tuple[str, str, str]
"""Kind, namespace (empty: the context's) and name."""


@dataclass(frozen=True)
class Reference:
    """A document names another object."""

    document: Document
    path: Path
    target: Key


def key_of(document: Document) -> Key:
    """What a document is called."""
    metadata = part(document.value, "metadata")
    return str(document.value.get("kind")), str(metadata.get("namespace") or ""), str(metadata.get("name") or "")


def references(document: Document) -> Iterator[Reference]:
    """Every Dataset and FineTuneJob that a document names."""
    kind, namespace, _ = key_of(document)
    for path, target, name in _named(document.value.get("spec"), ("spec",), kind):
        yield Reference(document, path, (target, namespace, name))


def _named(value: Any, path: Path, kind: str) -> Iterator[tuple[Path, str, str]]:  # noqa: ANN401
    if isinstance(value, list):
        for index, child in enumerate(value):
            yield from _named(child, (*path, index), kind)
    if not isinstance(value, dict):
        return
    for key, child in value.items():
        here = (*path, key)
        if key == "fineTuneJob" and isinstance(part(value, key).get("name"), str):
            yield (*here, "name"), "FineTuneJob", child["name"]
        elif here == ("spec", "dataset") and kind == "FineTuneJob" and isinstance(part(value, key).get("name"), str):
            yield (*here, "name"), "Dataset", child["name"]
        elif key == "dataset" and here[:3] == ("spec", "source", "mixture") and isinstance(child, str):
            yield here, "Dataset", child
        else:
            yield from _named(child, here, kind)


def circles(found: list[Reference]) -> Iterator[tuple[Reference, Problem]]:
    """A finding at each reference that leads back to the document it stands in."""
    for one in found:
        start = key_of(one.document)
        seen: set[Key] = set()
        waiting = [one.target]
        while waiting:
            key = waiting.pop()
            if key == start:
                words = f"{one.target[2]!r} leads back to this object: none of them can start"
                yield one, Problem(one.path, words)
                break
            if key not in seen:
                seen.add(key)
                waiting += [each.target for each in found if key_of(each.document) == key]


def twice(documents: list[Document]) -> Iterator[tuple[Document, Problem]]:
    """A finding at each document that is called as one before it."""
    seen: dict[Key, Document] = {}
    for document in documents:
        key = key_of(document)
        if key[2] and key in seen:
            first = seen[key]
            where = f"{first.file}:{first.line(('metadata', 'name'))}"
            yield document, Problem(("metadata", "name"), f"{key[0]} {key[2]!r} is in {where} already")
        seen.setdefault(key, document)
