"""What the plugin changes: a field of a FineTuneJob's spec, as its user would in an editor."""

from datetime import datetime
from typing import Any, Protocol

from finetune_cli.facts import Object, part

TRACKERS = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
    "meta.helm.sh/release-name": "Helm",
}
"""Labels and annotations that somebody else leaves on what it writes."""


class Patcher(Protocol):
    """What changes a job."""

    def job(self, name: str) -> Object:
        """The job as it is."""

    def patch(self, name: str, spec: dict[str, Any]) -> Object:
        """Change fields of its spec."""


def suspend(cluster: Patcher, name: str, *, wanted: bool) -> list[str]:
    """Pause a job, or let it go on; answers the lines to print."""
    job = cluster.job(name)
    word = "suspended" if wanted else "resumed"
    if bool(part(job, "spec").get("suspend")) == wanted:
        return [f"{name} is {'suspended' if wanted else 'not suspended'} already"]
    cluster.patch(name, {"suspend": wanted})
    what = "it saves a checkpoint and frees its GPU" if wanted else "it goes on from its newest checkpoint"
    return [f"{name} {word}: {what}", *owned_elsewhere(job, f"set `suspend: {str(wanted).lower()}`")]


def rerun(cluster: Patcher, name: str, token: str | None, now: datetime) -> list[str]:
    """Have inputs looked up again, and a failed run tried again; answers the lines to print."""
    job = cluster.job(name)
    word = token or now.strftime("%Y-%m-%dT%H-%M-%S")
    if part(job, "spec").get("rerun") == word:
        return [f"{name} has rerun {word!r} already; name another word with --token"]
    cluster.patch(name, {"rerun": word})
    lines = [f"{name} will look up its inputs again (rerun {word!r})"]
    if part(job, "status").get("phase") == "Succeeded" and part(job, "spec").get("reuse") != "Never":
        lines.append(
            "unless they have changed nothing is trained: its run has succeeded (spec.reuse: Never trains anew)"
        )
    return [*lines, *owned_elsewhere(job, f"set `rerun: {word}`")]


def owned_elsewhere(job: Object, remedy: str) -> list[str]:
    """A line for whoever else writes the job, and may undo what was done."""
    marks = {**part(job, "metadata", "labels"), **part(job, "metadata", "annotations")}
    owners = sorted({owner for mark, owner in TRACKERS.items() if mark in marks})
    return [f"note: {owner} writes this job and may undo this; {remedy} at its source, too" for owner in owners]
