"""The CEL rules of the CRDs, as far as plain CEL goes; tests/cluster/test_api.py asks the real API server."""

import re
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from finetune_operator.api.base import RelativePath
from tests import factories
from tests.schemas import SCHEMAS, refusals

VOLUME = {"claimName": "raw"}
HUB = {"repo": "org/model"}
OTHERS = [
    {"name": "old", "fineTuneJob": {"name": "old-triage"}},
    {"name": "gpt", "endpoint": {"url": "https://api/v1", "model": "gpt-1"}},
]
JUDGE = {"endpoint": "https://judge/v1", "model": "judge-1"}


EVALUATIONS: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
    ({"metrics": ["RegexMatch"]}, {}, "RegexMatch needs spec.evaluation.regex"),
    ({"metrics": ["JSONSchemaValid"]}, {}, "JSONSchemaValid needs spec.evaluation.jsonSchema"),
    ({"metrics": ["Benchmark"]}, {}, "Benchmark needs spec.evaluation.benchmark"),
    ({"metrics": ["JudgeWinRate"], "baselines": ["ZeroShot"]}, {}, "JudgeWinRate needs spec.evaluation.ju"),
    ({"metrics": ["JudgeWinRate"], "judge": JUDGE}, {}, "JudgeWinRate compares with"),
    ({"metrics": ["RewardScore"]}, {}, "RewardScore needs spec.evaluation.rewardModel"),
    ({"metrics": ["Benchmark"], "benchmark": {"tasks": ["arc_easy"]}}, {}, "tasks come from configMap"),
    ({"namedBaselines": [{"name": "old"}]}, {}, "set exactly one of fineTuneJob, endpoint"),
    (
        {"baselines": ["ZeroShot", "FewShot", "Previous"], "namedBaselines": OTHERS},
        {},
        "baselines: with namedBaselines at most 4",
    ),
    ({"metrics": ["MeanReward"]}, {}, "MeanReward is of the rewards of method GRPO or RLOO"),
    ({"metrics": ["EvalLoss", "ExactMatch"]}, {"method": "CPT"}, "method CPT learns text"),
    ({"baselines": ["FewShot"]}, {"method": "CPT"}, "FewShot shows solved rows"),
    ({"metrics": ["Perplexity"]}, {"method": "Reward"}, "method Reward makes a model that writes no"),
    (
        {
            "metrics": ["RegexMatch", "JSONSchemaValid", "JudgeWinRate", "Benchmark", "RougeL"],
            "baselines": ["ZeroShot", "FewShot"],
            "namedBaselines": OTHERS,
            "regex": {"pattern": "^[A-Z]"},
            "jsonSchema": {"schema": "{}"},
            "judge": JUDGE,
            "benchmark": {"configMap": {"name": "tasks"}, "tasks": ["words"]},
        },
        {},
        None,
    ),
]
"""`spec.evaluation`, what else the spec says, and what is wrong with it."""


def gated(rule: dict[str, Any]) -> dict[str, Any]:
    evaluation = {"metrics": ["EvalLoss", "ExactMatch"], "baselines": ["ZeroShot"], "namedBaselines": OTHERS}
    return factories.make_job(evaluation=evaluation, gate={"rules": [rule]})


