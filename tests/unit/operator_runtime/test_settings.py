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


def test_prices_are_json() -> None:
    prices = '[{"resource": "nvidia.com/gpu", "nodeSelector": {"gpu": "h100"}, "perHour": 2.5}]'
    settings = Settings.from_environment({"FINETUNE_PRICES": prices, "FINETUNE_CURRENCY": "EUR"})
    assert (settings.currency, settings.prices[0].per_hour) == ("EUR", 2.5)
    for wrong in ("2.5", "{", '[{"resource": "x", "perHour": -1}]', '[{"resource": "x", "perHour": 1, "per": "h"}]'):
        with pytest.raises(ValueError, match=r"PRICES|prices"):
            Settings.from_environment({"FINETUNE_PRICES": wrong})
