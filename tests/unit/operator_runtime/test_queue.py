import asyncio

import pytest

from finetune_operator.queue import FIRST_DELAY, LONGEST_DELAY, Closed, Urgency, WorkQueue
from tests.unit.operator_runtime.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(clock: FakeClock) -> WorkQueue[str]:
    return WorkQueue(clock, jitter=lambda: 1.0)


def drain(queue: WorkQueue[str]) -> list[str]:
    keys = []
    while len(queue):
        keys.append(queue.take())
        queue.done(keys[-1])
    return keys


def test_a_key_waits_once(queue: WorkQueue[str]) -> None:
    for key in "aba":
        queue.add(key)
    assert drain(queue) == ["a", "b"]


def test_a_key_is_never_with_two_workers(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert drain(queue) == ["a"]


def test_the_earliest_time_wins(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 10)
    queue.add_after("a", 2)
    queue.add_after("a", 20)
    clock.advance(1.9)
    assert drain(queue) == []
    clock.advance(0.2)
    assert drain(queue) == ["a"]
    clock.advance(60)
    assert drain(queue) == []


def test_times_of_many_keys_are_kept_in_order(queue: WorkQueue[str], clock: FakeClock) -> None:
    for key, delay in (("c", 3), ("a", 1), ("b", 2)):
        queue.add_after(key, delay)
    clock.advance(5)
    assert drain(queue) == ["a", "b", "c"]


def test_adding_now_replaces_a_later_time(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 5)
    queue.add("a")
    assert drain(queue) == ["a"]
    clock.advance(10)
    assert drain(queue) == []


def test_back_off_doubles_up_to_five_minutes_for_each_key_by_itself(queue: WorkQueue[str], clock: FakeClock) -> None:
    delays = []
    for _ in range(20):
        delays.append(queue.retry("a"))
        clock.advance(LONGEST_DELAY)
        drain(queue)
    assert delays[:3] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert delays[-1] == LONGEST_DELAY
    assert queue.retry("b") == FIRST_DELAY
    queue.forget("a")
    assert queue.retry("a") == FIRST_DELAY


def test_back_off_has_jitter(clock: FakeClock) -> None:
    assert WorkQueue[str](clock, jitter=lambda: 0.0).retry("a") == FIRST_DELAY / 2


async def test_waiting_workers_get_one_key_each(queue: WorkQueue[str]) -> None:
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in "abc":
        queue.add(key)
    assert await asyncio.gather(*workers) == ["a", "b", "c"]


async def test_a_cancelled_worker_passes_its_turn_on(queue: WorkQueue[str]) -> None:
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await second == "a"


async def test_a_closed_queue_gives_out_nothing(queue: WorkQueue[str]) -> None:
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.close()
    with pytest.raises(Closed):
        await waiting
    queue.add("a")
    with pytest.raises(Closed):
        await queue.get()


def test_the_longest_pass_is_known(queue: WorkQueue[str], clock: FakeClock) -> None:
    assert queue.longest_running() == 0
    queue.add("a")
    queue.take()
    clock.advance(7)
    assert queue.longest_running() == 7


def test_the_longest_wait_is_known(queue: WorkQueue[str], clock: FakeClock) -> None:
    assert queue.longest_waiting() == 0
    queue.add("a")
    clock.advance(3)
    queue.add("b")
    queue.add("a", Urgency.EDIT)
    clock.advance(4)
    assert queue.longest_waiting() == 7
    drain(queue)
    assert queue.longest_waiting() == 0


def test_edits_come_before_changes_and_those_before_a_resync(queue: WorkQueue[str]) -> None:
    queue.add("resync", Urgency.RESYNC)
    queue.add("change")
    queue.add("edit", Urgency.EDIT)
    queue.add("second edit", Urgency.EDIT)
    assert drain(queue) == ["edit", "second edit", "change", "resync"]


def test_a_waiting_key_becomes_more_urgent_but_never_less(queue: WorkQueue[str]) -> None:
    for key in "abc":
        queue.add(key, Urgency.RESYNC)
    queue.add("c", Urgency.EDIT)
    queue.add("c", Urgency.RESYNC)
    assert len(queue) == 3
    assert drain(queue) == ["c", "a", "b"]


def test_a_key_that_was_moved_is_taken_once_each_time_it_is_added(queue: WorkQueue[str]) -> None:
    queue.add("a", Urgency.RESYNC)
    queue.add("a", Urgency.EDIT)
    assert drain(queue) == ["a"]
    queue.add("a", Urgency.RESYNC)
    queue.add("b", Urgency.RESYNC)
    assert drain(queue) == ["a", "b"]
    with pytest.raises(IndexError):
        queue.take()


def test_a_key_edited_while_a_worker_has_it_is_next(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.take()
    queue.add("b")
    queue.add("a")
    queue.add("a", Urgency.EDIT)
    queue.done("a")
    assert drain(queue) == ["a", "b"]


async def test_a_raised_key_wakes_one_worker(clock: FakeClock, queue: WorkQueue[str]) -> None:
    workers = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.add("a", Urgency.RESYNC)
    queue.add("a", Urgency.EDIT)
    done, waiting = await asyncio.wait(workers, timeout=0.05)
    assert [task.result() for task in done] == ["a"]
    for task in waiting:
        task.cancel()
