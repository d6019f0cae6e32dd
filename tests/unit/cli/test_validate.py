"""`validate` says what the API server says: the same resources as tests/cluster/test_api.py and test_hostile.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from finetune_cli import __main__ as cli
from finetune_cli.offline import cel
from finetune_cli.offline.problems import Level
from finetune_cli.offline.schema import Checked
from finetune_cli.offline.validation import Report, validate
from tests import factories
from tests.unit.cli.findings import errors
from tests.verdicts import hostile, plain

ROOT = Path(__file__).resolve().parents[3]

NAMES_NOBODY = "is in none of these files"


def verdict(resource: dict[str, Any]) -> Report:
    bare = {**resource, "metadata": {"name": resource["metadata"]["name"]}}
    return validate([("file.yaml", json.dumps(bare))])


def of(*documents: dict[str, Any]) -> Report:
    bare = [{**one, "metadata": {"name": one["metadata"]["name"]}} for one in documents]
    return validate([("file.yaml", yaml.safe_dump_all(bare))])


@pytest.mark.parametrize("name", [*plain.REFUSED, *hostile.REFUSED])
def test_what_the_api_server_refuses_is_refused_with_its_path(name: str) -> None:
    resource, path = {**plain.REFUSED, **hostile.REFUSED}[name]
    found = errors(verdict(resource))
    assert any(path in words for words in found), found


@pytest.mark.parametrize("name", [*plain.ACCEPTED, *hostile.NAMED])
def test_what_the_api_server_takes_is_taken_and_every_rule_is_evaluated(name: str) -> None:
    taken = {**plain.ACCEPTED, **{key: item for key, (item, _) in hostile.NAMED.items()}}
    report = verdict(taken[name])
    assert errors(report) == []
    assert [one.message for one in report.findings if NAMES_NOBODY not in one.message] == []


@pytest.mark.parametrize("file", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda file: file.name)
def test_the_examples_are_valid(file: Path) -> None:
    assert errors(validate([(str(file), file.read_text())])) == []


def test_the_shipped_crds_are_those_that_are_installed() -> None:
    shipped = ROOT / "operator/src/finetune_cli/crds"
    for file in (ROOT / "crds").glob("*.yaml"):
        assert (shipped / file.name).read_text() == file.read_text()


BAD = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: triage}
spec:
  baseModel:
    huggingFace:
      repo: org/model
      revison: main
  dataset: {name: tickets}
  method: dpo
  adapter: {rank: 0}
  hyperparameters:
    learning_rate: 1e-5
---
apiVersion: finetune.dev/v1alpha1
kind: Dataset
metadata:
  name: tickets
spec:
  split: {test: 0.95}
"""


def test_all_errors_come_at_once_each_with_its_line() -> None:
    report = validate([("bad.yaml", BAD)])
    found = [(one.line, one.subject, one.path) for one in report.findings if one.level is Level.ERROR]
    assert found == [
        (8, "FineTuneJob/triage", "spec.baseModel.huggingFace.revison"),
        (10, "FineTuneJob/triage", "spec.method"),
        (11, "FineTuneJob/triage", "spec.adapter.rank"),
        (13, "FineTuneJob/triage", "spec.hyperparameters.learning_rate"),
        (19, "Dataset/tickets", "spec.source"),
        (20, "Dataset/tickets", "spec.split"),
        (20, "Dataset/tickets", "spec.split"),
    ]
    assert len(report.documents) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("revison", "unknown field; did you mean 'revision'?"),
        ("method", "did you mean 'DPO'?"),
        ("rank", "0 is not allowed; use 1 to 512"),
        ("learning_rate", "unknown field; did you mean 'learningRate'?"),
        ("source", "is required: Where rows come from"),
        ("split", "at most 0.9"),
    ],
)
def test_an_error_names_the_remedy(line: str, words: str) -> None:
    report = validate([("bad.yaml", BAD)])
    assert any(line in one.path and words in one.message for one in report.findings), report.findings


