"""The operator's Prometheus metrics: controller-runtime's names under our prefix, no label with unbounded values."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

PREFIX = "finetune_operator"
SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WAITS = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 24 * 3600.0, 72 * 3600.0)

RECONCILE_SECONDS = Histogram(
    f"{PREFIX}_reconcile_time_seconds", "Duration of one pass.", ["kind"], buckets=SECONDS, registry=REGISTRY
)
RECONCILES = Counter(
    f"{PREFIX}_reconcile", "Passes by how they ended: success, requeue_after, retry, error.", ["kind", "result"],
    registry=REGISTRY,
)  # fmt: skip
STATUS_WRITES = Counter(f"{PREFIX}_status_writes", "Status writes that succeeded.", ["kind"], registry=REGISTRY)
QUEUE_DEPTH = Gauge(f"{PREFIX}_workqueue_depth", "Keys that wait for a worker.", registry=REGISTRY)
QUEUE_ADDS = Counter(f"{PREFIX}_workqueue_adds", "Keys put into the queue.", registry=REGISTRY)
QUEUE_RETRIES = Counter(f"{PREFIX}_workqueue_retries", "Keys put back after a failed pass.", registry=REGISTRY)
QUEUE_SECONDS = Histogram(
    f"{PREFIX}_workqueue_queue_duration_seconds", "Time from added to taken.", buckets=SECONDS, registry=REGISTRY
)
QUEUE_OLDEST = Gauge(
    f"{PREFIX}_workqueue_oldest_key_seconds", "How long the key has waited that has waited longest; 0: none waits.",
    registry=REGISTRY,
)  # fmt: skip
API_REQUESTS = Counter(
    f"{PREFIX}_rest_client_requests",
    "Requests to the API server, without the watches; code 0: no answer.",
    ["verb", "code"],
    registry=REGISTRY,
)
WATCH_EVENTS = Counter(f"{PREFIX}_watch_events", "Objects that the watches delivered.", ["kind"], registry=REGISTRY)
WATCH_LAST_EVENT = Gauge(
    f"{PREFIX}_watch_last_event_timestamp_seconds", "When a watch last delivered an object.", ["kind"],
    registry=REGISTRY,
)  # fmt: skip
WATCH_RESTARTS = Counter(f"{PREFIX}_watch_restarts", "Restarts of all watches after an error.", registry=REGISTRY)
SWEEP_REPAIRS = Counter(
    f"{PREFIX}_sweep_repairs", "Objects that a sweep found missing or outdated in the cache.", ["kind"],
    registry=REGISTRY,
)  # fmt: skip
SWEEP_LAST_END = Gauge(
    f"{PREFIX}_sweep_last_end_timestamp_seconds", "When everything was last listed and compared with the cache.",
    registry=REGISTRY,
)  # fmt: skip
LEADER = Gauge(f"{PREFIX}_leader_election_master_status", "1 while this replica leads.", registry=REGISTRY)
OBJECTS = Gauge(
    f"{PREFIX}_objects", "Our resources by phase and by the reason of their Ready condition.",
    ["kind", "phase", "reason"], registry=REGISTRY,
)  # fmt: skip
OLDEST_TRANSITION = Gauge(
    f"{PREFIX}_oldest_transition_timestamp_seconds",
    "When a condition last changed, of the resource for which that is longest ago.",
    ["kind", "phase", "reason"], registry=REGISTRY,
)  # fmt: skip
FAILURES = Counter(
    f"{PREFIX}_failures", "Resources that came to rest without being ready, by the reason of their Ready condition.",
    ["kind", "reason"], registry=REGISTRY,
)  # fmt: skip
QUEUE_WAIT_SECONDS = Histogram(
    f"{PREFIX}_queue_wait_seconds", "Time that attempts waited in a Kueue queue before they were admitted.",
    buckets=WAITS, registry=REGISTRY,
)  # fmt: skip
GPU_SECONDS = Counter(
    f"{PREFIX}_gpu_seconds",
    "GPU-seconds of attempts that ended: Succeeded, Failed, Suspended, Cancelled by an edit, Disrupted by the cluster.",
    ["namespace", "outcome"], registry=REGISTRY,
)  # fmt: skip
GATE_FAILURES = Counter(
    f"{PREFIX}_gate_failures", "Artifacts that did not pass spec.gate; one that is decided again counts again.",
    ["namespace"], registry=REGISTRY,
)  # fmt: skip
IGNORED_GATES = Gauge(
    f"{PREFIX}_modeldeployment_ignore_gate",
    "ModelDeployments that serve something only because of spec.ignoreGate.", ["namespace"], registry=REGISTRY,
)  # fmt: skip
ADAPTERS = Gauge(
    f"{PREFIX}_modeldeployment_adapters",
    "Adapters that ModelDeployments ask for, by state; those that are Serving are proven on every pod.",
    ["namespace", "state"], registry=REGISTRY,
)  # fmt: skip
ADAPTER_RESULTS = Counter(
    f"{PREFIX}_modeldeployment_adapter_results",
    "What became of artifacts: Serving, Inert, Invalid (by proof or engine), RolledBack (by its canary).",
    ["namespace", "state"], registry=REGISTRY,
)  # fmt: skip
ADAPTER_SECONDS = Histogram(
    f"{PREFIX}_modeldeployment_adapter_load_seconds",
    "From an artifact's being wanted to its being proven on every pod.",
    buckets=(5, 10, 15, 30, 45, 60, 120, 300, 600, 1200, 3600), registry=REGISTRY,
)  # fmt: skip
PROGRESS_POLLS = Counter(
    f"{PREFIX}_progress_polls", "Questions to training pods: ok, unreachable, invalid.", ["result"], registry=REGISTRY
)
COLLECTIONS = Counter(
    f"{PREFIX}_collections", "Ended collections of a store: succeeded, failed.", ["result"], registry=REGISTRY
)
COLLECTED_ENTRIES = Counter(
    f"{PREFIX}_collected_entries", "Datasets, models, artifacts and runs that collections deleted.", registry=REGISTRY
)
COLLECTED_BYTES = Counter(f"{PREFIX}_collected_bytes", "Bytes that collections deleted.", registry=REGISTRY)
