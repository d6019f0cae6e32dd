"""The lives that most cases share: an operator that watches, a fault, a life to its end, the verdict."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.faults.laboratory import Goldens, Play
from tests.faults.process import Operator
from tests.faults.proxy import Request, Rule, StreamRule
from tests.faults.stage import Stage

Fault = Rule | StreamRule
MakeFault = Callable[[Stage], Fault]
"""Makes the fault when its stage is there; each case gets a new one, as rules count."""


async def running_operator(stage: Stage, name: str = "operator-0", **settings: str) -> Operator:
    """An operator whose caches are filled and whose watches are open."""
    operator = await stage.add_operator(name, **settings)
    operator.start()
    await operator.ready()
    await operator.watching()
    return operator


def in_training(fault: MakeFault) -> Play:
    """One fault while a Dataset and a FineTuneJob come to their end."""

    async def play(stage: Stage, goldens: Goldens) -> None:
        await running_operator(stage)
        stage.inject(fault(stage))
        await stage.train()
        await stage.until_injected(1)
        await stage.verdict(goldens.trained)

    return play


def in_whole_life(fault: MakeFault) -> Play:
    """One fault in a life with serving and a second run."""

    async def play(stage: Stage, goldens: Goldens) -> None:
        await running_operator(stage)
        stage.inject(fault(stage))
        await stage.whole_life()
        await stage.until_injected(1)
        await stage.verdict(goldens.whole)

    return play


def in_answering(fault: MakeFault) -> Play:
    """One fault while a batch is preempted once, is answered, and is asked anew."""

    async def play(stage: Stage, goldens: Goldens) -> None:
        await running_operator(stage)
        await stage.train()
        stage.inject(fault(stage))
        await stage.answer()
        await stage.until_injected(1)
        await stage.verdict(goldens.answered)

    return play


def at_start(fault: MakeFault, *, batch: bool = False) -> Play:
    """One fault that is there before the operator is; in a life with a batch, if one is wanted."""

    async def play(stage: Stage, goldens: Goldens) -> None:
        operator = await stage.add_operator()
        stage.inject(fault(stage))
        operator.start()
        await stage.train()
        if batch:
            await stage.answer()
        await stage.until_injected(1)
        await stage.verdict(goldens.answered if batch else goldens.trained)

    return play


def labelled(label: str) -> Callable[[Request], bool]:
    """Matches one kind of request; see Request.label."""
    return lambda request: request.label == label


def starting(prefix: str) -> Callable[[Request], bool]:
    """Matches requests whose label starts so."""
    return lambda request: request.label.startswith(prefix)


Body = Callable[[Stage, Goldens], Awaitable[None]]
