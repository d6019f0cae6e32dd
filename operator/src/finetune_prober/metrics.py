"""The prober's own metrics, for alerts on adapters that are not live."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from finetune_contract.proof import ProofState


class Metrics:
    """What the prober counts; labels are adapter names and states, so there are few."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.ready = Gauge("finetune_prober_ready", "1 while traffic may come.", registry=self._registry)
        self._state = Gauge(
            "finetune_prober_adapter_state",
            "1 for the state an adapter is in.",
            ("adapter", "state"),
            registry=self._registry,
        )
        self._seconds = Gauge(
            "finetune_prober_proof_seconds", "Seconds of the last proof.", ("adapter",), registry=self._registry
        )
        self._proofs = Counter(
            "finetune_prober_proofs", "Proofs by their result.", ("adapter", "state"), registry=self._registry
        )

    def set_state(self, adapter: str, state: ProofState) -> None:
        """Exactly one state is 1."""
        for one in ProofState:
            self._state.labels(adapter, one.value).set(one is state)

    def observe_proof(self, adapter: str, state: ProofState, seconds: float) -> None:
        """One proof came to a result."""
        self._seconds.labels(adapter).set(seconds)
        self._proofs.labels(adapter, state.value).inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
