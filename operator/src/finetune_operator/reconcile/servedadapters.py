"""The adapters of a ModelDeployment: which artifact each one is, and why one is not served."""

from finetune_contract.base import StoredReference
from finetune_contract.results import ArtifactType
from finetune_operator.api.gate import GATE_IGNORED, Verdict
from finetune_operator.api.modeldeployment import AdapterState, AdapterStatus, ServedAdapterSpec
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile import trusted
from finetune_operator.reconcile.draft import GATE_FAILED
from finetune_operator.reconcile.observed import Reference
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.servedbase import ADAPTERS_VALID, Pass
from finetune_operator.reconcile.storage import address_of
from finetune_operator.reconcile.words import count

MESSAGE_LIMIT = 1024


def find_adapters(this: Pass) -> None:
    """The artifact of each adapter in the spec, as far as there is one that may be served."""
    known = {(status.name, _source_of(status)): status for status in this.deployment.status.adapters}
    for at, wanted in enumerate(this.deployment.spec.adapters):
        source = wanted.fine_tune_job.name if wanted.fine_tune_job else wanted.uri
        found = _find(this, f"spec.adapters[{at}]", wanted, known.get((wanted.name, source)))
        this.adapters.append(found)
        if found.digest and found.base:
            this.bases[found.base.digest] = StoredReference(digest=found.base.digest, uri=found.base.uri)
    missing = [adapter for adapter in this.adapters if adapter.message]
    if missing:
        message = "; ".join(f"{adapter.name}: {adapter.message}" for adapter in missing)
        this.conditions.set(ADAPTERS_VALID, False, GATE_FAILED if this.refusals else "AdapterPending", message)
    else:
        this.conditions.set(ADAPTERS_VALID, True, "Valid", count(len(this.adapters), "adapter"))


def note_gates(this: Pass) -> None:
    """Last words: what was refused needs somebody, and what is served without having passed is said aloud."""
    if this.refusals and this.conditions.said("Ready")[0] in ("AdapterPending", "BaseNotReady", "Serving"):
        this.conditions.stalled(GATE_FAILED, "; ".join(this.refusals))
    before = {status.name: status for status in this.deployment.status.adapters if status.gate_ignored}
    ignored = {adapter.name: adapter for adapter in this.adapters if adapter.gate_ignored}
    words = [f"{name}: {adapter.digest} ({_said(adapter.verdict)})" for name, adapter in ignored.items()]
    if this.base and this.base.gate_ignored:
        words.append(f"base model: {this.base.digest} ({_said(Verdict.FAILED)})")
    if not words:
        this.conditions.remove(GATE_IGNORED)
        return
    message = f"served by spec.ignoreGate although no gate was passed: {'; '.join(words)}"
    this.conditions.set(GATE_IGNORED, True, "IgnoreGate", message)
    was = this.deployment.status.base
    is_new_base = bool(this.base and this.base.gate_ignored and (was is None or was.digest != this.base.digest))
    if is_new_base or any(name not in before or before[name].digest != ignored[name].digest for name in ignored):
        this.events.append(Event("Warning", GATE_IGNORED, message[:1000]))


def _said(verdict: Verdict | None) -> str:
    return {None: "no gate known", Verdict.UNDECIDED: "gate not decided"}.get(verdict, "gate failed")


def _source_of(status: AdapterStatus) -> str | None:
    """The job, or of an adapter that is named by address the address."""
    return status.fine_tune_job or status.uri


def _find(this: Pass, path: str, wanted: ServedAdapterSpec, known: AdapterStatus | None) -> AdapterStatus:
    if wanted.fine_tune_job is None:
        return _by_address(this, path, wanted, known)
    name, ignore = wanted.fine_tune_job.name, this.deployment.spec.ignore_gate
    job = this.observed.references.get(Reference("FineTuneJob", name))
    artifact = trusted.pinned(job, wanted.digest) if wanted.digest else trusted.newest(job, ignore_gate=ignore)
    served = known if known and known.digest and (ignore or not known.gate_ignored) else None
    if artifact is None or artifact["type"] != ArtifactType.ADAPTER.value:
        if served and wanted.digest in (None, served.digest):
            return _taken(served)
        message = _why_pending(path, name, job, artifact, wanted.digest)
        return _instead(served, _pending(wanted, message))
    refused = trusted.refusal(job, artifact)
    # The verdict was latched when it was taken; only a better one replaces it.
    latched = served if refused and served and served.digest == artifact["digest"] else None
    if refused and not ignore and not latched:
        if refused.is_final:
            this.refusals.append(f"{wanted.name}: {refused.message}")
        return _instead(served, _pending(wanted, refused.message))
    return AdapterStatus(
        name=wanted.name,
        state=AdapterState.LOADING,
        fine_tune_job=name,
        digest=artifact["digest"],
        uri=artifact["uri"],
        base=artifact["base"],
        adapter=artifact.get("adapter"),
        verdict=latched.verdict if latched else artifact.get("verdict"),
        gate_ignored=latched.gate_ignored if latched else refused is not None,
    )


def _by_address(this: Pass, path: str, wanted: ServedAdapterSpec, known: AdapterStatus | None) -> AdapterStatus:
    """Nobody knows of a gate that it passed; the schema demands ignoreGate and a digest."""
    assert wanted.uri is not None, "a CEL rule demands it"
    store = address_of(this.observed.settings)
    if not wanted.uri.startswith(f"{store}/"):
        return _pending(wanted, f"{path}.uri: {wanted.uri} is not in this object's store; use {store}/artifacts/...")
    return AdapterStatus(
        name=wanted.name,
        state=AdapterState.LOADING,
        digest=wanted.digest,
        uri=wanted.uri,
        adapter=known.adapter if known and known.digest == wanted.digest else None,
        gate_ignored=True,
    )


def _pending(wanted: ServedAdapterSpec, message: str) -> AdapterStatus:
    return AdapterStatus(
        name=wanted.name,
        state=AdapterState.PENDING,
        fine_tune_job=wanted.fine_tune_job.name if wanted.fine_tune_job else None,
        message=message[:MESSAGE_LIMIT],
    )


def _taken(served: AdapterStatus) -> AdapterStatus:
    return served.model_copy(update={"state": AdapterState.LOADING, "message": ""})


def _instead(served: AdapterStatus | None, pending: AdapterStatus) -> AdapterStatus:
    """What is served goes on being served while what is wanted cannot be."""
    if served is None:
        return pending
    message = f"{pending.message}; {served.digest} is served on"[:MESSAGE_LIMIT]
    return served.model_copy(update={"state": AdapterState.LOADING, "message": message})


def _why_pending(path: str, name: str, job: Manifest | None, artifact: Manifest | None, digest: str | None) -> str:
    if job is None:
        return f"there is no FineTuneJob {name!r}; create it, or name another"
    if artifact and artifact["type"] == ArtifactType.REWARD_MODEL.value:
        return f"FineTuneJob {name!r} made a reward model, which scores answers and writes none; name another"
    if artifact:
        return f"FineTuneJob {name!r} made a whole model; serve it as spec.baseModel.fineTuneJob instead"
    if digest and (made := trusted.known_digests(job)):
        return f"{path}.digest: FineTuneJob {name!r} tells of no artifact {digest}; it made {', '.join(made)}"
    phase = (job.get("status") or {}).get("phase", "Pending")
    return f"FineTuneJob {name!r} has no artifact yet ({phase})"
