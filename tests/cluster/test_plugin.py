"""`kubectl finetune` against the real API server: what it applies, and what is said of it (watch, chat: test_gate)."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.kube import Kube, Object
from tests.cluster.objects import job, resource
from tests.cluster.plugin import plugin

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ROWS = "".join(json.dumps({"prompt": f"{n}?", "completion": str(n)}) + "\n" for n in range(8))


def written(folder: Path, *items: Object) -> str:
    path = folder / "objects.yaml"
    path.write_text(yaml.safe_dump_all(items))
    return str(path)


def words(done: "subprocess.CompletedProcess[str]") -> list[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_every_example_is_taken_by_the_server(kube: Kube) -> None:
    lines = words(plugin(kube, "submit", str(EXAMPLES), "--dry-run"))
    assert len(lines) >= 20
    assert all(line.endswith("created (dry run)") for line in lines)
    assert kube.find("datasets,finetunejobs,modeldeployments,batchinferences") == []


def test_what_init_writes_is_taken_by_the_server(kube: Kube, tmp_path: Path) -> None:
    for method in ("SFT", "CPT", "DPO", "KTO", "GRPO"):
        folder = str(tmp_path / method)
        words(plugin(kube, "init", folder, "--name", "triage", "--data", "org/rows", "--base", "org/model",
                     f"--method={method}"))  # fmt: skip
        assert len(words(plugin(kube, "submit", folder, "--dry-run"))) == 3


def test_from_submit_to_cancel(kube: Kube, tmp_path: Path) -> None:
    dataset = resource("Dataset", "rows", {"source": {"inline": {"jsonl": ROWS}}})
    waiting = job("waits", dataset={"name": "none"})
    file = written(tmp_path, waiting, dataset)
    assert words(plugin(kube, "submit", file)) == ["dataset/rows created", "finetunejob/waits created"]
    kube.wait("the job's reason", lambda: kube.condition("finetunejob", "waits", "Ready").get("reason"))
    # The operator has written the status meanwhile: that is no change of what was applied.
    assert words(plugin(kube, "submit", file))[1] == "finetunejob/waits unchanged"
    shown = kube.kubectl("get", "finetunejob", "waits", "-o", "json", "--show-managed-fields").stdout
    assert ("kubectl-finetune", "Apply") in {
        (one["manager"], one["operation"]) for one in json.loads(shown)["metadata"]["managedFields"]
    }

    kube.merge("finetunejob", "waits", {"spec": {"adapter": {"rank": 8}}})
    refused = plugin(
        kube, "submit", written(tmp_path, {**waiting, "spec": {**waiting["spec"], "adapter": {"rank": 4}}})
    )
    assert refused.returncode == 1
    assert ".spec.adapter.rank; --force-conflicts takes these fields over" in refused.stderr

    kube.wait_ready("dataset", "rows")
    told = words(plugin(kube, "events", "rows", "--kind", "dataset"))
    assert any("job/rows-prepare-" in line for line in told), told
    assert words(plugin(kube, "status", "-o", "wide"))[1].startswith("waits")
    assert json.loads(plugin(kube, "cost", "-o", "json").stdout)["jobs"][0]["name"] == "waits"

    words(plugin(kube, "cancel", "waits", "--yes"))
    kube.wait("the job to be gone", lambda: kube.get("finetunejob", "waits") is None)
    missing = plugin(kube, "status", "waits")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "no FineTuneJob 'waits' in namespace" in missing.stderr


def test_a_namespace_that_is_not_there() -> None:
    done = plugin(Kube("nobody-made-this"), "submit", str(EXAMPLES / "dataset-inline.yaml"))
    assert done.returncode == 1
    assert "there is no namespace nobody-made-this; `kubectl create namespace nobody-made-this` makes it" in done.stderr
