"""TGI's metric names (docs/developing/library-traps.md), which dashboards and autoscalers know, and ours by adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Mapping

    # It imports torch, which the reference page of the metrics can do without.
    from finetune_server.requests import GenerationRequest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)


class Metrics:
    """What the engine counts.

    TGI's counters have no `_total`, which prometheus_client would append to a Counter; as Gauges that only grow they
    keep TGI's names, and `rate()` does not mind. `model` and `adapter` are served names, never what a client wrote:
    there are as many values as the plan has models. The base goes by its own name, the deployment's.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.queue_size = self._gauge("tgi_queue_size", "Requests that wait for a place in the batch.")
        self.batch_size = self._gauge("tgi_batch_current_size", "Requests in the running batch.")
        self._count = self._gauge("tgi_request_count", "Requests that came to the queue.", "model")
        self._success = self._gauge("tgi_request_success", "Requests answered to the end.", "model")
        self._failure = self._gauge("tgi_request_failure", "Requests that were not.", "model", "err")
        self._duration = self._histogram("tgi_request_duration", "Seconds from queueing to the last token.", _SECONDS)
        self._generated = self._histogram("tgi_request_generated_tokens", "Generated tokens per request.", _TOKENS)
        self._input = self._histogram("tgi_request_input_length", "Prompt tokens per request.", _TOKENS)
        self.queue_duration = self._histogram("tgi_request_queue_duration", "Seconds in the queue.", _SECONDS)
        self.batch_duration = self._histogram("tgi_batch_inference_duration", "Seconds per forward pass.", _SECONDS)
        self._requests = self._counter("finetune_adapter_requests", "Requests by how they ended.", "adapter", "outcome")
        self._prompt_tokens = self._counter("finetune_adapter_prompt_tokens", "Prompt tokens of requests.", "adapter")
        self._answer_tokens = self._counter("finetune_adapter_generated_tokens", "Generated tokens.", "adapter")
        self._load = self._gauge("finetune_adapter_load_seconds", "Seconds that loading its weights took.", "adapter")

    def observe_loads(self, seconds: Mapping[str, float]) -> None:
        """Tell how long each model took to load, and begin its counters at zero: `rate()` needs a first value."""
        for name, value in seconds.items():
            self._load.labels(name).set(value)
            self._requests.labels(name, "success")
            self._prompt_tokens.labels(name)
            self._answer_tokens.labels(name)

    def observe_end(self, request: GenerationRequest, outcome: str, generated: int, seconds: float) -> None:
        """Count a request that ended: `success`, `cancelled` (the client left), `timeout` or `generation`."""
        self._count.labels(request.model).inc()
        self._requests.labels(request.model, outcome).inc()
        self._prompt_tokens.labels(request.model).inc(len(request.prompt))
        self._answer_tokens.labels(request.model).inc(generated)
        self._input.observe(len(request.prompt))
        self._generated.observe(generated)
        if outcome == "success":
            self._success.labels(request.model).inc()
            self._duration.observe(seconds)
        else:
            self._failure.labels(request.model, outcome).inc()

    def refuse(self, model: str) -> None:
        """Count a request that the queue had no place for."""
        self._count.labels(model).inc()
        self._failure.labels(model, "overloaded").inc()
        self._requests.labels(model, "overloaded").inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, labels, registry=self._registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self._registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, documentation, registry=self._registry, buckets=buckets)
