from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.apiserver import ApiServer, kubeconfig, running

KUBECONFIG = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """An API server on loopback that the kubeconfig names, with `team` as its namespace."""
    with running() as server:
        monkeypatch.setattr(KUBECONFIG, str(kubeconfig(tmp_path / "kubeconfig", server.url)))
        yield server
