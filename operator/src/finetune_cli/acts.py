"""What the plugin changes: a field of a FineTuneJob's or BatchInference's spec, as its user would in an editor."""

from datetime import datetime
from typing import Any, Protocol

from finetune_cli.facts import Object, part
from finetune_cli.kinds import RunKind

TRACKERS = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
    "meta.helm.sh/release-name": "Helm",
}
"""Labels and annotations that somebody else leaves on what it writes."""


PAUSED = {
    RunKind.JOB: "it saves a checkpoint and frees its GPU",
    RunKind.BATCH: "its pod ends and frees its GPU, and what was answered is kept",
}
GOES_ON = {
    RunKind.JOB: "it goes on from its newest checkpoint",
    RunKind.BATCH: "it goes on from what was answered",
}
UNCHANGED = {
    RunKind.JOB: "unless they have changed nothing is trained: its run has succeeded (spec.reuse: Never trains anew)",
    RunKind.BATCH: "unless they have changed nothing is answered again",
}


class Patcher(Protocol):
    """What changes an object."""

    def get(self, plural: str, name: str) -> Object:
        """The object as it is."""

    def patch(self, plural: str, name: str, spec: dict[str, Any]) -> Object:
        """Change fields of its spec."""


def suspend(objects: Patcher, kind: RunKind, name: str, *, wanted: bool) -> list[str]:
    """Pause a run, or let it go on; answers the lines to print."""
    found = objects.get(kind.plural, name)
    word = "suspended" if wanted else "resumed"
    if bool(part(found, "spec").get("suspend")) == wanted:
        return [f"{name} is {'suspended' if wanted else 'not suspended'} already"]
    objects.patch(kind.plural, name, {"suspend": wanted})
    what = PAUSED[kind] if wanted else GOES_ON[kind]
    return [f"{name} {word}: {what}", *owned_elsewhere(kind, found, f"set `suspend: {str(wanted).lower()}`")]


def rerun(objects: Patcher, kind: RunKind, name: str, token: str | None, now: datetime) -> list[str]:
    """Have inputs looked up again, and a failed run tried again; answers the lines to print."""
    found = objects.get(kind.plural, name)
    word = token or now.strftime("%Y-%m-%dT%H-%M-%S")
    if part(found, "spec").get("rerun") == word:
        return [f"{name} has rerun {word!r} already; name another word with --token"]
    objects.patch(kind.plural, name, {"rerun": word})
    lines = [f"{name} will look up its inputs again (rerun {word!r})"]
    if part(found, "status").get("phase") == "Succeeded" and part(found, "spec").get("reuse") != "Never":
        lines.append(UNCHANGED[kind])
    return [*lines, *owned_elsewhere(kind, found, f"set `rerun: {word}`")]


def owned_elsewhere(kind: RunKind, found: Object, remedy: str) -> list[str]:
    """A line for whoever else writes the object, and may undo what was done."""
    marks = {**part(found, "metadata", "labels"), **part(found, "metadata", "annotations")}
    owners = sorted({owner for mark, owner in TRACKERS.items() if mark in marks})
    return [f"note: {owner} writes this {kind} and may undo this; {remedy} at its source, too" for owner in owners]
