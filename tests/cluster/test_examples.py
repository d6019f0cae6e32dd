"""Every YAML in examples/ is accepted by the real API server."""

from pathlib import Path

import pytest

from tests.cluster.kube import ROOT, Kube

pytestmark = pytest.mark.cluster

FILES = sorted((ROOT / "examples").rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT / "examples")) for file in FILES])
def test_example_is_accepted(system: Kube, file: Path) -> None:
    answer = system.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(file)).stdout
    assert "server dry run" in answer
