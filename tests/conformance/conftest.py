"""One engine for the whole suite, and the clients that people use. Run by `make test-conformance`."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("DO_NOT_TRACK", "1")

import huggingface_hub
import openai
from huggingface_hub import InferenceClient

from tests.conformance.engines import Target, engine_under_test


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with engine_under_test(tmp_path_factory.mktemp("conformance")) as target:
        yield target


@pytest.fixture(scope="session")
def client(target: Target) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{target.url}/v1", api_key=target.api_key or "none", max_retries=0) as client:
        yield client


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's client refuses loopback, too, in the offline mode that other tests rely on."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def chat_hub(target: Target, online: None) -> InferenceClient:
    return InferenceClient(base_url=target.url, api_key=target.api_key)


@pytest.fixture
def text_hub(target: Target, online: None) -> InferenceClient:
    return InferenceClient(model=target.url, token=target.api_key)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    mine = [item for item in items if item.path.parent == here]
    for item in mine:
        item.add_marker(pytest.mark.conformance)
    # The last one ends the engine.
    items.sort(key=lambda item: item.path.name == "test_drain.py" and item.path.parent == here)
