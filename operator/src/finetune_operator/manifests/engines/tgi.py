"""Text Generation Inference 3.3.7: frozen upstream, for fleets that have it. Arguments: tests/unit/manifests/arguments.

What its last release does wrong with adapters is in docs/user-guides/serving.md; here is what follows from it.
"""

from finetune_contract.adapterfacts import AdapterFacts, AdapterFeature
from finetune_contract.paths import POD_PORT
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests import apikeys, pods
from finetune_operator.manifests.engines.base import LINGER, MERGE, NOT_DESCRIBED, WRITABLE, Served, instead, probes
from finetune_operator.manifests.naming import Manifest
from finetune_operator.settings import Settings

_FAMILIES = frozenset({"llama", "granite", "phi3", "mistral", "gemma2", "gemma3", "gemma3_text"})
"""Whose layers apply adapters to every target."""

_HALF_FAMILIES = {
    "qwen2": frozenset({"o_proj", "down_proj"}),
    "starcoder2": frozenset({"o_proj", "c_proj"}),
}
"""Whose layers look for most targets under a name that nothing has: only these are applied, the others silently not."""

_TARGETS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj"})

_MOST_RANK = 128

_QUANTIZED = frozenset({"gptq", "awq", "marlin", "fp8", "compressed-tensors", "exl2"})
"""Whose layers have no plain weight that an adapter could be added to."""

_REFUSED = {
    AdapterFeature.DORA: "DoRA magnitudes",
    AdapterFeature.BIAS: "trained biases",
    AdapterFeature.WHOLE_MODULES: "modules that were trained whole",
    AdapterFeature.EMBEDDINGS: "adapted embeddings",
    AdapterFeature.PATTERNS: "ranks or alphas that differ between modules",
    AdapterFeature.SOME_LAYERS: "layers that lack an adapted module",
    AdapterFeature.CHANGED_BASE: "an initialisation that changed the base",
}
"""What TGI ignores or scales wrongly without a word."""

QUEUE_METRIC = "tgi_queue_size"

_OWNED = frozenset(
    {
        "--api-key",
        "--cuda-graphs",
        "--hostname",
        "--huggingface-hub-cache",
        "--json-output",
        "--lora-adapters",
        "--max-concurrent-requests",
        "--max-input-length",
        "--max-input-tokens",
        "--max-top-n-tokens",
        "--max-total-tokens",
        "--model-id",
        "--ngrok",
        "--ngrok-authtoken",
        "--ngrok-edge",
        "--num-shard",
        "--port",
        "--revision",
        "--sharded",
        "--trust-remote-code",
        "--usage-stats",
        "--weights-cache-override",
        "-p",
    }
)


def container(
    deployment: ModelDeployment, served: Served, settings: Settings, mounts: tuple[Manifest, ...]
) -> Manifest:
    """The launcher on a directory of the store, adapters given once at the start."""
    return pods.container(
        "engine",
        deployment.spec.engine.image or settings.tgi_image,
        ["text-generation-launcher", *_arguments(deployment, served), *deployment.spec.engine.args],
        pull_policy=settings.image_pull_policy,
        resources=deployment.spec.resources,
        env={**pods.OFFLINE, **WRITABLE, "HUGGINGFACE_HUB_CACHE": WRITABLE["HF_HOME"]},
        extra_env=apikeys.variable(deployment, "API_KEY"),
        mounts=(*mounts, pods.SHARED_MEMORY),
        ports=pods.ports(POD_PORT),
        # A full queue makes /health fail: a busy engine must not be killed for it.
        **probes(deployment, period=5, patience=20),
        **LINGER,
    )


def _arguments(deployment: ModelDeployment, served: Served) -> list[str]:
    engine = deployment.spec.engine
    arguments = [
        f"--model-id={served.base_path}",
        "--hostname=0.0.0.0",
        # The images set PORT=80, which needs a capability.
        f"--port={POD_PORT}",
        "--json-output",
        "--usage-stats=off",
        f"--max-concurrent-requests={engine.max_batch_size + engine.max_queue}",
    ]
    if engine.max_total_tokens:
        arguments += [
            f"--max-total-tokens={engine.max_total_tokens}",
            f"--max-input-tokens={engine.max_total_tokens - 1}",
        ]
    if served.accelerators > 1:
        arguments.append(f"--num-shard={served.accelerators}")
    paths = served.adapter_paths
    if paths:
        # Graphs are captured without adapters and replayed at every token after the first: the base would answer.
        arguments.append("--cuda-graphs=0")
        arguments.append("--lora-adapters=" + ",".join(f"{name}={path}" for name, path in paths.items()))
    return arguments


def refusal(facts: AdapterFacts | None) -> str | None:
    """What TGI 3.3.7 does not serve, or serves wrongly without a word."""
    if facts is None:
        return NOT_DESCRIBED
    elsewhere = f"{MERGE}, or use engine type VLLM or Transformers"
    found = [words for feature, words in _REFUSED.items() if feature in facts.features]
    if AdapterFeature.CHANGED_BASE in facts.features:
        return f"TGI does not serve {' and '.join(found)}: convert it to a plain LoRA"
    if found:
        others = ("Transformers",) if AdapterFeature.EMBEDDINGS in facts.features else ("VLLM", "Transformers")
        return f"TGI does not serve {' and '.join(found)}: {instead(facts.features, *others)}"
    if facts.rank > _MOST_RANK:
        return f"its rank is {facts.rank}; TGI serves up to {_MOST_RANK}: {elsewhere}"
    if facts.quantization in _QUANTIZED:
        return f"TGI cannot add adapters to a base in {facts.quantization}: use engine type VLLM"
    return _unfit_modules(facts, elsewhere)


def _unfit_modules(facts: AdapterFacts, elsewhere: str) -> str | None:
    known = _TARGETS if facts.family in _FAMILIES else _HALF_FAMILIES.get(facts.family or "")
    if known is None:
        return f"TGI has no adapters for {facts.family or 'unknown'} models: {elsewhere}"
    unfit = [target for target in facts.targets if target not in known]
    if unfit:
        return f"TGI ignores {', '.join(unfit)} of {facts.family} models without a word: {elsewhere}"
    return None


def owned_arguments() -> frozenset[str]:
    """The operator's own, and what would load code or files from elsewhere."""
    return _OWNED
