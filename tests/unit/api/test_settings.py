import pytest
from pydantic import ValidationError

from finetune_operator.settings import Settings


def test_settings_come_from_the_environment() -> None:
    found = Settings.from_environment(
        {"FINETUNE_WORKERS": "3", "FINETUNE_NAMESPACES": "a, b,", "FINETUNE_CLAIM_SIZE": "", "OTHER": "x"}
    )
    assert (found.workers, found.namespaces, found.claim_size) == (3, ("a", "b"), "100Gi")


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ValidationError, match="workers"):
        Settings.from_environment({"FINETUNE_WORKERS": "many"})
