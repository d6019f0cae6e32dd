"""The queue and the one thread that owns the model.

The event loop submits requests and awaits tokens; the thread decodes one batch, which requests join between two tokens
as soon as it has a place for them, and leave when they are done. Nothing but the thread ever touches the model.

transformers' own continuous batching (`ContinuousBatchingManager`) is not used: it puts the tokens of all requests into
one row, so that no layer could tell which adapter a token is for, and docs/developing/performance.md has its figures.
"""

import asyncio
import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from enum import StrEnum
from functools import partial
from http import HTTPStatus

from finetune_contract.failure import FineTuneError
from finetune_contract.serving import ServingPlan
from finetune_server.decoding import Batch, Row
from finetune_server.errors import ApiError
from finetune_server.metrics import Metrics
from finetune_server.model import LanguageModel
from finetune_server.requests import FinishReason, GenerationRequest, Token

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.005
"""How long an idle engine waits for one more request: those that come together are parsed one after the other, and
prompts that are read together cost small models less."""

_GATHER_AT_MOST_SECONDS = 0.05
"""How long its first request waits for all others."""

_READ_AT_ONCE = {"cpu": 256, "cuda": 8192}
"""Tokens of prompts, with their padding, that are read between two tokens of the running answers, which wait that long.
More at once is not faster: matrix products of so many rows are at their full speed. A longer prompt is read alone."""

_TELL_SECONDS = 0.04
"""Tokens that come faster are told together: to wake the loop and to write to a socket costs more than a small model's
token does, and 25 writes a second look like a flow. An answer's first and last token are told at once."""

_SWITCH_SECONDS = 0.0002
"""How long the event loop may keep Python's lock when the model's thread wants it. It lets go of it for each of a
token's hundreds of operations; with Python's own 5 ms, a loop that parses many requests would stop it each time."""

