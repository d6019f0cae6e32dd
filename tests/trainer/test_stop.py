import os
import signal
from collections.abc import Iterator

import pytest

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.stop import Stop
from finetune_trainer.train.failures import named


@pytest.fixture
def stop() -> Iterator[Stop]:
    handler = signal.getsignal(signal.SIGTERM)
    stop = Stop()
    stop.install()
    yield stop
    signal.signal(signal.SIGTERM, handler)


def test_outside_of_training_it_stops_at_once(stop: Stop) -> None:
    with pytest.raises(FineTuneError) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.reason is FailureReason.PREEMPTED


def test_deferred_it_is_only_remembered(stop: Stop) -> None:
    with stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    with pytest.raises(FineTuneError):
        stop.check()


def test_an_import_that_swallows_the_stop_does_not_become_a_crash(stop: Stop) -> None:
    def load_libraries() -> None:
        with named(stop):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except FineTuneError as error:
                raise RuntimeError("Failed to import transformers.trainer") from error

    with pytest.raises(FineTuneError) as caught:
        load_libraries()
    assert caught.value.reason is FailureReason.PREEMPTED


def test_without_a_signal_nothing_stops(stop: Stop) -> None:
    with stop.deferred():
        pass
    stop.check()
