"""A messy source becomes a clean revision in a real pod, with tokens counted and a report that people can fetch."""

import json
import os
import subprocess
import sys

import pytest

from tests.cluster.kube import Kube
from tests.cluster.objects import dataset

pytestmark = pytest.mark.cluster

LABELS = ("animal", "metal", "fruit")
ROWS = [
    {
        "text": f"ticket {number} says that thing number {number * 7} is of kind {number % 5}",
        "label": LABELS[number % 3],
    }
    for number in range(60)
]
MESSY = [
    *ROWS,
    *ROWS[:4],
    {"text": "write to jane.doe@example.com about it please", "label": "fruit"},
    {"text": "no", "label": "fruit"},
]


def test_a_messy_source_is_cleaned_counted_and_reported(lab: Kube) -> None:
    lab.apply(
        dataset(
            "messy",
            source={"inline": {"jsonl": "".join(json.dumps(row) + "\n" for row in MESSY)}},
            prepare={"personalData": "Redact", "filters": {"minWords": 3, "maxTokens": 2000}},
            split={"test": 9, "stratifyBy": "label"},
            tokenizer={"persistentVolumeClaim": {"claimName": "files", "path": "base"}},
        )
    )
    revision = lab.wait_ready("dataset", "messy")["revision"]
    assert revision["dropped"] == [{"reason": "ExactDuplicate", "rows": 4}, {"reason": "TooShort", "rows": 1}]
    assert {"kind": "Email", "rows": 1, "count": 1} in revision["personalData"]
    train, test = revision["splits"]
    assert train["rows"] + test["rows"] == 61
    assert (test["requested"], 0 < test["fraction"] < 1) == (9, True)
    assert train["tokens"]["total"] > train["tokens"]["supervised"] > 0
    argv = [sys.executable, "-m", "finetune_cli", "report", "dataset", "messy", "-n", lab.namespace, "-o", "-"]
    html = subprocess.run(argv, env=dict(os.environ), capture_output=True, text=True, timeout=120, check=True).stdout
    assert html.startswith("<!doctype html>")
    assert "ExactDuplicate" in html
    assert "jane.doe" not in html
    assert not lab.find("pods", "app.kubernetes.io/managed-by=kubectl-finetune")
