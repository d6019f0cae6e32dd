"""Each engine's container: the whole command line as a golden file, arguments that exist, adapters that are refused.

`UPDATE_GOLDEN=1 pytest tests/unit/manifests/test_engines.py` writes the golden files anew; read the diff.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_contract.adapterfacts import AdapterFacts, AdapterFeature
from finetune_contract.base import StoredReference
from finetune_contract.serving import EngineType, ServedAdapter
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests import serving
from finetune_operator.manifests.engines import ENGINES, vllm
from finetune_operator.manifests.engines.base import LINGER_SECONDS
from finetune_operator.settings import Settings
from tests import factories
from tests.factories import Object, digest, stored

HERE = Path(__file__).parent
SETTINGS = Settings(operator_image="operator:1", trainer_image="trainer:1")
PLAIN = AdapterFacts(rank=16, targets=("q_proj", "v_proj"), family="llama")
CASES: dict[str, Object] = {
    "adapters": {"resources": {"limits": {"nvidia.com/gpu": 1}}},
    "base-two-gpus": {
        "adapters": [],
        "baseModel": {"huggingFace": {"repo": "org/model"}},
        "resources": {"limits": {"nvidia.com/gpu": 2}},
        "startupTimeout": "1h",
    },
}


def deployment_of(engine: EngineType, ranks: dict[str, int] | None = None, **spec: Any) -> Object:
    """The Deployment of an engine that serves adapters of some ranks."""
    more = {} if engine is EngineType.TRANSFORMERS else {"maxTotalTokens": 4096}
    spec = {"engine": {"type": engine.value, "maxBatchSize": 32, **more}, **spec}
    deployment = ModelDeployment.model_validate(factories.make_deployment(**spec))
    ranks = ranks if ranks is not None else {"triage": 16, "reply": 40}
    adapters = tuple(ServedAdapter(name=name, artifact=stored("a", "artifacts")) for name in ranks)
    document = serving.plan(deployment, stored("b"), adapters, SETTINGS)
    facts = {name: PLAIN.model_copy(update={"rank": rank}) for name, rank in ranks.items()}
    return serving.build(deployment, "support-serve-0123abcd", document, facts, SETTINGS)[0]


def merged_of(engine: EngineType, **spec: Any) -> Object:
    """The Deployment of an engine that serves a merged model."""
    spec = {"engine": {"type": engine.value}, "adapterMode": "Merged", **spec}
    deployment = ModelDeployment.model_validate(factories.make_deployment(**spec))
    adapter = ServedAdapter(name="triage", artifact=stored("a", "artifacts"))
    document = serving.merged_plan(deployment, stored("c", "exports"), adapter, SETTINGS)
    return serving.build(deployment, "support-serve-0123abcd", document, {"triage": PLAIN}, SETTINGS)[0]


def container_of(item: Object) -> Object:
    found: Object = item["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("engine", EngineType)
def test_the_rendered_deployment_is_the_golden_one(engine: EngineType, case: str) -> None:
    ranks: dict[str, int] | None = {} if case.startswith("base") else None
    must_be_golden(deployment_of(engine, ranks, **CASES[case]), f"{engine.value.lower()}-{case}.yaml")


@pytest.mark.parametrize("engine", EngineType)
def test_the_rendered_deployment_of_a_merged_model_is_the_golden_one(engine: EngineType) -> None:
    item = merged_of(engine, resources={"limits": {"nvidia.com/gpu": 1}})
    must_be_golden(item, f"{engine.value.lower()}-merged.yaml")


@pytest.mark.parametrize("engine", EngineType)
def test_the_rendered_deployment_with_api_keys_is_the_golden_one(engine: EngineType) -> None:
    item = deployment_of(engine, apiKeysSecretRef={"name": "clients", "key": "keys.txt"}, replicas=2)
    must_be_golden(item, f"{engine.value.lower()}-api-keys.yaml")


def must_be_golden(item: Object, name: str) -> None:
    text = yaml.safe_dump(item, sort_keys=False, width=120)
    golden = HERE / "golden" / name
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("engine", [EngineType.VLLM, EngineType.TGI])
def test_every_argument_is_one_of_the_engine(engine: EngineType) -> None:
    lines = (HERE / "arguments" / f"{engine.value.lower()}.txt").read_text().splitlines()
    known = {line for line in lines if line.startswith("--")}
    command = container_of(deployment_of(engine, resources={"limits": {"nvidia.com/gpu": 4}}))["command"]
    used = {word.partition("=")[0] for word in command if word.startswith("-")}
    owned = {word for word in ENGINES[engine].owned_arguments() if word.startswith("--")}
    assert used <= known, used - known
    assert owned <= known, owned - known
    assert used <= owned, "what the operator sets is not the user's to set again"


@pytest.mark.parametrize(("rank", "told"), [(1, 1), (2, 8), (16, 16), (17, 32), (300, 320), (512, 512)])
def test_vllm_is_told_the_next_rank_it_knows(rank: int, told: int) -> None:
    command = container_of(deployment_of(EngineType.VLLM, {"triage": rank}))["command"]
    assert f"--max-lora-rank={told}" in command


def test_the_order_of_adapters_rolls_no_pod() -> None:
    for engine in EngineType:
        one, other = (deployment_of(engine, ranks) for ranks in ({"a": 8, "b": 16}, {"b": 16, "a": 8}))
        assert container_of(one) == container_of(other)


def test_tgi_has_no_cuda_graphs_with_adapters_only() -> None:
    assert "--cuda-graphs=0" in container_of(deployment_of(EngineType.TGI))["command"]
    assert "--cuda-graphs=0" not in container_of(deployment_of(EngineType.TGI, {}))["command"]


REFUSED: list[tuple[EngineType, Object, str]] = [
    (EngineType.VLLM, {"rank": 513}, "up to 512"),
    *(
        (EngineType.VLLM, {"features": (feature,)}, "vLLM does not serve")
        for feature in (
            AdapterFeature.DORA,
            AdapterFeature.BIAS,
            AdapterFeature.WHOLE_MODULES,
            AdapterFeature.EMBEDDINGS,
            AdapterFeature.CHANGED_BASE,
        )
    ),
    *((EngineType.TGI, {"features": (feature,)}, "TGI does not serve") for feature in AdapterFeature),
    (EngineType.TGI, {"rank": 129}, "up to 128"),
    (EngineType.TGI, {"family": "qwen3"}, "no adapters for qwen3"),
    (EngineType.TGI, {"family": None}, "no adapters for unknown"),
    (EngineType.TGI, {"family": "qwen2"}, "TGI ignores q_proj, v_proj of qwen2"),
    (EngineType.TGI, {"targets": ("lm_head", "q_proj")}, "TGI ignores lm_head"),
    (EngineType.TGI, {"quantization": "gptq"}, "base in gptq"),
    (EngineType.TRANSFORMERS, {"features": (AdapterFeature.DORA,)}, "DoRA"),
    (
        EngineType.TRANSFORMERS,
        {"features": (AdapterFeature.BIAS,)},
        "no trained biases beside other adapters: serve it",
    ),
    (EngineType.TRANSFORMERS, {"features": (AdapterFeature.WHOLE_MODULES,)}, "trained whole"),
    (EngineType.TRANSFORMERS, {"features": (AdapterFeature.CHANGED_BASE,)}, "plain LoRA"),
]


@pytest.mark.parametrize(("engine", "change", "words"), REFUSED)
def test_an_adapter_that_the_engine_cannot_serve_is_refused(engine: EngineType, change: Object, words: str) -> None:
    refusal = ENGINES[engine].refusal(PLAIN.model_copy(update=change))
    assert refusal is not None
    assert words in refusal


@pytest.mark.parametrize("feature", AdapterFeature)
@pytest.mark.parametrize("engine", EngineType)
def test_a_refusal_sends_nobody_to_an_engine_that_refuses_it_too(engine: EngineType, feature: AdapterFeature) -> None:
    facts = PLAIN.model_copy(update={"features": (feature,)})
    words = ENGINES[engine].refusal(facts) or ""
    named = {other for other in EngineType if other is not engine and other.value in words.partition(": ")[2]}
    assert not [other for other in named if ENGINES[other].refusal(facts)]


@pytest.mark.parametrize("engine", EngineType)
def test_a_pod_that_goes_has_the_time_to_linger_and_to_finish(engine: EngineType) -> None:
    pod = deployment_of(engine)["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > LINGER_SECONDS + vllm.DRAIN_SECONDS + 5
    lingers = "preStop" in container_of(deployment_of(engine)).get("lifecycle", {})
    assert lingers is (engine is not EngineType.TRANSFORMERS), "our own server lingers by itself"


@pytest.mark.parametrize(
    ("engine", "change"),
    [
        *((engine, {}) for engine in EngineType),
        (EngineType.VLLM, {"features": (AdapterFeature.PATTERNS, AdapterFeature.SOME_LAYERS)}),
        (EngineType.VLLM, {"family": "qwen2", "rank": 512}),
        (EngineType.TGI, {"family": "qwen2", "targets": ("down_proj", "o_proj")}),
        (EngineType.TGI, {"quantization": "bitsandbytes"}),
        (EngineType.TRANSFORMERS, {"features": (AdapterFeature.EMBEDDINGS, AdapterFeature.PATTERNS), "rank": 9000}),
    ],
)
def test_an_adapter_that_the_engine_serves_is_not(engine: EngineType, change: Object) -> None:
    assert ENGINES[engine].refusal(PLAIN.model_copy(update=change)) is None


def test_an_adapter_that_nobody_described_is_for_our_own_engine_only() -> None:
    assert {engine for engine in EngineType if ENGINES[engine].refusal(None) is None} == {EngineType.TRANSFORMERS}


def test_the_largest_rank_is_one_that_vllm_knows() -> None:
    assert tuple(sorted(vllm.RANKS)) == vllm.RANKS


@pytest.mark.parametrize("engine", [EngineType.VLLM, EngineType.TGI])
def test_a_base_that_was_copied_from_s3_is_found_where_the_copy_is(engine: EngineType) -> None:
    settings = SETTINGS.model_copy(update={"s3_uri": "s3://bucket/team/store"})
    deployment = ModelDeployment.model_validate(factories.make_deployment(engine={"type": engine.value}, adapters=[]))
    base = StoredReference(digest=digest("b"), uri=f"s3://bucket/team/store/models/{'b' * 64}")
    document = serving.plan(deployment, base, (), settings)
    command = container_of(serving.build(deployment, "support-serve-0", document, {}, settings)[0])["command"]
    assert [word for word in command if word.endswith(f"/store/models/{'b' * 64}")]
    assert not [word for word in command if "bucket" in word]
