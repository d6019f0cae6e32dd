"""What a training pod says while it runs: `/progress` (JSON), `/metrics` (Prometheus), `/healthz`.

Light on purpose: it answers before torch is imported. Best effort: nothing here may stop training.
"""

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from finetune_contract.base import Document
from finetune_contract.results import Phase, Progress, RunWarning

log = logging.getLogger(__name__)

_GAUGES = {
    "step": "Last finished optimiser step.",
    "total_steps": "Optimiser steps of the whole run.",
    "epoch": "Passes over the training rows, fractional.",
    "loss": "Training loss per supervised token at the last logged step.",
    "eval_loss": "Loss of the tuned model per supervised token on the held-out rows.",
    "learning_rate": "Learning rate at the last logged step.",
    "grad_norm": "Length of the gradient at the last logged step, before clipping.",
    "tokens_per_second": "Tokens computed per second, padding not counted, mean of the last steps.",
    "mfu": "Model FLOPs utilisation: share of the device's peak; absent where the peak is not known.",
    "micro_batch_size": "Sequences per forward pass.",
    "peak_memory_bytes": "The most that was held: of GPU memory where there is a GPU, else resident memory.",
    "checkpoint_step": "Step of the newest checkpoint in the store.",
}
"""Fields of Progress that are also metrics, as `finetune_trainer_<field>`."""

_SPEED_MEMORY = 0.9
"""Weight of the past in the running mean of a step's seconds: about the last ten steps."""


class Board(Protocol):
    """What a server of progress shows."""

    registry: CollectorRegistry

    def snapshot(self) -> Document:
        """What `/progress` answers now."""


class ProgressBoard:
    """The one place that knows how far the run is; written by the trainer, read by the HTTP threads."""

    def __init__(self, run_key: str, attempt: int) -> None:
        """Start in phase Loading, with nothing done."""
        self._lock = threading.Lock()
        self._progress = Progress(run_key=run_key, attempt=attempt, phase=Phase.LOADING, updated_at=datetime.now(UTC))
        self._warnings: dict[str, tuple[RunWarning, ...]] = {}
        self._seconds_per_step: float | None = None
        self._step_began: float | None = None
        self.registry = CollectorRegistry()
        self._gauges = {
            name: Gauge(f"finetune_trainer_{name}", text, registry=self.registry) for name, text in _GAUGES.items()
        }
        self._phase = Gauge(
            "finetune_trainer_phase", "1 for the phase the pod is in.", ["phase"], registry=self.registry
        )

    def snapshot(self) -> Progress:
        """What `/progress` answers now."""
        with self._lock:
            return self._progress

    def update(self, **changes: Any) -> None:  # noqa: ANN401 - any field of Progress
        """Set fields of Progress; `percent` and `updatedAt` follow."""
        with self._lock:
            document = {**dict(self._progress), **changes, "updated_at": datetime.now(UTC)}
            if document["total_steps"]:
                document["percent"] = min(100, 100 * document["step"] // document["total_steps"])
            self._progress = Progress(**document)
        self._publish(self._progress)

    def warn(self, source: str, warnings: tuple[RunWarning, ...]) -> None:
        """Show what one part of the trainer warns of now, in the place of what it has said before."""
        with self._lock:
            self._warnings[source] = warnings
            shown = tuple(each for said in self._warnings.values() for each in said)
        self.update(warnings=shown)

    def training_begins(self) -> None:
        """Start the clock of the first step."""
        self._step_began = time.monotonic()
        self.update(phase=Phase.TRAINING)

    def step_ends(self, step: int, epoch: float, tokens: int) -> None:
        """Count one finished step of `tokens` computed tokens, and estimate when the last one ends."""
        now = time.monotonic()
        seconds = now - (self._step_began or now)
        self._step_began = now
        before = self._seconds_per_step
        mean = seconds if before is None else _SPEED_MEMORY * before + (1 - _SPEED_MEMORY) * seconds
        self._seconds_per_step = mean
        remaining = max(self.snapshot().total_steps - step, 0)
        self.update(
            step=step,
            epoch=round(epoch, 4),
            tokens_per_second=round(tokens / seconds, 1) if seconds > 0 else None,
            estimated_completion_time=datetime.now(UTC) + timedelta(seconds=remaining * mean),
        )

    def leave_out(self, seconds: float) -> None:
        """Time within a step that was spent on something else than training."""
        if self._step_began is not None:
            self._step_began += seconds

    def _publish(self, progress: Progress) -> None:
        for name, gauge in self._gauges.items():
            value = getattr(progress, name)
            if value is not None:
                gauge.set(value)
        for phase in Phase:
            self._phase.labels(phase.value).set(phase is progress.phase)


class _Handler(BaseHTTPRequestHandler):
    """GET only; one board per server."""

    server: "ProgressServer"
    timeout = 5

    def do_GET(self) -> None:
        """Answer one of the three paths."""
        board = self.server.board
        if self.path == "/progress":
            self._answer("application/json", board.snapshot().to_json().encode())
        elif self.path == "/metrics":
            self._answer(CONTENT_TYPE_LATEST, generate_latest(board.registry))
        elif self.path == "/healthz":
            self._answer("text/plain", b"ok\n")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a poll every few seconds is not news."""

    def _answer(self, content_type: str, body: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class ProgressServer(ThreadingHTTPServer):
    """Serves a board on all interfaces until the process ends."""

    daemon_threads = True

    def __init__(self, board: Board, port: int) -> None:
        """Bind the port; 0 takes any free one (`server_port` says which)."""
        super().__init__(("0.0.0.0", port), _Handler)  # noqa: S104 - the operator polls the pod's address
        self.board = board

    def start(self) -> None:
        """Answer from a daemon thread."""
        threading.Thread(target=self.serve_forever, name="progress", daemon=True).start()


def serve(board: Board, port: int) -> None:
    """Serve a board, or say that it cannot be: the work goes on without."""
    try:
        ProgressServer(board, port).start()
    except OSError as error:
        log.warning("progress is not served: port %d: %s", port, error.strerror)