_FAILURES_UNTIL_DEAD = 3
"""Forward passes in a row that raise until the engine counts as broken (a CUDA error never heals in its process)."""


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
        self.is_whole = is_whole
        self._arrived: deque[Token | ApiError] = deque()
        self._is_news = asyncio.Event()

    def put(self, answer: Token | ApiError) -> None:
        """Add what comes next; in any thread. Nobody knows before `tell`."""
        self._arrived.append(answer)

    def tell(self) -> None:
        """Wake whoever reads; in the event loop, after `put`."""
        self._is_news.set()

    async def take(self) -> list[Token]:
        """All tokens that have arrived, at least one; ApiError when that is what comes next."""
        tokens: list[Token] = []
        while not tokens:
            await self._is_news.wait()
            self._is_news.clear()
            while self._arrived:
                answer = self._arrived[0]
                if isinstance(answer, ApiError):
                    if not tokens:
                        raise answer
                    self._is_news.set()
                    break
                tokens.append(answer)
                self._arrived.popleft()
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
        self._answer_seconds = 1.0
        """How long the last answer took to make."""
        self._running: dict[int, Ticket] = {}
        """What is being answered, by the identity of its row."""
        self._untold: dict[int, Ticket] = {}
        self._told = 0.0
        self._died: Callable[[FineTuneError | None], None] = lambda _failure: None
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- the event loop's side ---

    def start(self, loop: asyncio.AbstractEventLoop, died: Callable[[FineTuneError | None], None]) -> None:
        """Load the model in the engine's thread, then serve; `died` is called in the loop if that ends early."""
        self._loop, self._died = loop, died
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after its token."""
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
        """Seconds until the queue has likely drained, from how long the last answer took."""
        rounds = math.ceil((waiting + 1) / self._plan.max_batch_size)
        return max(1, min(30, math.ceil(rounds * self._answer_seconds)))

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
            self._fail([*self._running.values(), *self._waiting], "the engine died")
            self._in_loop(lambda: self._died(failure))

    def _serve(self, model: LanguageModel) -> None:
        batch = Batch(model)
        failures = 0
        while (joining := self._wait(batch)) is not None:
            try:
                if joining:
                    self._tell_loop()  # reading prompts takes longer than a token
                    self._forward(batch, partial(batch.join, [ticket.row for ticket in joining]))
                    joining = []
                if batch.rows:
                    self._forward(batch, batch.step)
                failures = 0
            except Exception as error:
                # Prompts that cannot be read fail alone; after anything else the batch's cache is not to be trusted.
                failed = joining or list(self._running.values())
                batch = batch if joining else Batch(model)
                log.exception("a forward pass of %d requests failed", len(failed))
                failures += 1
                self._metrics.batch_size.set(len(batch.rows))
                self._fail(failed, f"the batch failed: {type(error).__name__}")
                if failures == _FAILURES_UNTIL_DEAD:
                    raise
            if len(batch.rows) != len(self._running):
                self._running = {id(row): self._running[id(row)] for row in batch.rows}

    def _wait(self, batch: Batch) -> list[Ticket] | None:
        """What joins the batch now; waits when that would be nobody and nothing runs. None when stopping."""
        with self._changed:
            while not self._is_stopping:
                if not batch.rows:
                    self._changed.wait_for(lambda: self._waiting or self._is_stopping)
                    self._gather()
                joining = self._take(batch) if batch.is_open else []
                if joining or batch.rows:
                    return joining
        return None

    def _gather(self) -> None:
        """Wait while requests keep coming. Called with the lock held."""
        deadline = time.monotonic() + _GATHER_AT_MOST_SECONDS
        seen = 0
        while (
            seen < len(self._waiting) < self._plan.max_batch_size
            and not self._is_stopping
            and time.monotonic() < deadline
        ):
            seen = len(self._waiting)
            self._changed.wait(_GATHER_SECONDS)

    def _take(self, batch: Batch) -> list[Ticket]:
        """The first of the queue, as many as there are places and as are read at once. Called with the lock held."""
        places = self._plan.max_batch_size - len(batch.rows)
        limit = _READ_AT_ONCE["cpu" if batch.device.type == "cpu" else "cuda"]
        taken: list[Ticket] = []
        longest = 0
        now = time.monotonic()
        while self._waiting and len(taken) < places:
            ticket = self._waiting[0]
            if not ticket.row.is_cancelled:
                longest = max(longest, len(ticket.row.request.prompt))
                if taken and longest * (len(taken) + 1) > limit:
                    break
                taken.append(ticket)
                ticket.started = now
                self._running[id(ticket.row)] = ticket
                self._metrics.queue_duration.observe(now - ticket.submitted)
            self._waiting.popleft()
        self._metrics.queue_size.set(len(self._waiting))
        return taken

    def _forward(self, batch: Batch, forward: Callable[[], list[tuple[Row, Token]]]) -> None:
        """One forward pass, and what it answers."""
        began = time.monotonic()
        answers = forward()
        now = time.monotonic()
        self._metrics.batch_duration.observe(now - began)
        self._metrics.batch_size.set(len(batch.rows))
        is_urgent = now - self._told >= _TELL_SECONDS
        for row, token in answers:
            ticket = self._running[id(row)]
            ticket.put(token)
            if token.finish is not None:
                self._answer_seconds = now - ticket.started
            elif ticket.is_whole:
                continue
            self._untold[id(row)] = ticket
            is_urgent = is_urgent or row.generated == 1 or token.finish is not None
        if is_urgent:
            self._tell_loop()

    def _fail(self, tickets: list[Ticket], message: str) -> None:
        error = ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, message)
        for ticket in tickets:
            if not ticket.row.is_done:
                ticket.put(error)
                self._untold[id(ticket.row)] = ticket
        self._tell_loop()

    def _tell_loop(self) -> None:
        """Wake the readers of all that has come, in one call."""
        self._told = time.monotonic()
        if not self._untold:
            return
        tickets, self._untold = list(self._untold.values()), {}

        def tell() -> None:
            for ticket in tickets:
                ticket.tell()

        self._in_loop(tell)

    def _in_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)
