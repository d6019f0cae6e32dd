"""What is made from what: jobs from other jobs, mixtures from other Datasets; and circles of those that wait."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.observed import Reference

LONGEST_CHAIN = 64
"""Jobs or Datasets that are followed; whoever chains more waits for the one above like for any other."""


def named_in(spec: dict[str, Any]) -> Iterator[str]:
    """The FineTuneJobs that a spec names; a spec that is not valid names what it can."""
    rewards = [reward for method in ("grpo", "rloo") for reward in (spec.get(method) or {}).get("rewards") or ()]
    places = [spec.get("baseModel"), (spec.get("distillation") or {}).get("teacher"), *rewards]
    for place in places:
        if name := ((place or {}).get("fineTuneJob") or {}).get("name"):
            yield name


def measured_with(spec: dict[str, Any]) -> Iterator[str]:
    """The FineTuneJobs that an evaluation compares with; training does not wait for them."""
    evaluation = spec.get("evaluation") or {}
    for place in (*(evaluation.get("namedBaselines") or ()), evaluation.get("rewardModel")):
        if name := ((place or {}).get("fineTuneJob") or {}).get("name"):
            yield name


def mixed_in(spec: dict[str, Any]) -> Iterator[str]:
    """The Datasets that a Dataset's spec mixes."""
    for part in (spec.get("source") or {}).get("mixture") or ():
        if name := part.get("dataset"):
            yield name


def ancestors(raw: Manifest, look: Callable[[Reference], Manifest | None]) -> dict[Reference, Manifest | None]:
    """The jobs or Datasets above a resource, nearest first, as far as they exist; each once."""
    found: dict[Reference, Manifest | None] = {}
    waiting = list(_above(raw))
    while waiting and len(found) < LONGEST_CHAIN:
        above = waiting.pop(0)
        if above not in found:
            found[above] = look(above)
            waiting += _above(found[above])
    return found


def circle(
    name: str, upstream: str, references: Mapping[Reference, Manifest | None], kind: str = "FineTuneJob"
) -> list[str]:
    """Names of objects that wait for each other in a circle, from this one through `upstream` round to itself.

    A job that has an artifact waits for nobody: a circle with one of those ends there.
    """
    paths = [[name, upstream]]
    seen: set[str] = set()
    while paths:
        path = paths.pop()
        above = references.get(Reference(kind, path[-1]))
        if path[-1] == name:
            return path
        if path[-1] in seen or above is None or (above.get("status") or {}).get("artifact"):
            continue
        seen.add(path[-1])
        paths += [[*path, reference.name] for reference in _above(above)]
    return []


def _above(raw: Manifest | None) -> Iterator[Reference]:
    spec = (raw or {}).get("spec") or {}
    yield from (Reference("FineTuneJob", name) for name in named_in(spec))
    yield from (Reference("Dataset", name) for name in mixed_in(spec))
