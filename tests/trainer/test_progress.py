import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from finetune_contract.results import Phase, Progress
from finetune_trainer.progress import ProgressBoard, ProgressServer


@pytest.fixture
def board() -> ProgressBoard:
    return ProgressBoard("a1", 2)


@pytest.fixture
def address(board: ProgressBoard) -> Iterator[str]:
    server = ProgressServer(board, 0)
    server.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_it_is_loading_before_anything_else(address: str) -> None:
    document = json.loads(get(f"{address}/progress"))
    assert document["phase"] == "Loading"
    assert document["runKey"] == "a1"
    assert document["attempt"] == 2


def test_progress_follows_the_board(board: ProgressBoard, address: str) -> None:
    board.update(total_steps=8)
    board.training_begins()
    board.step_ends(step=2, epoch=0.25, tokens=1000)
    board.update(loss=1.5, learning_rate=1e-4, checkpoint_step=2)
    seen = Progress.model_validate_json(get(f"{address}/progress"))
    assert (seen.phase, seen.step, seen.percent, seen.epoch, seen.loss) == (Phase.TRAINING, 2, 25, 0.25, 1.5)
    assert seen.tokens_per_second is not None
    assert seen.tokens_per_second > 0
    assert seen.estimated_completion_time is not None
    assert seen.estimated_completion_time >= seen.updated_at.replace(microsecond=0)


def test_metrics_have_documented_names(board: ProgressBoard, address: str) -> None:
    board.update(loss=1.5, step=3, total_steps=10)
    lines = get(f"{address}/metrics").splitlines()
    assert "finetune_trainer_loss 1.5" in lines
    assert "finetune_trainer_step 3.0" in lines
    assert 'finetune_trainer_phase{phase="Loading"} 1.0' in lines
    assert 'finetune_trainer_phase{phase="Training"} 0.0' in lines


def test_health_and_nothing_else(address: str) -> None:
    assert get(f"{address}/healthz") == "ok\n"
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        get(f"{address}/etc/passwd")
    caught.value.close()
