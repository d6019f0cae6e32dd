"""Whether the engine can serve what is wanted: decided before a running Deployment is touched."""

from finetune_contract.adapterfacts import AdapterFacts, AdapterFeature
from finetune_operator.api.modeldeployment import AdapterMode, AdapterState, AdapterStatus
from finetune_operator.manifests.engines import ENGINES
from finetune_operator.reconcile.resources import ACCEPTED
from finetune_operator.reconcile.servedbase import ADAPTERS_VALID, Pass


def suits(this: Pass) -> bool:
    """Whether the engine takes every adapter and argument; if not, conditions and states say why.

    What a Deployment serves already goes on: one unfit adapter would end an engine, and take all others down.
    """
    engine = ENGINES[this.deployment.spec.engine.type]
    owned = engine.owned_arguments()
    taken = [each for each in this.deployment.spec.engine.args if each.partition("=")[0].split()[0] in owned]
    if taken:
        message = f"spec.engine.args: {taken[0]!r} is the operator's to set; remove it"
        this.conditions.set(ACCEPTED, False, "InvalidSpec", message)
        this.conditions.stalled("InvalidSpec", message)
        return False
    is_merged = this.deployment.spec.adapter_mode is AdapterMode.MERGED
    judge = _no_merging if is_merged else engine.refusal
    refusals: dict[str, str] = {}
    for adapter in this.adapters:
        if adapter.digest is None:
            continue
        if words := judge(adapter.adapter.facts() if adapter.adapter else None):
            refusals[adapter.name] = words
    if not refusals:
        return True
    this.adapters = [_refused(each, refusals.get(each.name)) for each in this.adapters]
    message = "; ".join(f"{name}: {words}" for name, words in refusals.items())
    this.conditions.set(ADAPTERS_VALID, False, "UnsupportedByEngine", message)
    this.conditions.stalled("UnsupportedByEngine", f"adapter {message}")
    return False


def _no_merging(facts: AdapterFacts | None) -> str | None:
    """Why an adapter cannot be merged; the Job that merges looks again, and compares what it has made."""
    if facts is None:
        return None
    if AdapterFeature.CHANGED_BASE in facts.features:
        return "its initialisation changed the base, so it does not fit the base as it is: convert it to a plain LoRA"
    if facts.quantization:
        return (
            f"its base is stored in {facts.quantization}, and an adapter is merged into 16-bit weights only: use "
            "adapterMode: Static"
        )
    return None


def _refused(adapter: AdapterStatus, words: str | None) -> AdapterStatus:
    if words is None:
        return adapter
    return adapter.model_copy(update={"state": AdapterState.INVALID, "message": words[:1024]})
