"""The generated reference pages."""

import re
from pathlib import Path

import pytest

from finetune_contract.failure import FailureReason
from finetune_operator.api.base import FieldClass
from finetune_operator.api.crd import RESOURCES, crd
from finetune_operator.api.finetunejob import FineTuneJobSpec
from finetune_operator.api.reference import api_page, classes_of, failures_page, main, parts, render
from finetune_operator.reconcile import dataset

ROOT = Path(__file__).parents[3]


def test_the_files_are_what_the_code_says(tmp_path: Path) -> None:
    """Run `make generate` and commit what it changes."""
    main([str(tmp_path)])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == render()
    assert {name: (ROOT / "docs/reference" / name).read_text() for name in render()} == render()


def test_every_link_leads_somewhere_and_every_anchor_is_unique() -> None:
    page = api_page()
    anchors = re.findall(r'<a id="([^"]+)"', page)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= set(anchors)


@pytest.mark.parametrize("entry", RESOURCES, ids=lambda entry: entry[1].kind)
def test_every_field_has_a_row(entry: tuple) -> None:  # type: ignore[type-arg]
    page, kind = api_page(), entry[1].kind
    root = crd(*entry)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name in ("spec", "status"):
        for part in parts(root["properties"][name], f"{kind}.{name}"):
            section = page.split(f"### {part.path}\n", 1)[1].split("\n###", 1)[0]
            for field, schema in part.schema["properties"].items():
                row = next(line for line in section.splitlines() if line.startswith(f"| `{field}` |"))
                assert schema["description"].replace("|", "\\|") in row


def test_a_field_has_its_own_class_or_that_of_what_it_stands_in() -> None:
    classes = dict(classes_of(FineTuneJobSpec, "spec"))
    assert classes["spec.adapter.rank"] is FieldClass.TRAIN
    assert classes["spec.baseModel.huggingFace.repo"] is FieldClass.INPUT
    assert classes["spec.hyperparameters.microBatchSize"] is FieldClass.OPERATIONAL
    assert "spec.hyperparameters" not in classes


def test_the_page_says_rightly_which_edits_read_a_source_again() -> None:
    section = api_page().split("## Dataset\n", 1)[1].split("\n<a", 1)[0]
    sentence = section.split("An edit of", 1)[1].split("reads the source again", 1)[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == {*dataset._DECISIVE, "rerun"}


def test_every_failure_is_a_row() -> None:
    rows = [line for line in failures_page().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [reason.value for reason in FailureReason]
    assert all(row.count("|") == 7 for row in rows)
