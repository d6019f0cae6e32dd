"""How many accelerators a pod asks for: what GPU-hours are counted by."""

from finetune_operator.api.base import Resources
from finetune_operator.manifests.naming import ANNOTATION_ACCELERATORS, Manifest

_SIGNS = ("gpu", "mig-", "gaudi", "neuron", "tpu")
"""What the extended resources of accelerators are called, across vendors: nvidia.com/gpu, amd.com/gpu,
nvidia.com/mig-1g.10gb, gpu.intel.com/i915, habana.ai/gaudi, aws.amazon.com/neuron, google.com/tpu."""


def accelerators(resources: Resources) -> int:
    """Whole accelerators of one pod, of whatever kind."""
    return sum(accelerators_by_name(resources).values())


def accelerators_by_name(resources: Resources) -> dict[str, int]:
    """Resource name -> whole accelerators; extended resources have no fractions, and limits decide them."""
    return {
        name: int(quantity)
        for name, quantity in {**resources.requests, **resources.limits}.items()
        if "/" in name and any(sign in name.lower() for sign in _SIGNS) and str(quantity).isdigit()
    }


def accelerators_per_pod(job: Manifest) -> int:
    """What a training Job says it was built with: the spec may have been edited since."""
    text = str((job["metadata"].get("annotations") or {}).get(ANNOTATION_ACCELERATORS, "0"))
    return int(text) if text.isascii() and text.isdigit() else 0
