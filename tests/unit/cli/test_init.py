"""`init` writes three YAMLs that `validate` finds nothing wrong with, from flags or from answers on a terminal."""

import json
import os
import pty
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from finetune_cli import __main__ as cli
from finetune_cli import scaffold
from finetune_cli.facts import Object
from finetune_cli.offline.validation import validate
from finetune_cli.scaffold import Answers, Method

DATA = {"http": {"urls": ["https://example.com/rows.jsonl"]}}
BASE = {"huggingFace": {"repo": "org/model"}}
FLAGS = ["--name", "triage", "--data", "pvc://raw/tickets/*.jsonl", "--base", "org/model"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["init", *arguments])


def specs(folder: Path) -> dict[str, Object]:
    return {one["kind"]: one for file in folder.glob("*.yaml") for one in yaml.safe_load_all(file.read_text())}


@pytest.mark.parametrize("method", list(Method))
def test_every_method_starts_with_files_that_are_valid_to_the_last_reference(method: Method) -> None:
    texts = scaffold.files(Answers("triage", DATA, BASE, method, queue="team-a"))
    report = validate(list(texts.items()))
    assert (report.findings, len(report.documents)) == ([], 3)


def test_every_field_is_explained() -> None:
    for text in scaffold.files(Answers("triage", DATA, BASE)).values():
        lines = text.splitlines()
        fields = lines[lines.index("spec:") + 1 :]
        for before, line in pairwise(fields):
            is_field = not line.strip().startswith(("#", "-"))
            assert not is_field or before.strip().startswith("#") or "nvidia.com" in line, line


@pytest.mark.parametrize(
    ("words", "source"),
    [
        ("https://a/b.jsonl", {"http": {"urls": ["https://a/b.jsonl"]}}),
        ("configmap://rows/a.jsonl", {"configMap": {"name": "rows", "key": "a.jsonl"}}),
        ("pvc://raw/a/*.jsonl", {"persistentVolumeClaim": {"claimName": "raw", "path": "a/*.jsonl"}}),
        ("s3://bucket/a", {"s3": {"uri": "s3://bucket/a"}}),
        ("org/rows", {"huggingFace": {"repo": "org/rows", "tokenSecretRef": {"name": "hf", "key": "token"}}}),
    ],
)
def test_where_rows_come_from(tmp_path: Path, words: str, source: Object) -> None:
    result = run(str(tmp_path), "--name", "a", "--data", words, "--base", "job:first", "--token-secret", "hf")
    assert result.exit_code == 0, result.output
    found = specs(tmp_path)
    assert found["Dataset"]["spec"]["source"] == source
    assert found["FineTuneJob"]["spec"]["baseModel"] == {"fineTuneJob": {"name": "first"}}


@pytest.mark.parametrize("odd", ["", "\u2028", "\x7f", "\U0001f600", "# no comment", "a: b", "\t"])
def test_a_small_file_stands_in_the_yaml_row_by_row(tmp_path: Path, odd: str) -> None:
    rows = [{"prompt": f"{number}{odd}", "completion": "y"} for number in range(3)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert run(str(tmp_path / "out"), "--name", "a", "--data", str(file), "--base", "o/m").exit_code == 0
    text = specs(tmp_path / "out")["Dataset"]["spec"]["source"]["inline"]["jsonl"]
    assert [json.loads(line) for line in text.split("\n") if line] == rows


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"prompt,completion\n", "row 1 is no JSON"),
        (b'{"a": 1}\n[1]\n', "row 2 is no JSON object"),
        (b"\n", "it has no rows"),
        (b"\xff", "can't decode"),
        (b"{}\n" * 50_000, "150,000 bytes, and a YAML may hold 102,400"),
    ],
)
def test_a_file_that_cannot_stand_in_a_yaml_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "rows"
    file.write_bytes(content)
    result = run(str(tmp_path / "out"), "--name", "a", "--data", str(file), "--base", "o/m")
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--name": "Triage"}, "'Triage' cannot be a name: "),
        ({"--name": "a" * 60}, "cannot be a name"),
        ({"--base": "model"}, "'model' is neither job:NAME, pvc://CLAIM/PATH"),
        ({"--data": "nowhere.jsonl"}, "'nowhere.jsonl' is neither a local file"),
        ({"--data": "pvc://raw/../x"}, "spec.source.persistentVolumeClaim.path"),
        ({"--method": "PPO"}, "'PPO' is not one of"),
        ({"--gpus": "-1"}, "'--gpus': Input should be greater"),
    ],
)
def test_bad_answers_are_wrong_usage_and_nothing_is_written(
    tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    flags = {**dict(zip(FLAGS[::2], FLAGS[1::2], strict=True)), **changes}
    result = run(str(tmp_path / "out"), *(word for pair in flags.items() for word in pair))
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split()), result.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_terminal_nobody_is_asked(tmp_path: Path) -> None:
    result = run(str(tmp_path), "--name", "a")
    assert result.exit_code == 2
    assert "nobody can be asked here: give --data, --base" in result.stderr


def test_files_that_are_there_stay(tmp_path: Path) -> None:
    assert run(str(tmp_path), *FLAGS).exit_code == 0
    (tmp_path / "2-job.yaml").write_text("mine")
    again = run(str(tmp_path), *FLAGS)
    assert (again.exit_code, (tmp_path / "2-job.yaml").read_text()) == (2, "mine")
    assert "--overwrite replaces it" in again.stderr
    assert run(str(tmp_path), *FLAGS, "--overwrite").exit_code == 0
    assert specs(tmp_path)["FineTuneJob"]["metadata"]["name"] == "triage"


def test_on_a_terminal_it_asks_again_until_the_answer_is_good(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "finetune_cli", "init", str(tmp_path)]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        os.write(ours, b"Triage\ntriage\npvc://raw/a.jsonl\norg/model\nDPO\n2\n")
        said, _ = process.communicate()
    os.close(ours)
    assert process.returncode == 0
    assert "'Triage' cannot be a name" in said
    job = specs(tmp_path)["FineTuneJob"]
    assert (job["metadata"]["name"], job["spec"]["method"]) == ("triage", "DPO")
    assert job["spec"]["resources"] == {"limits": {"nvidia.com/gpu": 2}}
