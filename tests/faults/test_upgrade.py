"""The operator is upgraded while objects of an earlier version are there: it goes on with them as they are.

`previous/<version>/` holds what that version left in the API server. Once per release:
`pytest tests/faults/test_upgrade.py --faults-record VERSION`.
"""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults import life
from tests.faults.api import PATHS, Object
from tests.faults.laboratory import Case, Goldens, Laboratory
from tests.faults.plays import running_operator
from tests.faults.stage import Stage

PREVIOUS = Path(__file__).with_name("previous")
KINDS = ("PersistentVolumeClaim", "Dataset", "FineTuneJob", "ConfigMap", "Job")
"""In the order in which they are restored: owners before children."""
SERVER_SIDE = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "namespace", "finalizers")
LEARNED: dict[str, tuple[tuple[str, ...], ...]] = {
    "0.1.0": (("run", "attempt"), ("runs", "artifact"), ("runs", "gpuSeconds"))
}
"""Version -> fields of a status that it did not know: what had ended then is not written again for their sake."""
MOMENTS = {"training": "is running", "succeeded": "Succeeded"}


# --- recording


async def _record(version: str, moment: str, stage: Stage, _goldens: Goldens) -> None:
    await running_operator(stage)
    if moment == "training":
        stage.kubelet.hold("train-1")
    await stage.begin()
    await stage.until_said("FineTuneJob", life.JOB, MOMENTS[moment])
    await stage.settle()
    stage.proxy.injected += 1
    kept = [_bare(item) for kind in KINDS for item in stage.history.of(kind) if item["metadata"].get("name")]
    kept = [item for item in kept if item["metadata"]["name"] != "kube-root-ca.crt"]
    text = json.dumps(kept, indent=1, sort_keys=True).replace(stage.namespace, "NAMESPACE")
    folder = PREVIOUS / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{moment}.json").write_text(text + "\n")


def _bare(item: Object) -> Object:
    """As it is written down: without what the API server gives to each object anew."""
    metadata = {key: value for key, value in item["metadata"].items() if key not in SERVER_SIDE}
    kept = {**item, "metadata": metadata}
    if item["kind"] not in ("Dataset", "FineTuneJob"):
        kept.pop("status", None)
    if item["kind"] == "Job":
        kept["spec"] = {key: value for key, value in item["spec"].items() if key != "selector"}
        labels = kept["spec"]["template"]["metadata"]["labels"]
        kept["spec"]["template"]["metadata"] = {"labels": {k: v for k, v in labels.items() if "finetune" in f"{k}{v}"}}
        kept["metadata"]["labels"] = {k: v for k, v in metadata["labels"].items() if "finetune" in f"{k}{v}"}
        kept["metadata"]["annotations"] = {k: v for k, v in metadata["annotations"].items() if "finetune" in k}
    return kept


# --- restoring


async def _upgraded(file: Path, stage: Stage, goldens: Goldens) -> None:
    """The new version finds what the old one left, and finishes it: same Jobs, same end."""
    is_training = file.stem == "training"
    held = stage.kubelet.hold("train-1")
    # What happened before is restored, not played: nobody waits for the operator.
    stage.kubelet.is_patient = False
    await _restore(stage, json.loads(file.read_text().replace("NAMESPACE", stage.namespace)))
    before = {job["metadata"]["uid"] for job in stage.history.of("Job")}
    if not is_training:
        held.set()
        # A success is told after its Job has ended; one that runs beside it would rightly be stopped.
        await stage.until("the restored Jobs ended", lambda: all(map(_has_ended, stage.history.of("Job"))))
    await running_operator(stage)
    stage.proxy.injected += 1
    if is_training:
        await stage.until_said("FineTuneJob", life.JOB, "is running")
    held.set()
    await stage.until_done()
    await stage.settle()
    found = life.final_state(stage.history.objects, stage.namespace)
    for place in (f"Dataset/{life.DATASET}", f"FineTuneJob/{life.JOB}"):
        learned = LEARNED.get(file.parent.name, ()) if not is_training else ()
        expected, left = (_without(state[place], learned) for state in (goldens.trained, found))
        assert not life.differences(expected, left)
    assert {job["metadata"]["uid"] for job in stage.history.of("Job")} == before, "nothing was started anew"
    await stage.verdict(None)


def _has_ended(job: Object) -> bool:
    return life.condition(job, "Complete").get("status") == "True"


def _without(item: Object, fields: tuple[tuple[str, ...], ...]) -> Object:
    """An object without some fields of its status: of entries, or of the entries of a list."""
    found = copy.deepcopy(item)
    for name, field in fields:
        entry = found["status"].get(name) or {}
        for one in entry if isinstance(entry, list) else [entry]:
            one.pop(field, None)
    return found


async def _restore(stage: Stage, items: list[Object]) -> None:
    uids: dict[tuple[str, str], str] = {}
    for item in items:
        metadata: dict[str, Any] = {**item["metadata"], "namespace": stage.namespace}
        for owner in metadata.get("ownerReferences", ()):
            owner["uid"] = uids[owner["kind"], owner["name"]]
        made = await stage.api.create({**item, "metadata": metadata})
        uids[item["kind"], metadata["name"]] = made["metadata"]["uid"]
    # Last, as in life: a run's success is told after its Job was made.
    for item in items:
        if item.get("status"):
            path = PATHS[item["kind"]].path(stage.namespace, item["metadata"]["name"], "status")
            await stage.api.request("PATCH", path, {"status": item["status"]}, "application/merge-patch+json")
    await stage.until("everything restored", lambda: len(stage.history.of("Job")) == 3)


CASES = [
    Case("upgrade", f"from {file.parent.name} {file.stem}", partial(_upgraded, file))
    for file in sorted(PREVIOUS.glob("*/*.json"))
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    version = metafunc.config.getoption("faults_record", None)
    cases = [Case("record", moment, partial(_record, version, moment)) for moment in MOMENTS] if version else CASES
    metafunc.parametrize("case", cases, ids=str)


def test_an_upgrade_goes_on_with_what_is_there(case: Case, laboratory: Laboratory) -> None:
    laboratory.outcome(case)
