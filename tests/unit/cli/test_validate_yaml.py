"""`validate` reads YAML as kubectl does, and says where it is none."""

from itertools import pairwise

import pytest

from finetune_cli.offline.validation import validate
from tests.unit.cli.findings import errors


class TestYamlIsKubectls:
    """What go-yaml makes of a scalar, where PyYAML differs."""

    def spec(self, text: str) -> list[str]:
        head = "apiVersion: finetune.dev/v1alpha1\nkind: FineTuneJob\nmetadata: {name: a}\n"
        base = "baseModel: {huggingFace: {repo: org/model}}, dataset: {name: b}"
        return errors(validate([("f", f"{head}spec: {{{base}, {text}}}\n")]))

    @pytest.mark.parametrize(
        "text",
        [
            "hyperparameters: {learningRate: 1e-5}",
            "hyperparameters: {learningRate: 1E-5}",
            "rerun: 2026-11-21",
            "rerun: 1:30",
            'rerun: "y"',
            "rerun: !!str 5",
            "suspend: off",
            "hyperparameters: {seed: 0x10}",
            "hyperparameters: {seed: 1_000}",
            "hyperparameters: {epochs: .5}",
            "adapter: ~",
        ],
    )
    def test_taken(self, text: str) -> None:
        assert self.spec(text) == []

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("rerun: y", "spec.rerun: True is true or false, but should be text; write"),
            ("rerun: 5", "spec.rerun: 5 is a whole number, but should be text; write 5 in quotes"),
            ("hyperparameters: {epochs: .inf}", "spec.hyperparameters.epochs: inf is not allowed"),
            ("hyperparameters: {epochs: .nan}", "spec.hyperparameters.epochs: nan is not allowed"),
            ("hyperparameters: {seed: 0b2}", "spec.hyperparameters.seed: '0b2' is text"),
        ],
    )
    def test_refused(self, text: str, words: str) -> None:
        assert any(words in one for one in self.spec(text)), self.spec(text)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [", 1, "cannot be read as YAML"),
        ("a: 1\nb: {\n", 3, "cannot be read as YAML"),
        ("a: \x01", 1, "cannot be read as YAML: special characters are not allowed: character U+0001"),
        ("a: &b [*b]", 1, "cannot be read as YAML: an alias holds itself"),
        ("[" * 1500, 1, "cannot be read as YAML: it is nested too deeply"),
        ("{[1]: 2}", 1, "a key is a word"),
        ("just words", 1, "'just words' is no Kubernetes object"),
        ("kind: Dataset", 1, "is required, and is text"),
        ("apiVersion: finetune.dev/v1\nkind: Dataset", 1, "'finetune.dev/v1' is not known here; write finetune.dev/v1"),
        ("apiVersion: finetune/v1alpha1\nkind: Dataset", 1, "did you mean 'finetune.dev'?"),
        ("apiVersion: finetune.dev/v1alpha1\nkind: DataSet", 2, "did you mean 'Dataset'?"),
    ],
)
def test_what_is_no_object_of_ours(text: str, line: int, words: str) -> None:
    found = validate([("f", text)]).findings
    assert [(one.line, words in one.message) for one in found] == [(line, True)], found


@pytest.mark.parametrize(
    "link",
    ["[*{0}, *{0}]", "{{a: *{0}, b: *{0}}}", "{{<<: [*{0}, *{0}]}}"],
    ids=["lists", "mappings", "merges"],
)
def test_what_aliases_repeat_a_billion_times_is_refused(link: str) -> None:
    names = [f"a{number}" for number in range(40)]
    laughs = "  a0: &a0 {x: 1}\n" + "".join(f"  {b}: &{b} {link.format(a)}\n" for a, b in pairwise(names))
    text = f"apiVersion: finetune.dev/v1alpha1\nkind: FineTuneJob\nmetadata: {{name: x}}\nspec:\n{laughs}"
    assert [(one.file, one.path, one.message) for one in validate([("f", text)]).findings] == [
        (
            "f",
            "",
            "cannot be read as YAML: its aliases repeat more than 100,000 values; write what is meant without them",
        )
    ]


def test_a_few_thousand_values_of_aliases_are_read_and_measured() -> None:
    long = "a" * 1000
    text = f"""\
apiVersion: finetune.dev/v1alpha1
kind: Dataset
metadata: {{name: x, annotations: {{long: &long {long}}}}}
spec:
  source: {{inline: {{jsonl: '{{}}'}}}}
  split: &many [{", ".join(["*long"] * 50)}]
  more: [{", ".join(["*many"] * 50)}]
"""
    found = errors(validate([("f", text)]))
    assert any("spec.more: unknown field" in words for words in found)
    assert any("is too large: 2,558,989 bytes" in words for words in found)


def test_a_key_twice_is_an_error_and_a_merge_is_not() -> None:
    twice = "apiVersion: finetune.dev/v1alpha1\nkind: Dataset\nmetadata: {name: a}\nmetadata: {name: b}\n"
    report = validate([("f", twice)])
    assert (4, "is written twice; remove one") in [(one.line, one.message) for one in report.findings]
    merged = (
        "apiVersion: finetune.dev/v1alpha1\nkind: Dataset\nmetadata: {name: a}\n"
        "spec: {<<: {source: {inline: {jsonl: '{}'}}}, format: Text}\n"
    )
    assert errors(validate([("f", merged)])) == []
