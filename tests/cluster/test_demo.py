"""The demo's own YAMLs and program, end to end: the model must get better, and the adapter must answer.

It trains for minutes on all cores that there are, and pods of other tests would hardly get any: it runs alone.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.cluster.kube import BIN, KUBECONFIG, ROOT, Kube

pytestmark = [pytest.mark.cluster, pytest.mark.exclusive]

LIMIT_SECONDS = 1500


def test_demo_makes_a_better_model_and_serves_it(kube: Kube) -> None:
    environment = {
        **os.environ,
        "DEMO_NAMESPACE": kube.namespace,
        "KUBECONFIG": str(KUBECONFIG),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tools.demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{kube.picture()}"
    assert "adapter says" in done.stdout
    record = json.loads((ROOT / ".local" / "demo.json").read_text())
    tuned, zero_shot = record["accuracies"]["Tuned"], record["accuracies"]["ZeroShot"]
    assert tuned >= 2 * record["majority"], record
    assert tuned >= zero_shot + 0.3, record
    assert record["rows"] >= 150, record
