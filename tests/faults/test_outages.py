"""The API server goes away, tokens expire, leaders die: work goes on where it was, and nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial

import pytest

from tests.faults import life
from tests.faults.laboratory import Case, Goldens, Laboratory
from tests.faults.plays import running_operator
from tests.faults.process import Operator
from tests.faults.stage import PATIENCE, Stage

TAKEOVER_SECONDS = 20.0
"""In which a standby works after the leader has died, with the intervals of production."""
GIVEN_BACK_SECONDS = 30.0
"""In which a standby leads after the lease was given back; half of the time in which it would expire."""
STARVED = 5.0
"""Runnable processes per processor beyond which times say nothing."""
PRODUCTION = {"LEASE_DURATION_SECONDS": "12", "LEASE_RENEW_SECONDS": "8", "LEASE_RETRY_SECONDS": "2"}
FIVE_MINUTES = 15.0
"""Seconds. What waits for the API server here waits a twentieth to a thirtieth of what it does in production."""
MOMENTS = {
    "preparing": ("Dataset", life.DATASET, "reading the source", "prepare-1"),
    "staging": ("FineTuneJob", life.JOB, "bringing the base model", "stage-1"),
    "training": ("FineTuneJob", life.JOB, "is running", "train-1"),
}
"""Name -> when its pod runs: who says what, and which pod it is."""


async def _until_moment(stage: Stage, moment: str) -> asyncio.Event:
    """Bring the life to where a pod runs; the answer lets it end."""
    kind, name, words, part = MOMENTS[moment]
    held = stage.kubelet.hold(part)
    await stage.begin()
    await stage.until_said(kind, name, words)

    def runs() -> bool:
        pods = stage.history.of("Pod")
        return any(part in pod["metadata"]["name"] or pod["status"].get("phase") == "Running" for pod in pods)

    await stage.until(f"the pod of {part}", runs)
    return held


async def _outage(seconds: float, moment: str, stage: Stage, goldens: Goldens) -> None:
    """The pod's end falls into the outage. A leader that cannot renew its lease ends, and is started again."""
    operator = await running_operator(stage, LEASE_DURATION_SECONDS="5", LEASE_RENEW_SECONDS="3")
    stage.exits_allowed = 99
    held = await _until_moment(stage, moment)
    operator.proxy.is_down = True
    operator.proxy.injected += 1
    operator.proxy.hang_up_all()
    held.set()
    await asyncio.sleep(seconds)
    assert await operator.probe("/livez") in (0, 200), "a restart would not bring the API server back"
    operator.proxy.is_down = False
    await stage.until_done()
    await stage.verdict(goldens.trained)


async def _away_at_start(stage: Stage, goldens: Goldens) -> None:
    operator = await stage.add_operator()
    operator.proxy.is_down = True
    operator.proxy.injected += 1
    operator.start()
    async with asyncio.timeout(90):
        while await operator.probe("/livez") != 200:
            await asyncio.sleep(0.1)
    assert await operator.probe("/readyz") == 503
    operator.proxy.is_down = False
    await operator.ready()
    await stage.train()
    await stage.verdict(goldens.trained)


async def _new_token(delay: float, stage: Stage, goldens: Goldens) -> None:
    """The old token is refused; the new one is on disk before or some time after."""
    operator = await running_operator(stage)
    stage.complaints_allowed = ("Traceback",)
    held = await _until_moment(stage, "training")
    operator.proxy.token = "token-1"
    operator.proxy.hang_up_all()
    held.set()
    await asyncio.sleep(delay)
    operator.write_kubeconfig("token-1")
    await stage.until_done()
    await stage.verdict(goldens.trained)


async def _two_leaders(stage: Stage, goldens: Goldens) -> None:
    """Two operators that know nothing of each other's lease."""
    await running_operator(stage)
    await running_operator(stage, "operator-1", POD_NAMESPACE="default")
    stage.proxy.injected += 1
    await stage.whole_life()
    await stage.verdict(goldens.whole)


