"""YAML as kubectl reads it, with the line of every field.

kubectl's YAML is not PyYAML's: `1e-5` is a number, `2026-11-21` and `1:30` are text, and `y` is true (a name that is
`y` wants quotes). Source of the rules: resolve.go of sigs.k8s.io/yaml's fork of go-yaml version 2.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from finetune_cli.offline.problems import Path, Problem

_INTEGER = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_TRUE = {"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}
_FALSE = {"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"}
_NULL = {"", "~", "null", "Null", "NULL"}
_STRING = "tag:yaml.org,2002:str"
_UNTAGGED = "untagged"

MOST_REPEATED = 100_000
"""Values that the aliases of a document may repeat: kubectl, too, refuses what is small and stands for millions."""


class UnreadableError(ValueError):
    """A file cannot be read as YAML; the message tells what, `line` where (1 is the first)."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class Document:
    """One object of a file."""

    file: str
    value: Any
    node: yaml.Node
    problems: list[Problem] = field(default_factory=list)
    """What is wrong with the YAML itself: a key twice."""

    def line(self, path: Path) -> int:
        """The line of the field, or of the nearest one around it that is written; 1 is the first."""
        node = self.node
        line: int = node.start_mark.line
        for step in path:
            found = _step(node, step)
            if found is None:
                break
            line, node = found
        return line + 1


def read(text: str, file: str) -> list[Document]:
    """The objects of a file; the items of a List are objects of their own.

    Raises:
        UnreadableError: it is no YAML that kubectl would take.
    """
    documents = []
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            document = _document(node, file)
            items = document.value.get("items") if isinstance(document.value, dict) else None
            if isinstance(items, list) and str(document.value.get("kind", "")).endswith("List"):
                found = _step(node, "items")
                nodes = found[1].value if found else []
                documents += [_document(child, file) for child in nodes]
            elif document.value is not None:
                documents.append(document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UnreadableError(" ".join(str(error.problem or error).split()), mark.line + 1 if mark else 1) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UnreadableError(f"{error.reason}: character U+{int(error.character):04X}", line) from error
    except RecursionError as error:
        raise UnreadableError("it is nested too deeply", 1) from error
    return documents


class _Loader(yaml.SafeLoader):
    """Decides no types: `_scalar` does."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:  # noqa: ANN401 - PyYAML's own signature
        """The tag of what has none."""
        return _UNTAGGED if kind is yaml.ScalarNode else super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


def _document(node: yaml.Node, file: str) -> Document:
    problems: list[Problem] = []
    value = _Values(problems).value(node, ())
    written: dict[int, int] = {}
    if _meant(node, written) - len(written) > MOST_REPEATED:
        message = f"its aliases repeat more than {MOST_REPEATED:,} values; write what is meant without them"
        raise UnreadableError(message, node.start_mark.line + 1)
    return Document(file, value, node, problems)


def _meant(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, what aliases repeat counted each time; `known` gets every node once."""
    if id(node) not in known:
        children = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            children = [child for _, child in children]
        known[id(node)] = 1 + sum(_meant(child, known) for child in children)
    return known[id(node)]


class _Values:
    """Nodes as plain values; an anchor that is used often is read once."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self._known: dict[int, Any] = {}
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: Path) -> Any:  # noqa: ANN401 - what YAML holds
        key = id(node)
        if key in self._open:
            raise UnreadableError("an alias holds itself", node.start_mark.line + 1)
        if key not in self._known:
            self._open.add(key)
            self._known[key] = self._read(node, path)
            self._open.remove(key)
        return self._known[key]

    def _read(self, node: yaml.Node, path: Path) -> Any:  # noqa: ANN401
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        return _scalar(node) if isinstance(node, yaml.ScalarNode) else None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _key(key_node)
            if key == "<<" and key_node.style is None:
                found = self.value(value_node, path)
                for one in found if isinstance(found, list) else [found]:
                    merged = {**(one if isinstance(one, dict) else {}), **merged}
                continue
            if key in own:
                self._problems.append(Problem((*path, key), "is written twice; remove one"))
            own[key] = self.value(value_node, (*path, key))
        return {**merged, **own}


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise UnreadableError("a key is a word, not a list or a mapping", node.start_mark.line + 1)
    value = _scalar(node)
    return value if isinstance(value, str) else str(node.value)


def _scalar(node: yaml.ScalarNode) -> Any:  # noqa: ANN401
    text: str = node.value
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        # JSON writes a character beyond the first 65,536 as two escapes.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if node.tag == _STRING or (node.tag == _UNTAGGED and node.style is not None):
        return text
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    return _number(text)


def _number(text: str) -> Any:  # noqa: ANN401
    digits = text.replace("_", "")
    if _INTEGER.match(text):
        plain = digits.lstrip("+-")
        if len(plain) > 1 and plain[0] == "0" and plain[1].isdigit():
            digits = digits.replace(plain, f"0o{plain[1:]}")
        try:
            return int(digits, 0)
        except ValueError:
            # More digits than Python reads as a number.
            return float("inf")
    if _FLOAT.match(text):
        return float(digits)
    return float(digits.replace(".", "", 1)) if _INFINITE.match(text) else text


def _step(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    """Line of a key or item, and its value."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        child = node.value[step]
        return child.start_mark.line, child
    if isinstance(node, yaml.MappingNode):
        # The last of several counts, as in the value; a merged one stands where it was written.
        for key, child in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == step:
                return key.start_mark.line, child
        return next((found for child in _merged(node) if (found := _step(child, step))), None)
    return None


def _merged(node: yaml.MappingNode) -> Iterator[yaml.Node]:
    for key, child in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == "<<":
            yield from child.value if isinstance(child, yaml.SequenceNode) else [child]
