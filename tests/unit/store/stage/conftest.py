"""One stage pod with a store and a claim of its own."""

from pathlib import Path

import pytest

from tests.unit.store.stage.pods import Pod


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)
