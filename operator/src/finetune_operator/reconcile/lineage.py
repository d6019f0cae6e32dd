"""Jobs that learn from the results of other jobs: those above one, and that some wait for each other in a circle."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.observed import Reference

LONGEST_CHAIN = 32
"""Jobs that are followed; whoever chains more waits for the one above like for any other."""


def named_in(spec: dict[str, Any]) -> Iterator[str]:
    """The FineTuneJobs that a spec names; a spec that is not valid names what it can."""
    rewards = [reward for method in ("grpo", "rloo") for reward in (spec.get(method) or {}).get("rewards") or ()]
    places = [spec.get("baseModel"), (spec.get("distillation") or {}).get("teacher"), *rewards]
    for place in places:
        if name := ((place or {}).get("fineTuneJob") or {}).get("name"):
            yield name


def ancestors(raw: Manifest, look: Callable[[Reference], Manifest | None]) -> dict[Reference, Manifest | None]:
    """The jobs above a resource, nearest first, as far as they exist; each once."""
    found: dict[Reference, Manifest | None] = {}
    waiting = list(_above(raw))
    while waiting and len(found) < LONGEST_CHAIN:
        above = waiting.pop(0)
        if above not in found:
            found[above] = look(above)
            waiting += _above(found[above])
    return found


def circle(name: str, upstream: str, references: Mapping[Reference, Manifest | None]) -> list[str]:
    """Names of jobs that wait for each other in a circle, from this one through `upstream` round to itself; else none.

    A job that has an artifact waits for nobody: a circle with one of those ends there.
    """
    paths = [[name, upstream]]
    seen: set[str] = set()
    while paths:
        path = paths.pop()
        job = references.get(Reference("FineTuneJob", path[-1]))
        if path[-1] == name:
            return path
        if path[-1] in seen or job is None or (job.get("status") or {}).get("artifact"):
            continue
        seen.add(path[-1])
        paths += [[*path, above.name] for above in _above(job)]
    return []


def _above(raw: Manifest | None) -> Iterator[Reference]:
    return (Reference("FineTuneJob", name) for name in named_in((raw or {}).get("spec") or {}))