def test_other_kinds_are_passed_over_with_a_note() -> None:
    report = validate([("f", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")])
    assert [(one.level, "passed over: ConfigMap of v1" in one.message) for one in report.findings] == [
        (Level.NOTE, True)
    ]
    assert len(report.documents) == 0


def test_the_items_of_a_list_are_objects() -> None:
    document = {"apiVersion": "v1", "kind": "List", "items": [factories.make_dataset(), factories.make_job()]}
    assert len(validate([("f", json.dumps(document))]).documents) == 2


class TestReferences:
    def test_of_each_other(self) -> None:
        report = of(factories.make_dataset(), factories.make_job(), factories.make_deployment())
        assert report.findings == []

    def test_to_nobody_is_a_note_without_a_cluster(self) -> None:
        report = of(factories.make_dataset("ticket"), factories.make_job())
        assert [(one.level, one.path) for one in report.findings] == [(Level.NOTE, "spec.dataset.name")]
        assert "did you mean 'ticket'?" in report.findings[0].message

    @pytest.mark.parametrize("there", [True, False])
    def test_to_what_only_the_cluster_knows(self, there: bool) -> None:
        asked = []

        def look(key: tuple[str, str, str]) -> tuple[str, ...] | None:
            asked.append(key)
            return () if there else None

        report = validate([("f", json.dumps({**factories.make_job(), "metadata": {"name": "triage"}}))], look)
        assert asked == [("Dataset", "", "tickets")]
        assert bool(errors(report)) is not there

    def test_in_a_circle(self) -> None:
        first = factories.make_job("one", baseModel={"fineTuneJob": {"name": "two"}})
        second = factories.make_job("two", baseModel={"fineTuneJob": {"name": "one"}})
        found = errors(of(factories.make_dataset(), first, second))
        assert len(found) == 2
        assert "'two' leads back to this object: none of them can start" in found[0]

    def test_the_same_name_twice(self) -> None:
        found = errors(of(factories.make_dataset(), factories.make_dataset()))
        assert found == ["metadata.name: Dataset 'tickets' is in file.yaml:4 already"]

    def test_every_place_that_names_another_is_known(self) -> None:
        job = factories.make_job(
            method="GRPO",
            grpo={"rewards": [{"fineTuneJob": {"name": "judge"}}]},
            baseModel={"fineTuneJob": {"name": "base"}},
        )
        mixture = factories.make_dataset(source={"mixture": [{"dataset": "a"}, {"dataset": "b"}]})
        paths = [one.path for one in of(job, mixture, factories.make_deployment()).findings]
        assert paths == [
            "spec.baseModel.fineTuneJob.name",
            "spec.grpo.rewards[0].fineTuneJob.name",
            "spec.source.mixture[0].dataset",
            "spec.source.mixture[1].dataset",
        ]


def test_a_rule_that_cannot_be_evaluated_here_is_said_not_passed() -> None:
    rule = {"rule": "isQuantity(self.size)", "message": "size is no quantity"}
    schema = {"type": "object", "properties": {"size": {"type": "string"}}, "x-kubernetes-validations": [rule]}
    found = list(cel.broken_rules(schema, Checked(schema, {"size": "lots"})))
    assert [(one.level, "not checked here: rule 'isQuantity(self.size)'" in one.message) for one in found] == [
        (Level.NOTE, True)
    ]


class TestCommand:
    def run(self, *arguments: str, stdin: str = "") -> Result:
        return CliRunner().invoke(cli.app, ["validate", *arguments], input=stdin)

    def test_good_files_end_with_0(self) -> None:
        result = self.run(str(ROOT / "examples" / "demo"))
        assert result.exit_code == 0
        assert result.stdout == "5 objects checked: 0 errors\n"

    def test_a_bad_one_ends_with_1_and_a_line_each(self, tmp_path: Path) -> None:
        (tmp_path / "bad.yaml").write_text(BAD)
        result = self.run(str(tmp_path))
        assert result.exit_code == 1
        assert f"{tmp_path}/bad.yaml:11: error: FineTuneJob/triage spec.adapter.rank: 0 is not allowed" in result.stdout
        assert result.stdout.splitlines()[-1] == "2 objects checked: 7 errors, 2 notes"

    def test_standard_input(self) -> None:
        result = self.run("-", stdin=BAD)
        assert result.exit_code == 1
        assert "standard input:8: error" in result.stdout

    def test_json_for_scripts(self) -> None:
        found = json.loads(self.run("-", "-o", "json", stdin=BAD).stdout)
        assert (found["checked"], found["errors"]) == (2, 7)
        assert {"file", "line", "subject", "path", "message", "level"} == set(found["findings"][0])

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda folder: str(folder / "nowhere.yaml"), "nowhere.yaml cannot be read: No such file"),
            (str, "has no .json, .yaml, .yml file"),
            (lambda folder: str(latin_file(folder)), "is not UTF-8 text (byte 1)"),
        ],
        ids=["missing", "empty folder", "not text"],
    )
    def test_files_that_cannot_be_read_are_wrong_usage(self, tmp_path: Path, make: Any, words: str) -> None:
        result = self.run(make(tmp_path))
        assert result.exit_code == 2
        assert words in " ".join(result.stderr.split())


def latin_file(folder: Path) -> Path:
    path = folder / "latin.yaml"
    path.write_bytes(b"a\xe9b")
    return path
