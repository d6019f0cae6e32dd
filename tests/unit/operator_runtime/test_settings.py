import pytest
from pydantic import ValidationError

from finetune_operator.settings import Settings


def test_settings_come_from_the_environment() -> None:
    settings = Settings.from_environment({"FINETUNE_WORKERS": "3", "FINETUNE_NAMESPACES": "a,b", "OTHER": "x"})
    assert (settings.workers, settings.namespaces) == (3, ("a", "b"))


def test_empty_means_default() -> None:
    assert Settings.from_environment({"FINETUNE_CLAIM_STORAGE_CLASS": ""}).claim_storage_class is None


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(ValidationError, match="workers"):
        Settings.from_environment({"FINETUNE_WORKERS": "0"})


def test_looks_must_be_closer_than_what_they_delete_is_old() -> None:
    environment = {"FINETUNE_RETENTION_MINIMUM_AGE_SECONDS": "100", "FINETUNE_COLLECTION_INTERVAL_SECONDS": "51"}
    with pytest.raises(ValidationError, match="at most half of"):
        Settings.from_environment(environment)
    assert Settings.from_environment({**environment, "FINETUNE_COLLECTION_INTERVAL_SECONDS": "50"})


def test_accelerators_are_json() -> None:
    kinds = '[{"name": "H100", "nodeSelector": {"gpu": "h100"}, "pricePerHour": 2.5}]'
    settings = Settings.from_environment({"FINETUNE_ACCELERATORS": kinds, "FINETUNE_CURRENCY": "EUR"})
    assert (settings.currency, settings.accelerators[0].price_per_hour) == ("EUR", 2.5)
    for wrong in (
        "2.5",
        "{",
        '[{"name": "x", "pricePerHour": -1}]',
        '[{"name": "x", "memoryGib": 0}]',
        '[{"name": "x", "per": 1}]',
    ):
        with pytest.raises(ValueError, match=r"ACCELERATORS|accelerators"):
            Settings.from_environment({"FINETUNE_ACCELERATORS": wrong})
