"""Jobs that tune the results of other jobs: the chain above one, and that it has no end where it is a circle."""

from collections.abc import Callable, Mapping

from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.observed import Reference

LONGEST_CHAIN = 32
"""Jobs that are followed; whoever chains more waits for the one above like for any other."""


def upstream_of(raw: Manifest) -> Reference | None:
    """The FineTuneJob whose result a resource's base model is; None where the base is something else."""
    base = (raw.get("spec") or {}).get("baseModel") or {}
    return Reference("FineTuneJob", base["fineTuneJob"]["name"]) if "fineTuneJob" in base else None


def ancestors(raw: Manifest, look: Callable[[Reference], Manifest | None]) -> dict[Reference, Manifest | None]:
    """The jobs above a resource, nearest first, as far as they exist; each once."""
    found: dict[Reference, Manifest | None] = {}
    above = upstream_of(raw)
    while above is not None and above not in found and len(found) < LONGEST_CHAIN:
        found[above] = look(above)
        above = upstream_of(found[above] or {})
    return found


def circle(name: str, upstream: str, references: Mapping[Reference, Manifest | None]) -> list[str]:
    """Names of jobs that wait for each other in a circle, from this one round to itself; else none.

    A job that has an artifact waits for nobody: a circle with one of those ends there.
    """
    names = [name]
    above: Reference | None = Reference("FineTuneJob", upstream)
    while above is not None and above.name not in names:
        names.append(above.name)
        job = references.get(above)
        if job is None or (job.get("status") or {}).get("artifact"):
            return []
        above = upstream_of(job)
    return [*names, name] if above is not None and above.name == name else []
