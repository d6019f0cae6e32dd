"""The log of an attempt outlives its pod, whatever ends it, and stays small."""

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_store.store import Store
from finetune_trainer.keptlog import KeptLog, kept

PATH = "attempts/1/log.txt"
log = logging.getLogger("finetune_trainer.test")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    return Store(tmp_path, "claim")


def test_what_was_said_and_why_it_ended_is_kept(store: Store) -> None:
    def attempt() -> None:
        with kept(store, "a1", PATH):
            log.info("step %d", 7)
            raise FineTuneError(FailureReason.DATASET_INVALID, "no rows")

    with pytest.raises(FineTuneError):
        attempt()
    text = store.recorded("a1", PATH) or ""
    first, last = text.splitlines()
    assert first.endswith("Z step 7")
    assert last == "DatasetInvalid: no rows"


def test_an_error_without_a_name_is_kept_with_its_place(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), kept(store, "a1", PATH):
        _ = 1 / 0
    text = store.recorded("a1", PATH) or ""
    assert "test_keptlog.py" in text
    assert "ZeroDivisionError" in text


def test_another_pod_of_the_attempt_goes_on_below(store: Store) -> None:
    for word in ("first", "second"):
        with kept(store, "a1", PATH):
            log.info(word)
    lines = (store.recorded("a1", PATH) or "").splitlines()
    assert [line.split()[-1] for line in lines] == ["first", "---", "second"]


def test_only_the_beginning_and_the_end_of_a_long_log_are_kept() -> None:
    handler = KeptLog(head=100, tail=300)
    for number in range(1000):
        handler.note(f"line {number}")
    handler.note("x" * 5000)
    text = handler.text()
    assert text.startswith("line 0\nline 1\n")
    assert text.rstrip().endswith("xxx")
    assert "bytes are left out ---" in text
    assert len(text) < 500


def test_a_log_that_cannot_be_written_fails_nothing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    (store.root / "runs").write_text("a file where a directory should be")
    with kept(store, "a1", PATH):
        log.info("well")
    assert "the log cannot be kept at attempts/1/log.txt" in caplog.text


KILLED = """
import logging, sys, time
from pathlib import Path
from finetune_store.store import Store
from finetune_trainer.keptlog import kept
logging.basicConfig(level=logging.INFO)
with kept(Store(Path(sys.argv[1]), "claim"), "a1", "attempts/1/log.txt", interval=0.05):
    logging.info("the last words")
    time.sleep(60)
"""


def test_a_pod_that_is_killed_has_left_its_log(store: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(store.root)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not store.recorded("a1", PATH):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait(10)
    assert "the last words" in (store.recorded("a1", PATH) or "")