async def _leader_of(stage: Stage) -> tuple[Operator, Operator]:
    """The operator that leads, and the other one."""
    async with asyncio.timeout(90):
        while not (holder := await _holder(stage)):
            await asyncio.sleep(0.1)
    first, second = stage.operators
    return (first, second) if first.name == holder else (second, first)


async def _holder(stage: Stage) -> str:
    lease = await stage.api.get("Lease", stage.namespace, "finetune-operator")
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")


async def _leader_killed(moment: str, stage: Stage, goldens: Goldens) -> None:
    """kill -9 of the leader, with the intervals of production: the standby works within 20 s."""
    stage.lease_is_short = True
    await running_operator(stage, **PRODUCTION)
    standby = await stage.add_operator("operator-1", **PRODUCTION)
    standby.start()
    await standby.ready()
    held = await _until_moment(stage, moment)
    leader, other = await _leader_of(stage)
    before = len(other.proxy.writes)
    assert not before, "a standby writes nothing"
    await leader.stop()
    leader.proxy.injected += 1
    killed = time.monotonic()
    held.set()
    async with asyncio.timeout(PATIENCE):
        while not other.proxy.writes:
            await asyncio.sleep(0.1)
    is_starved = os.getloadavg()[0] > STARVED * len(os.sched_getaffinity(0))
    assert time.monotonic() - killed < TAKEOVER_SECONDS or is_starved
    await stage.until_done()
    stage.operators.remove(leader)
    stage.retired.append(leader)
    await stage.verdict(goldens.trained)


async def _leader_stopped(stage: Stage, goldens: Goldens) -> None:
    """SIGTERM: the lease is given back, so the standby need not wait for its end."""
    await running_operator(stage)
    standby = await stage.add_operator("operator-1")
    standby.start()
    await standby.ready()
    held = await _until_moment(stage, "training")
    leader, other = await _leader_of(stage)
    leader.proxy.injected += 1
    assert await leader.terminate() == 0
    held.set()
    async with asyncio.timeout(GIVEN_BACK_SECONDS):
        while await _holder(stage) != other.name:
            await asyncio.sleep(0.1)
    await stage.until_done()
    stage.operators.remove(leader)
    stage.retired.append(leader)
    await stage.verdict(goldens.trained)


async def _lease_stolen(stage: Stage, goldens: Goldens) -> None:
    """A leader that sees another name in its lease ends at once, and works again when the lease is free."""
    operator = await running_operator(stage, LEASE_DURATION_SECONDS="15", LEASE_RENEW_SECONDS="12")
    stage.exits_allowed = 1
    stage.lease_is_short = True
    held = await _until_moment(stage, "training")
    thief = {"spec": {"holderIdentity": "somebody-else", "leaseDurationSeconds": 1}}
    await stage.edit("Lease", "finetune-operator", thief)
    operator.proxy.injected += 1
    async with asyncio.timeout(90):
        while not operator.exits:
            await asyncio.sleep(0.05)
    held.set()
    await stage.until_done()
    await stage.verdict(goldens.trained)


async def _lease_deleted(stage: Stage, goldens: Goldens) -> None:
    operator = await running_operator(stage)
    held = await _until_moment(stage, "training")
    await stage.api.delete("Lease", stage.namespace, "finetune-operator")
    operator.proxy.injected += 1
    held.set()
    await stage.until_done()
    await stage.verdict(goldens.trained)


CASES = [
    *(
        Case("outage", f"{seconds:g} s while {moment}", partial(_outage, seconds, moment))
        for seconds in (1.0, 6.0, FIVE_MINUTES)
        for moment in MOMENTS
    ),
    Case("outage", "at the start", _away_at_start),
    Case("token", "rotated", partial(_new_token, 0.0)),
    Case("token", "rotated, known 2 s later", partial(_new_token, 2.0)),
    Case("leaders", "two", _two_leaders),
    *(Case("leader killed", moment, partial(_leader_killed, moment)) for moment in MOMENTS),
    Case("leaders", "stopped", _leader_stopped),
    Case("lease", "stolen", _lease_stolen),
    Case("lease", "deleted", _lease_deleted),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_work_goes_on(case: Case, laboratory: Laboratory) -> None:
    laboratory.outcome(case)