@pytest.mark.parametrize(
    ("resource", "says"),
    [
        pytest.param(factories.make_dataset(), None, id="dataset"),
        pytest.param(factories.make_job(), None, id="job"),
        pytest.param(factories.make_deployment(), None, id="deployment"),
        pytest.param(factories.make_deployment(adapters=[], baseModel={"huggingFace": HUB}), None, id="base alone"),
        pytest.param(factories.make_deployment(adapters=[]), "nothing to serve", id="empty deployment"),
        pytest.param(factories.make_deployment(adapterMode="Merged"), None, id="one merged"),
        pytest.param(factories.make_deployment(autoscaling={"maxReplicas": 3}), None, id="autoscaling"),
        pytest.param(
            factories.make_deployment(autoscaling={"minReplicas": 4, "maxReplicas": 3}),
            "at most maxReplicas",
            id="autoscaling downwards",
        ),
        pytest.param(
            factories.make_deployment(
                adapterMode="Merged", adapters=[{"name": name, "fineTuneJob": {"name": name}} for name in "ab"]
            ),
            "exactly one adapter",
            id="two merged",
        ),
        pytest.param(
            factories.make_deployment(adapterMode="Merged", adapters=[], baseModel={"huggingFace": HUB}),
            "exactly one adapter",
            id="none merged",
        ),
        pytest.param(factories.make_dataset(source={}), "set exactly one of", id="no source"),
        *(
            pytest.param(factories.make_job(evaluation=evaluation, **spec), says, id=says or "all metrics")
            for evaluation, spec, says in EVALUATIONS
        ),
        pytest.param(
            factories.make_job(method="KTO", hyperparameters={"microBatchSize": 1}),
            "hyperparameters.microBatchSize: method KTO compares answers with their neighbours; use at least 2",
            id="KTO alone",
        ),
        pytest.param(factories.make_job(method="KTO", hyperparameters={"microBatchSize": 2}), None, id="KTO"),
        pytest.param(
            factories.make_job(method="KTO", hyperparameters={"globalBatchSize": 1}),
            "hyperparameters.globalBatchSize: method KTO",
            id="KTO of one",
        ),
        pytest.param(
            factories.make_dataset(source={"inline": {"jsonl": "{}"}, "persistentVolumeClaim": VOLUME}),
            "set exactly one of inline, configMap, http, persistentVolumeClaim",
            id="two sources",
        ),
        pytest.param(
            factories.make_dataset(source={"http": {"urls": ["http://a", "http://b"], "sha256": ["0" * 64]}}),
            "one sha256 for each URL",
            id="checksums",
        ),
        pytest.param(
            factories.make_dataset(split={"validation": 0.5, "test": 0.5}), "at most 0.9", id="nothing to train on"
        ),
        pytest.param(
            factories.make_dataset(source={"persistentVolumeClaim": {**VOLUME, "path": "a/../b"}}),
            "relative, without '..'",
            id="path",
        ),
        pytest.param(factories.make_job(baseModel={}), "set exactly one of", id="no base"),
        pytest.param(factories.make_job(baseModel={"fineTuneJob": {"name": "triage"}}), "its own result", id="itself"),
        pytest.param(factories.make_job("1st"), "metadata.name must start with a letter", id="name"),
        pytest.param(factories.make_job("a" * 64), "metadata.name", id="long name"),
        pytest.param(factories.make_job("a.b"), "metadata.name", id="dotted name"),
        pytest.param(
            factories.make_job(adapter={"targetModules": ["all-linear", "q_proj"]}), "stands alone", id="all-linear"
        ),
        pytest.param(factories.make_job(method="DPO", dpo={"beta": 0.2}), None, id="a method's own settings"),
        pytest.param(factories.make_job(dpo={"beta": 0.2}), "dpo: is for method DPO only", id="settings of no method"),
        pytest.param(
            factories.make_job(method="DPO", kto={"beta": 0.2}), "kto: is for method KTO only", id="another's settings"
        ),
        pytest.param(factories.make_job(method="GRPO"), "method GRPO needs spec.grpo", id="no rewards"),
        pytest.param(factories.make_job(method="RLOO"), "method RLOO needs spec.rloo", id="no rewards of RLOO"),
        pytest.param(factories.make_job(method="Distillation"), "needs spec.distillation", id="no teacher"),
        pytest.param(
            factories.make_job(method="GRPO", grpo={"rewards": [{"exactMatch": {}}]}), None, id="a declared reward"
        ),
        pytest.param(
            factories.make_job(method="GRPO", grpo={"rewards": [{"exactMatch": {}, "regex": {"pattern": "x"}}]}),
            "set exactly one of fineTuneJob, exactMatch",
            id="two rewards in one",
        ),
        pytest.param(
            factories.make_job(
                method="GRPO",
                grpo={"rewards": [{"exactMatch": {}}], "generations": 8},
                hyperparameters={"globalBatchSize": 12},
            ),
            "globalBatchSize: is a multiple of generations",
            id="groups that do not fill a batch",
        ),
        pytest.param(
            factories.make_job(method="DPO", dpo={"labelSmoothing": 0.1}), "used by loss: robust only", id="smoothing"
        ),
        pytest.param(
            factories.make_job(validation={"maxRows": 0, "keepBest": True}), "need validation rows", id="keepBest"
        ),
        pytest.param(
            factories.make_job(validation={"maxRows": 0, "earlyStopping": {"patience": 2}}),
            "need validation rows",
            id="early stopping",
        ),
        pytest.param(factories.make_job(validation={"maxRows": 0}), None, id="no validation"),
        pytest.param(gated({"metric": "ExactMatch", "atLeast": 0.9}), None, id="gate"),
        pytest.param(
            gated({"metric": "ExactMatch", "betterThan": "ZeroShot", "by": 0.05, "significance": 0.05}),
            None,
            id="gate against a baseline",
        ),
        pytest.param(gated({"metric": "ExactMatch"}), "set exactly one of atLeast, atMost", id="rule with no bound"),
        pytest.param(
            gated({"metric": "ExactMatch", "atLeast": 0.5, "notWorseThan": "ZeroShot"}),
            "set exactly one of atLeast",
            id="rule with two bounds",
        ),
        pytest.param(
            gated({"metric": "ExactMatch", "atLeast": 0.5, "by": 0.1}),
            "by goes with betterThan",
            id="by of no baseline",
        ),
        pytest.param(
            gated({"metric": "ExactMatch", "notWorseThan": "ZeroShot", "significance": 0.1}),
            "significance goes with betterThan",
            id="significance",
        ),
        pytest.param(
            gated({"metric": "EvalLoss", "betterThan": "ZeroShot", "significance": 0.0005}),
            "no p-value below 0.001, so the rule could never be met; use 0.001 or more",
            id="significance that the permutation test cannot tell",
        ),
        pytest.param(
            gated({"metric": "EvalLoss", "betterThan": "ZeroShot", "significance": 0.001}), None, id="the smallest"
        ),
        pytest.param(
            gated({"metric": "ExactMatch", "betterThan": "ZeroShot", "significance": 0.0005}),
            None,
            id="significance that McNemar's test can tell",
        ),
        pytest.param(
            gated({"metric": "MeanReward", "atLeast": 0.5}), "add it to spec.evaluation.metrics", id="not measured"
        ),
        pytest.param(
            gated({"metric": "ExactMatch", "betterThan": "FewShot"}),
            "betterThan names a baseline that",
            id="no such baseline",
        ),
        pytest.param(
            gated({"metric": "ExactMatch", "betterThan": "claude"}),
            "betterThan names a baseline that",
            id="no such named baseline",
        ),
        pytest.param(gated({"metric": "ExactMatch", "notWorseThan": "gpt"}), None, id="named baseline"),
        pytest.param(
            gated({"metric": "ExactMatch", "notWorseThan": "Previous"}),
            "notWorseThan names a baseline that is not measured",
            id="no such baseline to be worse than",
        ),
        pytest.param(factories.make_job(exports=[{"type": "Hub"}]), "hub belongs to type Hub", id="push to nowhere"),
        pytest.param(
            factories.make_job(exports=[{"type": "GGUF", "hub": {}}]), "hub belongs to type Hub", id="hub of a file"
        ),
        pytest.param(
            factories.make_job(exports=[{"type": "MergedModel", "quantization": "Q8_0"}]),
            "quantization belongs to types GGUF",
            id="quantised merged model",
        ),
        pytest.param(factories.make_job(exports=[{"type": "GGUF", "quantization": "Q8_0"}]), None, id="export"),
        pytest.param(
            factories.make_deployment(adapters=[{"name": "tgi", "fineTuneJob": {"name": "x"}}]), "aliases", id="alias"
        ),
        pytest.param(
            factories.make_deployment(adapters=[{"name": "x", "fineTuneJob": {"name": "x"}, "digest": "sha256:x"}]),
            None,
            id="pinned",
        ),
        pytest.param(
            factories.make_deployment(adapters=[{"name": "x", "fineTuneJob": {"name": "x"}, "uri": "pvc://a/b"}]),
            "set exactly one of fineTuneJob, uri",
            id="job and address",
        ),
        pytest.param(factories.make_deployment(adapters=[{"name": "x", "uri": "pvc://a/b"}]), "set digest", id="any"),
        pytest.param(
            factories.make_deployment(adapters=[{"name": "x", "uri": "pvc://a/b", "digest": "sha256:x"}]),
            "set ignoreGate: true",
            id="address without a gate",
        ),
        pytest.param(
            factories.make_deployment(
                adapters=[{"name": "x", "uri": "pvc://a/b", "digest": "sha256:x"}], ignoreGate=True
            ),
            "adapters[].uri: set baseModel",
            id="address without a base",
        ),
        pytest.param(
            factories.make_deployment(
                adapters=[{"name": "x", "uri": "pvc://a/b", "digest": "sha256:x"}],
                ignoreGate=True,
                baseModel={"huggingFace": HUB},
            ),
            None,
            id="address",
        ),
        pytest.param(
            factories.make_deployment(adapters=[{"name": "support", "fineTuneJob": {"name": "x"}}]),
            "the deployment's own name",
            id="named as the deployment",
        ),
    ],
)
def test_a_rule_refuses_with_words_that_help(resource: dict[str, Any], says: str | None) -> None:
    found = refusals(SCHEMAS[resource["kind"]], resource)
    assert found == [] if says is None else any(says in message for message in found), found


PATHS = {
    ".": True, "a": True, "a/b": True, "*.jsonl": True, "tickets/**/*.jsonl": True, "./a": True, ".hidden": True,
    "a/.b": True, "..a": True, "a..b": True, "a/...": True, "a/": True, "a b": True, "é": True,
    "": False, "/": False, "/a": False, "..": False, "../x": False, "a/..": False, "a/../b": False, "a/b/../..": False,
    "./..": False, "a\\..\\b": False, "a\x00b": False, "x" * 513: False,
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: repr(path)[:20])
def test_a_relative_path_stays_in_its_volume(path: str) -> None:
    try:
        TypeAdapter(RelativePath).validate_python(path)
        accepted = True
    except ValidationError:
        accepted = False
    assert accepted is PATHS[path]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_patterns_are_plain_enough_for_every_engine(kind: str) -> None:
    """RE2 knows no look-around and no back-references."""
    for pattern in re.findall(r"'pattern': ['\"](.*?)['\"]", str(SCHEMAS[kind])):
        assert "(?" not in pattern
        assert not re.search(r"\\[1-9]", pattern)
