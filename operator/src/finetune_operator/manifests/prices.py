"""What a pod's accelerators cost for an hour, by the platform's price list; noted on the Job, as prices change."""

from decimal import Decimal, InvalidOperation

from finetune_operator.api.base import Resources, Scheduling
from finetune_operator.manifests.accelerators import accelerators_by_name
from finetune_operator.manifests.naming import ANNOTATION_PRICE, Manifest
from finetune_operator.settings import Price, Settings


def price_of(resources: Resources, scheduling: Scheduling, settings: Settings) -> float | None:
    """The price of one pod's accelerators for an hour; None where the list has no price for one of them."""
    total = 0.0
    for name, count in accelerators_by_name(resources).items():
        price = next((price for price in settings.prices if _is_for(price, name, scheduling)), None)
        if price is None:
            return None
        total += count * price.per_hour
    return total


def price_on(job: Manifest) -> float | None:
    """The price that a Job was created with; None if there was none."""
    text = (job["metadata"].get("annotations") or {}).get(ANNOTATION_PRICE)
    try:
        price = Decimal(str(text)) if text is not None else Decimal("NaN")
    except InvalidOperation:
        return None
    return float(price) if price.is_finite() and price >= 0 else None


def _is_for(price: Price, resource: str, scheduling: Scheduling) -> bool:
    """Whether the pods of the selector run only on nodes that the price is for."""
    return price.resource == resource and price.node_selector.items() <= scheduling.node_selector.items()
