"""What kind of accelerator a job asks for, as far as its spec and the operator's settings say.

The operator reads no nodes: what a cluster has is written in the chart value `accelerators`, once, by who runs it.
"""

import re

from finetune_contract.preflight import Accelerator
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.manifests.accelerators import accelerators
from finetune_operator.settings import AcceleratorKind, Settings

MEMORY_LABEL = "nvidia.com/gpu.memory"
"""Of NVIDIA's GPU feature discovery: MiB of one GPU. Believed where a job selects nodes by it."""

_SLICE = re.compile(r"\.(\d+)gb$")
"""The end of a MIG resource's name, such as nvidia.com/mig-1g.10gb: GB of one slice."""

GIB = 2**30


def device_of(job: FineTuneJob, settings: Settings) -> Accelerator | None:
    """The kind of device that the job's pods get; None where they get none, or its memory is not known."""
    resources = job.spec.resources
    if not accelerators(resources):
        return None
    asked = [name for name, count in {**resources.requests, **resources.limits}.items() if str(count) != "0"]
    selected = job.spec.scheduling.node_selector
    kinds = (kind for kind in _measured(settings) if any(kind.is_for(name, selected) for name in asked))
    kind = next(kinds, None)
    selected_memory = selected.get(MEMORY_LABEL, "")
    if selected_memory.isdigit() and int(selected_memory):
        name = kind.name if kind else f"{selected_memory} MiB"
        return Accelerator(name=name, memory_bytes=int(selected_memory) * 2**20, flops=_flops(kind))
    for name in asked:
        if (found := _SLICE.search(name)) and int(found[1]):
            return Accelerator(name=name.partition("/")[2], memory_bytes=int(found[1]) * 10**9, flops=_flops(kind))
    return _accelerator(kind) if kind else None


def others(device: Accelerator | None, settings: Settings) -> tuple[Accelerator, ...]:
    """What else the cluster has."""
    return tuple(_accelerator(kind) for kind in _measured(settings) if device is None or kind.name != device.name)


def _measured(settings: Settings) -> list[AcceleratorKind]:
    """The kinds whose memory is known."""
    return [kind for kind in settings.accelerators if kind.memory_gib is not None]


def _accelerator(kind: AcceleratorKind) -> Accelerator:
    return Accelerator(name=kind.name, memory_bytes=round((kind.memory_gib or 0) * GIB), flops=_flops(kind))


def _flops(kind: AcceleratorKind | None) -> float | None:
    return kind.teraflops * 1e12 if kind and kind.teraflops else None
