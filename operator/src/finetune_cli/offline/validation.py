"""Documents of files as findings, each with its file and line."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from finetune_cli.errors import CliError, UnreachableError
from finetune_cli.facts import part
from finetune_cli.kinds import GROUP, NATIVE, VERSION
from finetune_cli.offline import references
from finetune_cli.offline.cel import broken_rules
from finetune_cli.offline.crd_schemas import schemas
from finetune_cli.offline.documents import Document, UnreadableError, read
from finetune_cli.offline.problems import Level, Problem, did_you_mean, dotted, shown
from finetune_cli.offline.references import Key, Reference
from finetune_cli.offline.schema import Checked

Look = Callable[[Key], Collection[str] | None]
"""Asks a cluster for an object: the keys of a Secret's or ConfigMap's data, nothing for other kinds; None: not there.

May raise a CliError where it cannot be told."""

MOST_BYTES = 1_500_000
"""About what etcd takes (1.5 MiB), less what the API server adds."""


@dataclass(frozen=True)
class Finding:
    """One line of the answer."""

    file: str
    line: int
    subject: str
    """`FineTuneJob/triage`; empty when it is about a file."""
    path: str
    message: str
    level: Level


@dataclass
class Report:
    """What was found out about files."""

    findings: list[Finding]
    documents: list[Document]
    """Those of our kinds."""

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.level is Level.ERROR for finding in self.findings)


def validate(texts: Iterable[tuple[str, str]], look: Look | None = None) -> Report:
    """Checks the YAML of files, given as (name, text) pairs.

    `look` is asked for objects that are named, but are in none of the files. Without it, Datasets and FineTuneJobs are
    a note, and Kubernetes' own kinds are not looked at.

    Raises:
        UnreachableError: by `look`.
    """
    findings: list[Finding] = []
    ours: list[Document] = []
    others: set[Key] = set()
    for file, text in texts:
        try:
            documents = read(text, file)
        except UnreadableError as error:
            findings.append(Finding(file, error.line, "", "", f"cannot be read as YAML: {error}", Level.ERROR))
            continue
        if not documents:
            findings.append(Finding(file, 1, "", "", "holds no object", Level.NOTE))
        for document in documents:
            strange = _stranger(document)
            if strange is None:
                ours.append(document)
            else:
                findings.append(_finding(document, strange))
                if isinstance(document.value, dict):
                    others.add(references.key_of(document))
    for document in ours:
        findings += [_finding(document, problem) for problem in problems_of(document)]
    findings += [_finding(document, problem) for document, problem in _between(ours, look)]
    if look is not None:
        named = [one for document in ours for one in references.native_references(document)]
        findings += [
            _finding(one.document, problem)
            for one in named
            if one.target not in others
            for problem in _looked_up(one, look)
        ]
    files = list(dict.fromkeys(finding.file for finding in findings))
    findings.sort(key=lambda finding: (files.index(finding.file), finding.line))
    return Report(findings, ours)


def problems_of(document: Document) -> list[Problem]:
    """What is wrong with one document of our kinds, taken by itself."""
    schema = schemas()[document.value["kind"]]
    value = {name: child for name, child in document.value.items() if name != "status"}
    checked = Checked(schema, value)
    found = [*document.problems, *checked.problems]
    metadata = part(value, "metadata")
    if not metadata.get("name") and not metadata.get("generateName"):
        found.append(Problem(("metadata", "name"), "is required: name the object"))
    size = _size(document.value)
    if size > MOST_BYTES:
        found.append(Problem((), f"is too large: {size:,} bytes; at most about {MOST_BYTES:,} are stored"))
    return [*found, *broken_rules(schema, checked)]


def _size(value: Any) -> int:  # noqa: ANN401 - what YAML holds
    """About how many bytes it is as JSON."""
    if isinstance(value, str):
        return len(value.encode(errors="replace")) + 3
    if isinstance(value, dict):
        return 3 + sum(len(key) + 4 + _size(child) for key, child in value.items())
    return 3 + sum(map(_size, value)) if isinstance(value, list) else 6


def _stranger(document: Document) -> Problem | None:
    """Why a document is not looked at."""
    value = document.value
    if not isinstance(value, dict):
        return Problem((), f"{shown(value)} is no Kubernetes object; write apiVersion, kind, metadata and spec")
    version, kind = value.get("apiVersion"), value.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        missing = "apiVersion" if not isinstance(version, str) else "kind"
        return Problem((missing,), "is required, and is text")
    group = version.split("/")[0]
    if group != GROUP:
        near = did_you_mean(group, [GROUP]) if kind in schemas() else ""
        if kind in schemas():
            return Problem(("apiVersion",), f"{shown(version)} has no {kind}{near}; write {GROUP}/{VERSION}")
        return Problem((), f"passed over: {kind} of {version} is not one of {', '.join(schemas())}", Level.NOTE)
    if version != f"{GROUP}/{VERSION}":
        return Problem(("apiVersion",), f"{shown(version)} is not known here; write {GROUP}/{VERSION}")
    if kind not in schemas():
        return Problem(("kind",), f"{shown(kind)} is no kind of {GROUP}" + did_you_mean(kind, schemas()))
    return None


def _between(ours: list[Document], look: Look | None) -> Iterator[tuple[Document, Problem]]:
    yield from references.twice(ours)
    there = {references.key_of(document) for document in ours}
    found = [one for document in ours for one in references.references(document)]
    for one, problem in references.circles(found):
        # One that names itself is refused by a rule of the CRD.
        if one.target != references.key_of(one.document):
            yield one.document, problem
    for one in found:
        if one.target in there:
            continue
        kind, _, name = one.target
        near = did_you_mean(name, [key[2] for key in there if key[0] == kind])
        near = near if "did you mean" in near else ""
        if look is None:
            words = f"{kind} {name!r} is in none of these files{near or '; --cluster asks the cluster'}"
            yield one.document, Problem(one.path, words, Level.NOTE)
        else:
            for problem in _looked_up(one, look, near):
                yield one.document, problem


def _looked_up(one: Reference, look: Look, near: str = "") -> Iterator[Problem]:
    """What the cluster says to a name; `near` is a better remedy than to make what is missing."""
    kind, _, name = one.target
    try:
        found = look(one.target)
    except UnreachableError:
        raise
    except CliError as error:
        yield Problem(one.path, f"{kind} {name!r} was not checked: {error}", Level.NOTE)
        return
    if found is None:
        remedy = near or f"; {_made_by(one)}"
        yield Problem(one.path, f"{kind} {name!r} is in none of these files, nor in the cluster{remedy}")
    elif kind in NATIVE and one.entry is not None and one.entry not in found:
        words = f"{kind} {name!r} has no key {one.entry!r}; it has {', '.join(sorted(found)) or 'none'}"
        yield Problem((*one.path[:-1], "key"), words)


def _made_by(one: Reference) -> str:
    """How to make what is missing."""
    kind, namespace, name = one.target
    there = f" -n {namespace}" if namespace else ""
    match kind:
        case "Secret" if one.entry:
            return f"`kubectl create secret generic {name}{there} --from-literal={one.entry}=...` makes it"
        case "ConfigMap" if one.entry:
            return f"`kubectl create configmap {name}{there} --from-file={one.entry}=FILE` makes it"
    return "create it, or name another"


def _finding(document: Document, problem: Problem) -> Finding:
    subject = ""
    if isinstance(document.value, dict):
        words = (document.value.get("kind"), part(document.value, "metadata").get("name"))
        subject = "/".join(word for word in words if isinstance(word, str))
    path, message = dotted(problem.path), problem.message
    # Rules name the field themselves, some from the root, some from where they stand.
    if path and re.match(rf"{re.escape(path)}\b|(metadata|spec)\.", message):
        path = ""
    return Finding(document.file, document.line(problem.path), subject, path, message, problem.level)
