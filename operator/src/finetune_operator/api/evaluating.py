"""Settings of single metrics in `spec.evaluation`, and which metrics go with which method."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.evaluating import Baseline, Metric
from finetune_contract.methods import Method
from finetune_operator.api.base import ApiModel, NameReference, SecretKeyReference, exactly_one_of, rule, rules


class RegexSetting(ApiModel):
    """What RegexMatch looks for."""

    pattern: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    """A Python regular expression; an answer in which it finds a match is right."""


class JsonSchemaSetting(ApiModel):
    """What JSONSchemaValid checks against."""

    json_schema: Annotated[str, StringConstraints(min_length=2, max_length=8192), Field(alias="schema")]
    """The JSON schema, as JSON text."""


class JudgeSetting(ApiModel):
    """A model that says which of two answers is better; each pair is asked about in both orders."""

    endpoint: Annotated[str, StringConstraints(min_length=8, max_length=2048, pattern=r"^https?://[^\s]+$")]
    """Base URL of an OpenAI-compatible API, such as `https://host/v1`; the training pod must reach it."""
    model: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    """The model's name there; pin a version, or figures cannot be compared later."""
    api_key_secret_ref: SecretKeyReference | None = None
    """The Secret with the API key, if it needs one."""
    prompt_template: Annotated[str, StringConstraints(min_length=8, max_length=8192)] | None = None
    """What is asked, with {prompt}, {reference}, {a} and {b}; the answer ends in [[A]], [[B]] or, for a tie, [[C]]."""
    max_tokens: Annotated[int, Field(ge=1, le=16_384)] = 512
    """Length limit of the judge's answer."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    """Questions at once."""
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 60
    """How long one answer may take."""
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    """How often a question is asked again that is not answered, refused for too many requests, or gets no verdict."""
    max_failed_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of rows that may stay without a verdict; above it the evaluation fails as EvaluationFailed."""


class EndpointSetting(ApiModel):
    """A model that somebody serves, asked over the network."""

    url: Annotated[str, StringConstraints(min_length=8, max_length=2048, pattern=r"^https?://[^\s]+$")]
    """Base URL of an OpenAI-compatible API, such as `https://host/v1`; the training pod must reach it."""
    model: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    """The model's name there; pin a version, as its answers are remembered by this name."""
    api_key_secret_ref: SecretKeyReference | None = None
    """The Secret with the API key, if it needs one."""
    system_prompt: Annotated[str, StringConstraints(min_length=1, max_length=8192)] | None = None
    """Said before every row; unset: the instruction that the Dataset's stripInstructions cut off, if anything."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    """Questions at once."""
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 60
    """How long one answer may take."""
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    """How often a question is asked again; a row that stays without an answer ends it as EvaluationFailed."""


BASELINE_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""Other than the words of `baselines`, so that a rule of the gate can name either."""


