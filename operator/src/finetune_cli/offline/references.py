"""The names by which documents call each other, and what else is in a namespace: who is called, and who in a circle."""

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
    entry: str | None = None
    """The key that a Secret or ConfigMap is to have; it stands beside the name."""


_DATASETS = {("FineTuneJob", ("spec", "dataset")), ("BatchInference", ("spec", "input", "dataset"))}
"""Fields that name a Dataset, by kind."""


def key_of(document: Document) -> Key:
    """What a document is called."""
    metadata = part(document.value, "metadata")
    return str(document.value.get("kind")), str(metadata.get("namespace") or ""), str(metadata.get("name") or "")


def references(document: Document) -> Iterator[Reference]:
    """Every Dataset and FineTuneJob that a document names."""
    kind, namespace, _ = key_of(document)
    for path, target, name in _named(document.value.get("spec"), ("spec",), kind):
        yield Reference(document, path, (target, namespace, name))


def native_references(document: Document) -> Iterator[Reference]:
    """Every claim, Secret, ConfigMap and ServiceAccount that a document names and nobody makes for it."""
    _, namespace, _ = key_of(document)
    for path, value in _parts(document.value.get("spec"), ("spec",)):
        if path[-1] == "serviceAccountName" and isinstance(value, str):
            yield Reference(document, path, ("ServiceAccount", namespace, value))
        # The store's claim is made by the operator.
        elif path[-1] == "claimName" and path[1] != "storage" and isinstance(value, str):
            yield Reference(document, path, ("PersistentVolumeClaim", namespace, value))
        elif (kind := _kind_of_reference(path)) and isinstance(value, dict) and isinstance(value.get("name"), str):
            entry = value.get("key")
            known = entry if isinstance(entry, str) else None
            yield Reference(document, (*path, "name"), (kind, namespace, value["name"]), known)


def _kind_of_reference(path: Path) -> str:
    """What a mapping with a `name` names, by where it stands; empty for one that is no such reference."""
    *before, last = path
    if str(last).endswith("SecretRef") or last == "secretKeyRef" or before[-1:] == ["imagePullSecrets"]:
        return "Secret"
    return "ConfigMap" if last in ("configMap", "configMapKeyRef", "caBundle") else ""


def _parts(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:  # noqa: ANN401 - what YAML holds
    """Everything below a value, with its place."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, child in pairs:
        yield (*path, step), child
        yield from _parts(child, (*path, step))


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
        elif (kind, here) in _DATASETS and isinstance(part(value, key).get("name"), str):
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
