"""What a base model cannot make a pod do: run its code, read a pickle, or fetch anything."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import StoredKind
from tests.trainer import runs, tiny
from tests.trainer.conftest import Workshop

CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nraise SystemExit('its own code was run')\n"


class _Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._mark),)


def with_code(directory: Path) -> None:
    """A model of a kind that only its own code knows."""
    config = json.loads((directory / "config.json").read_text())
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    (directory / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    (directory / "modeling_own.py").write_text(CODE)


def with_foreign_code(directory: Path) -> None:
    """The same, with its code in a repository of the Hub."""
    with_code(directory)
    text = (directory / "config.json").read_text().replace("modeling_own.Own", "org/evil--modeling_own.Own")
    (directory / "config.json").write_text(text)
    (directory / "modeling_own.py").unlink()


def with_pickle(directory: Path) -> None:
    """Weights only in a pickle."""
    (directory / "model.safetensors").unlink()
    with (directory / "pytorch_model.bin").open("wb") as file:
        pickle.dump(_Evil(directory / "ran"), file)


@pytest.mark.parametrize("change", [with_code, with_foreign_code, with_pickle])
@pytest.mark.parametrize("method", ["SFT", "Reward"])
def test_a_base_that_wants_more_than_to_be_read_is_refused_by_name(
    workshop: Workshop, change: Any, method: str
) -> None:
    with workshop.store.workspace(StoredKind.MODEL) as directory:
        tiny.build_tokenizer(directory)
        tiny.build_model(directory)
        change(directory)
        base = workshop.store.publish(StoredKind.MODEL, directory, {})
    more: dict[str, Any] = {}
    if method == "Reward":
        from finetune_contract.datasets import RowFormat

        rows = {"train": tiny.preference_rows(8), "test": tiny.preference_rows(8, 1)}
        more = {"method": method, "dataset": tiny.publish_dataset(workshop.store, RowFormat.PREFERENCE, rows)}
    with pytest.raises(FineTuneError) as caught:
        runs.run(workshop.store, workshop.plan(base=base, **more))
    assert caught.value.reason is FailureReason.MODEL_NOT_FOUND
    assert str(caught.value).startswith("spec.baseModel: ")
    assert not list(workshop.store.root.rglob("ran"))