class NamedBaselineSetting(ApiModel):
    """Another model to compare with: exactly one of fineTuneJob and endpoint."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=BASELINE_NAME)]
    """What it is called in results, and in rules of the gate."""
    fine_tune_job: NameReference | None = None
    """A FineTuneJob of this namespace: the artifact that it has when this job is first measured."""
    endpoint: EndpointSetting | None = None
    """A model behind an OpenAI-compatible API; measured by its answers, it has no losses."""

    model_config = ConfigDict(json_schema_extra=rules(exactly_one_of("fineTuneJob", "endpoint")))


NamedBaselines = Annotated[
    list[NamedBaselineSetting],
    Field(max_length=4, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
]


class RewardModelSetting(ApiModel):
    """Who gives RewardScore."""

    fine_tune_job: NameReference
    """A FineTuneJob of method Reward; the artifact that it has when this job is first measured."""


class BenchmarkSetting(ApiModel):
    """Tasks of lm-eval-harness."""

    config_map: NameReference | None = None
    """The ConfigMap with a YAML file for each task and the files of its rows; paths are relative to them.

    lm-eval runs code that a task's YAML names (`!function`): the ConfigMap is as trusted as the job.
    """
    tasks: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=128)]],
        Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ]
    """Names of the tasks; Benchmark is the mean over all of their rows."""
    limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Rows of each task; unset: all."""
    download: bool = False
    """Let the training pod fetch the rows of tasks that lm-eval knows by itself from the Hugging Face Hub."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.configMap) || (has(self.download) && self.download)",
                "tasks come from configMap, or with download: true from lm-eval's own; set one of them",
            )
        )
    )


def _needs(metric: Metric, field: str) -> dict[str, Any]:
    return rule(
        f"!has(self.metrics) || !('{metric}' in self.metrics) || has(self.{field})",
        f"metrics: {metric} needs spec.evaluation.{field}",
    )


EVALUATION_RULES = [
    _needs(Metric.REGEX_MATCH, "regex"),
    _needs(Metric.JSON_SCHEMA_VALID, "jsonSchema"),
    _needs(Metric.JUDGE_WIN_RATE, "judge"),
    _needs(Metric.BENCHMARK, "benchmark"),
    _needs(Metric.REWARD_SCORE, "rewardModel"),
    rule(
        "!has(self.metrics) || !('JudgeWinRate' in self.metrics) || (has(self.baselines) && size(self.baselines) > 0) "
        "|| (has(self.namedBaselines) && size(self.namedBaselines) > 0)",
        "metrics: JudgeWinRate compares with spec.evaluation.baselines; name one",
    ),
    rule(
        "(has(self.baselines) ? size(self.baselines) : 0) + (has(self.namedBaselines) ? size(self.namedBaselines) : 0) "
        "<= 4",
        "baselines: with namedBaselines at most 4",
    ),
]
"""Of `spec.evaluation`."""


class EvaluationSpec(ApiModel):
    """What is measured on held-out rows after training."""

    metrics: Annotated[list[Metric], Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"})] = [
        Metric.EVAL_LOSS
    ]
    """What is measured. Of losses: EvalLoss, Perplexity; of greedy answers: ExactMatch, TokenF1, RougeL, RegexMatch,
    JSONSchemaValid, JudgeWinRate, RewardScore; of labels: Accuracy, MacroF1, CohenKappa; of pairs: PreferenceAccuracy;
    of rewards: MeanReward; and Benchmark, of lm-eval-harness tasks."""
    baselines: Annotated[list[Baseline], Field(max_length=4, json_schema_extra={"x-kubernetes-list-type": "set"})] = []
    """What the tuned model is compared with: the base model as it is (ZeroShot) or with examples in its prompt
    (FewShot) or with the instruction that the Dataset cut off (OriginalPrompt), and the job's artifact before this one
    (Previous), if there is one."""
    named_baselines: NamedBaselines = []
    """Other models to compare with: what another FineTuneJob made, or a model that somebody serves."""
    split: Literal["validation", "test"] = "test"
    """Which held-out rows are used."""
    max_rows: Annotated[int, Field(ge=1, le=10_000)] = 200
    """At most so many rows, chosen by seed."""
    few_shot_examples: Annotated[int, Field(ge=1, le=64)] = 4
    """Examples in the prompt of the FewShot baseline."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    """Length limit of an answer."""
    regex: RegexSetting | None = None
    """What RegexMatch looks for."""
    json_schema: JsonSchemaSetting | None = None
    """What JSONSchemaValid checks against."""
    judge: JudgeSetting | None = None
    """Who decides JudgeWinRate."""
    reward_model: RewardModelSetting | None = None
    """Who gives RewardScore."""
    benchmark: BenchmarkSetting | None = None
    """The tasks of Benchmark."""

    model_config = ConfigDict(json_schema_extra=rules(*EVALUATION_RULES))


def _only(method: Method, metrics: tuple[Metric, ...], why: str) -> dict[str, Any]:
    words = ", ".join(f"'{metric}'" for metric in metrics)
    return rule(
        f"!has(self.method) || self.method != '{method}' || !has(self.evaluation) || !has(self.evaluation.metrics) || "
        f"self.evaluation.metrics.all(metric, metric in [{words}])",
        f"evaluation.metrics: method {method} {why}: use {', '.join(metrics)}",
    )


METRIC_RULES = [
    _only(Method.CPT, (Metric.EVAL_LOSS, Metric.PERPLEXITY, Metric.BENCHMARK), "learns text, which has no answers"),
    _only(Method.REWARD, (Metric.EVAL_LOSS, Metric.PREFERENCE_ACCURACY), "makes a model that writes no answers"),
    rule(
        "!has(self.evaluation) || !has(self.evaluation.metrics) || !('MeanReward' in self.evaluation.metrics) || "
        "(has(self.method) && self.method in ['GRPO', 'RLOO'])",
        "evaluation.metrics: MeanReward is of the rewards of method GRPO or RLOO",
    ),
    rule(
        "!has(self.method) || self.method != 'CPT' || !has(self.evaluation) || !has(self.evaluation.baselines) || "
        "!('FewShot' in self.evaluation.baselines)",
        "evaluation.baselines: FewShot shows solved rows, and the text rows of method CPT have none",
    ),
]
"""Of the whole spec."""
