"""API keys: who is let in, and how that changes while the server runs."""

from pathlib import Path

import pytest

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_server.keys import ApiKeys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("sk-one\n\n  sk-two  \n")
    return path


def replace(file: Path, text: str) -> None:
    """As the kubelet does it: another file under the same name."""
    other = file.with_suffix(".new")
    other.write_text(text)
    other.replace(file)


@pytest.mark.parametrize(
    ("header", "is_accepted"),
    [
        ("Bearer sk-one", True),
        ("bearer sk-two", True),
        ("Bearer  sk-one ", True),
        ("Bearer sk-on", False),
        ("Bearer sk-one2", False),
        ("Bearer ", False),
        ("Bearer", False),
        ("Basic sk-one", False),
        ("sk-one", False),
        ("Bearer sk-\xfc\udc80", False),
        ("", False),
        (None, False),
    ],
)
def test_who_is_let_in(file: Path, header: str | None, is_accepted: bool) -> None:
    assert ApiKeys(file).accepts(header) is is_accepted


def test_a_changed_file_is_read_again(file: Path) -> None:
    keys = ApiKeys(file)

    replace(file, "sk-new\n")

    assert keys.accepts("Bearer sk-new")
    assert not keys.accepts("Bearer sk-one")


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda file: replace(file, ""), lambda file: file.write_bytes(b"\xff")]
)
def test_without_keys_nobody_is_let_in_until_there_are_some(file: Path, damage: object) -> None:
    keys = ApiKeys(file)

    assert callable(damage)
    damage(file)

    assert not keys.accepts("Bearer sk-one")
    assert not keys.accepts("Bearer ")
    replace(file, "sk-one")
    assert keys.accepts("Bearer sk-one")


@pytest.mark.parametrize("text", [None, "", "\n  \n"])
def test_a_server_that_nobody_could_ask_does_not_start(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)

    with pytest.raises(FineTuneError, match="holds no key; write one key per line") as caught:
        ApiKeys(file)

    assert caught.value.reason is FailureReason.INVALID_PLAN
