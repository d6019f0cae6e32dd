"""Every YAML in examples/ and in the documentation is accepted by the real API server."""

from itertools import groupby

import pytest
import yaml

from tests.cluster.kube import ROOT, Kube
from tests.documents import blocks

pytestmark = pytest.mark.cluster

EXAMPLES = {
    str(file.relative_to(ROOT)): [item for item in yaml.safe_load_all(file.read_text()) if item]
    for file in sorted((ROOT / "examples").rglob("*.yaml"))
}
PAGES = {
    page: [item for block in found for item in yaml.safe_load_all(block.text) if "apiVersion" in item]
    for page, found in groupby(blocks("yaml"), lambda block: block.place.rsplit(":", 1)[0])
}
OURS = {
    name: wanted
    for name, items in {**EXAMPLES, **PAGES}.items()
    if (wanted := [item for item in items if item["apiVersion"].startswith("finetune.dev/")])
}


@pytest.mark.parametrize("name", OURS)
def test_yaml_is_accepted(system: Kube, name: str) -> None:
    for item in OURS[name]:
        item["metadata"].pop("namespace", None)
    text = yaml.safe_dump_all(OURS[name])
    answer = system.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text).stdout
    assert answer.count("server dry run") == len(OURS[name])
