"""One store with a tiny base and three adapters, and one server over them for the whole session."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune_contract.base import StoredReference
from finetune_server.model import LanguageModel, load, served_models
from tests.trainer.server.running import Running, serving
from tests.trainer.server.tiny import Shop, greedy, quiet

Reference = tuple[str, tuple[float, ...]]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    torch.set_num_threads(1)
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def adapters(shop: Shop) -> dict[str, StoredReference]:
    """A dot in a name is legal for a model and not for a torch module."""
    return {name: shop.publish(seed) for seed, name in enumerate(("triage", "tickets-v1.2", "docs"))}


@pytest.fixture(scope="session")
def loaded(shop: Shop, adapters: dict[str, StoredReference]) -> LanguageModel:
    """The model of that store in this process."""
    plan = shop.plan(adapters)
    with quiet():
        return load(served_models(plan, shop.root / "store", shop.adapters))


@pytest.fixture(scope="session")
def server(shop: Shop, adapters: dict[str, StoredReference]) -> Iterator[Running]:
    plan = shop.write_plan(shop.plan(adapters), "main")
    with serving(plan, shop.root / "store", shop.adapters) as running:
        yield running


class References:
    """What each model answers when asked alone: whole forwards of plain transformers and peft."""

    def __init__(self, shop: Shop, adapters: dict[str, StoredReference]) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(shop.base_path)
        with quiet():
            self._models: dict[str, Any] = {"tiny": self._base(shop)}
            for name, ref in adapters.items():
                model = PeftModel.from_pretrained(self._base(shop), shop.adapter_path(name, ref))
                self._models[name] = model.eval()

    @staticmethod
    def _base(shop: Shop) -> Any:
        return AutoModelForCausalLM.from_pretrained(shop.base_path, dtype=torch.float32).eval()

    def greedy(self, model: str, prompt: str, count: int) -> Reference:
        return greedy(self._models[model], self.tokenizer, prompt, count)


@pytest.fixture(scope="session")
def references(shop: Shop, adapters: dict[str, StoredReference], server: Running) -> References:
    return References(shop, adapters)
