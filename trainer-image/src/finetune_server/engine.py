"""The queue and the one thread that owns the model.

The event loop submits requests and awaits tokens; the thread takes whatever waits, up to a batch, and decodes it. New
requests join at the next batch. Nothing but the thread ever touches the model.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from enum import StrEnum
from http import HTTPStatus

from finetune_contract.failure import FineTuneError
from finetune_contract.serving import ServingPlan
from finetune_server.decoding import Row, decode
from finetune_server.errors import ApiError
from finetune_server.metrics import Metrics
from finetune_server.model import LanguageModel
from finetune_server.requests import FinishReason, GenerationRequest, Token

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.005
"""How long the first request of a batch waits for others that arrive with it."""

_FAILURES_UNTIL_DEAD = 3
"""Batches in a row that raise until the engine counts as broken (a CUDA error never heals in its process)."""


class State(StrEnum):
    """What the engine is doing."""

    LOADING = "Loading"
    READY = "Ready"
    DEAD = "Dead"


class Ticket:
    """A submitted request: where its tokens arrive."""

    def __init__(self, row: Row, *, is_whole: bool) -> None:
        """Take a row; `is_whole` when nobody looks at its tokens before the last one."""
        self.row = row
        self.submitted = time.monotonic()
        self.started = self.submitted
        self._is_whole = is_whole
        self._arrived: deque[Token | ApiError] = deque()
        self._is_news = asyncio.Event()

    def put(self, answer: Token | ApiError) -> None:
        """Add what comes next; in the event loop."""
        self._arrived.append(answer)
        # Waking the reader of a whole answer for every token would cost more than some models' tokens do.
        if not self._is_whole or isinstance(answer, ApiError) or answer.finish is not None:
            self._is_news.set()

    async def take(self) -> list[Token]:
        """All tokens that have arrived, at least one; ApiError when that is what comes next."""
        await self._is_news.wait()
        tokens: list[Token] = []
        while self._arrived and not isinstance(answer := self._arrived[0], ApiError):
            tokens.append(answer)
            self._arrived.popleft()
        if not tokens:
            error = self._arrived.popleft()
            assert isinstance(error, ApiError)
            raise error
        if not self._arrived:
            self._is_news.clear()
        return tokens

    def cancel(self) -> None:
        """Nobody waits any more: the row leaves the queue or the batch before its next token."""
        self.row.is_cancelled = True


class Engine:
    """Decodes submitted requests in batches."""

    def __init__(self, plan: ServingPlan, load: Callable[[], LanguageModel], metrics: Metrics) -> None:
        self.state = State.LOADING
        self.model: LanguageModel | None = None
        self._plan = plan
        self._load = load
        self._metrics = metrics
        self._waiting: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._batch_seconds = 1.0
        self._died: Callable[[FineTuneError | None], None] = lambda _failure: None
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- the event loop's side ---

    def start(self, loop: asyncio.AbstractEventLoop, died: Callable[[FineTuneError | None], None]) -> None:
        """Load the model in the engine's thread, then serve; `died` is called in the loop if that ends early."""
        self._loop, self._died = loop, died
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after its batch."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    @property
    def is_healthy(self) -> bool:
        """Whether requests can be answered."""
        return self.state is State.READY and self._thread.is_alive()

    def ready_model(self) -> LanguageModel:
        """The loaded model.

        Raises:
            ApiError: 503 while loading or after the engine died.
        """
        if self.model is None or not self.is_healthy:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, f"the engine is {self.state.lower()}", retry_after=5)
        return self.model

    def submit(self, request: GenerationRequest, *, is_whole: bool) -> Ticket:
        """Queue a request; `is_whole` when its answer is sent in one piece.

        Raises:
            ApiError: 503 when the engine is not ready, 429 when the queue is full.
        """
        model = self.ready_model()
        ticket = Ticket(Row(request, model), is_whole=is_whole)
        with self._changed:
            waiting = sum(not other.row.is_cancelled for other in self._waiting)
            if waiting + 1 > self._plan.max_queue:
                self._metrics.refuse(request.model)
                message = f"{waiting} requests are waiting and maxQueue is {self._plan.max_queue}; try again later"
                raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, message, retry_after=self._retry_after(waiting))
            self._waiting.append(ticket)
            self._metrics.queue_size.set(waiting + 1)
            self._changed.notify()
        return ticket

    async def tokens(self, ticket: Ticket) -> AsyncGenerator[list[Token]]:
        """The tokens of a ticket as they come, several at once when several are there; leaving early frees its row.

        Raises:
            ApiError: 504 after the plan's time limit, 500 when the batch failed.
        """
        deadline = ticket.submitted + self._plan.request_timeout_seconds
        outcome = "cancelled"
        try:
            while True:
                tokens = await self._next_tokens(ticket, deadline)
                finish = tokens[-1].finish
                if finish is FinishReason.FAILED:
                    raise ApiError(
                        HTTPStatus.INTERNAL_SERVER_ERROR, "the model answered with numbers that are not finite"
                    )
                if finish is not None:
                    outcome = "success"
                yield tokens
                if finish is not None:
                    return
        except ApiError as error:
            outcome = "timeout" if error.status is HTTPStatus.GATEWAY_TIMEOUT else "generation"
            raise
        finally:
            ticket.cancel()
            seconds = time.monotonic() - ticket.submitted
            self._metrics.observe_end(ticket.row.request, outcome, ticket.row.generated, seconds)

    async def _next_tokens(self, ticket: Ticket, deadline: float) -> list[Token]:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await ticket.take()
        except TimeoutError:
            limit = self._plan.request_timeout_seconds
            message = f"not finished within {limit:g} s; ask for fewer tokens or try again later"
            raise ApiError(HTTPStatus.GATEWAY_TIMEOUT, message, code="timeout") from None

    def _retry_after(self, waiting: int) -> int:
        """Seconds until the queue has likely drained, from how long the last batch took."""
        batches = math.ceil((waiting + 1) / self._plan.max_batch_size)
        return max(1, min(30, math.ceil(batches * self._batch_seconds)))

    # --- the thread's side ---

    def _run(self) -> None:
        failure: FineTuneError | None = None
        try:
            self.model = self._load()
            self._metrics.observe_loads(self.model.load_seconds)
            self.state = State.READY
            self._serve(self.model)
        except FineTuneError as error:
            failure = error
        except BaseException:  # a thread that ends silently would leave every client waiting
            log.exception("the engine died")
        if not self._is_stopping:
            self.state = State.DEAD
            self._fail(list(self._waiting), "the engine died")
            self._in_loop(lambda: self._died(failure))

    def _serve(self, model: LanguageModel) -> None:
        failures = 0
        while tickets := self._take_batch():
            started = time.monotonic()
            try:
                self._decode(model, tickets)
                failures = 0
            except Exception as error:
                log.exception("a batch of %d failed", len(tickets))
                failures += 1
                self._fail(tickets, f"the batch failed: {type(error).__name__}")
                if failures == _FAILURES_UNTIL_DEAD:
                    raise
            finally:
                self._batch_seconds = time.monotonic() - started
                self._metrics.batch_size.set(0)
                self._metrics.batch_duration.observe(self._batch_seconds)

    def _take_batch(self) -> list[Ticket]:
        """Wait for requests and take as many as fit; nothing when stopping."""
        size = self._plan.max_batch_size
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._is_stopping)
                if self._is_stopping:
                    return []
                self._changed.wait_for(lambda: len(self._waiting) >= size or self._is_stopping, _GATHER_SECONDS)
                tickets: list[Ticket] = []
                while self._waiting and len(tickets) < size:
                    ticket = self._waiting.popleft()
                    if not ticket.row.is_cancelled:
                        tickets.append(ticket)
                self._metrics.queue_size.set(len(self._waiting))
                if tickets:
                    return tickets

    def _decode(self, model: LanguageModel, tickets: list[Ticket]) -> None:
        now = time.monotonic()
        for ticket in tickets:
            ticket.started = now
            self._metrics.queue_duration.observe(now - ticket.submitted)
        by_row = {id(ticket.row): ticket for ticket in tickets}
        for answers in decode(model, [ticket.row for ticket in tickets]):
            self._metrics.batch_size.set(len(answers))
            self._deliver([(by_row[id(row)], token) for row, token in answers])

    def _fail(self, tickets: list[Ticket], message: str) -> None:
        error = ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, message)
        self._deliver([(ticket, error) for ticket in tickets if not ticket.row.is_done])

    def _deliver(self, answers: list[tuple[Ticket, Token]] | list[tuple[Ticket, ApiError]]) -> None:
        """Hand a step's answers to the loop in one call: waking it costs more than a token."""

        def put() -> None:
            for ticket, answer in answers:
                ticket.put(answer)

        self._in_loop(put)

    def _in_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)
