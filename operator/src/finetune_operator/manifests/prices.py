"""What a pod's accelerators cost for an hour, by the platform's list; noted on the Job, as prices change."""

from decimal import Decimal, InvalidOperation

from finetune_operator.api.base import Resources, Scheduling
from finetune_operator.manifests.accelerators import accelerators_by_name
from finetune_operator.manifests.naming import ANNOTATION_PRICE, Manifest
from finetune_operator.settings import Settings


def price_of(resources: Resources, scheduling: Scheduling, settings: Settings) -> float | None:
    """The price of one pod's accelerators for an hour; None where the list has no price for one of them."""
    total = 0.0
    for name, count in accelerators_by_name(resources).items():
        kinds = (kind for kind in settings.accelerators if kind.is_for(name, scheduling.node_selector))
        price = next((kind.price_per_hour for kind in kinds if kind.price_per_hour is not None), None)
        if price is None:
            return None
        total += count * price
    return total


def price_on(job: Manifest) -> float | None:
    """The price that a Job was created with; None if there was none."""
    text = (job["metadata"].get("annotations") or {}).get(ANNOTATION_PRICE)
    try:
        price = Decimal(str(text)) if text is not None else Decimal("NaN")
    except InvalidOperation:
        return None
    return float(price) if price.is_finite() and price >= 0 else None
