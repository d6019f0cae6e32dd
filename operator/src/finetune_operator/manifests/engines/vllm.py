"""vLLM: the engine for GPUs. Arguments as of 0.33.0; see tests/unit/manifests/arguments for where they are from."""

from finetune_contract.adapterfacts import AdapterFacts, AdapterFeature
from finetune_contract.paths import POD_PORT, SCRATCH_MOUNT
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests import apikeys, pods
from finetune_operator.manifests.engines.base import (
    BASE_ALIASES,
    LINGER,
    MERGE,
    NOT_DESCRIBED,
    WRITABLE,
    Served,
    instead,
    probes,
)
from finetune_operator.manifests.naming import Manifest
from finetune_operator.settings import Settings

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that --max-lora-rank takes."""

_AT_ONCE = 8
"""Adapters in one batch; each takes a slot of GPU memory of the largest rank. Others wait in the CPU's."""

DRAIN_SECONDS = 120
"""How long requests in flight may take after SIGTERM; 0, vLLM's default, drops them."""

_REFUSED = {
    AdapterFeature.DORA: "DoRA magnitudes",
    AdapterFeature.BIAS: "trained biases",
    AdapterFeature.WHOLE_MODULES: "modules that were trained whole",
    AdapterFeature.EMBEDDINGS: "adapted embeddings",
    AdapterFeature.CHANGED_BASE: "an initialisation that changed the base",
}
"""What ends vLLM when it starts with such an adapter: one would take all others down."""

QUEUE_METRIC = "vllm:num_requests_waiting"

_OWNED = frozenset(
    {
        "--api-key",
        "--code-revision",
        "--config",
        "--download-dir",
        "--enable-lora",
        "--generation-config",
        "--hf-token",
        "--host",
        "--load-format",
        "--lora-modules",
        "--max-cpu-loras",
        "--max-lora-rank",
        "--max-loras",
        "--max-model-len",
        "--max-num-queued-reqs",
        "--max-num-seqs",
        "--model",
        "--port",
        "--revision",
        "--runner",
        "--served-model-name",
        "--shutdown-timeout",
        "--tensor-parallel-size",
        "--tokenizer",
        "--tokenizer-revision",
        "--trust-remote-code",
        "--uds",
    }
)


def container(
    deployment: ModelDeployment, served: Served, settings: Settings, mounts: tuple[Manifest, ...]
) -> Manifest:
    """`vllm serve` on a directory of the store, adapters given once at the start."""
    return pods.container(
        "engine",
        deployment.spec.engine.image or settings.vllm_image,
        ["vllm", "serve", served.base_path, *_arguments(deployment, served), *deployment.spec.engine.args],
        pull_policy=settings.image_pull_policy,
        resources=deployment.spec.resources,
        env={
            **pods.OFFLINE,
            **WRITABLE,
            "VLLM_CACHE_ROOT": str(SCRATCH_MOUNT / "vllm"),
            "VLLM_CONFIG_ROOT": str(SCRATCH_MOUNT / "vllm-config"),
            "FLASHINFER_WORKSPACE_BASE": str(SCRATCH_MOUNT),
            "VLLM_NO_USAGE_STATS": "1",
        },
        extra_env=apikeys.variable(deployment, "VLLM_API_KEY"),
        mounts=(*mounts, pods.SHARED_MEMORY),
        ports=pods.ports(POD_PORT),
        **probes(deployment, period=5, patience=6),
        **LINGER,
    )


def _arguments(deployment: ModelDeployment, served: Served) -> list[str]:
    engine = deployment.spec.engine
    arguments = [
        "--host=0.0.0.0",
        f"--port={POD_PORT}",
        *("--served-model-name", served.plan.name, *BASE_ALIASES),
        "--load-format=safetensors",
        # The base's generation_config.json would change what greedy means (repetition_penalty).
        "--generation-config=vllm",
        f"--max-num-seqs={engine.max_batch_size}",
        f"--max-num-queued-reqs={engine.max_batch_size + engine.max_queue}",
        f"--shutdown-timeout={DRAIN_SECONDS}",
    ]
    if engine.max_total_tokens:
        arguments.append(f"--max-model-len={engine.max_total_tokens}")
    if served.accelerators > 1:
        arguments.append(f"--tensor-parallel-size={served.accelerators}")
    paths = served.adapter_paths
    if paths:
        arguments += [
            "--enable-lora",
            f"--max-lora-rank={next(rank for rank in RANKS if rank >= served.rank)}",
            f"--max-loras={min(len(paths), _AT_ONCE)}",
            f"--max-cpu-loras={len(paths)}",
            *("--lora-modules", *(f"{name}={path}" for name, path in paths.items())),
        ]
    return arguments


def refusal(facts: AdapterFacts | None) -> str | None:
    """What vLLM 0.33 does not load (its `peft_helper.py`)."""
    if facts is None:
        return NOT_DESCRIBED
    if facts.rank > RANKS[-1]:
        return f"its rank is {facts.rank}; vLLM serves up to {RANKS[-1]}: {MERGE}, or train with a smaller rank"
    found = [words for feature, words in _REFUSED.items() if feature in facts.features]
    if AdapterFeature.CHANGED_BASE in facts.features:
        return f"vLLM does not serve {' and '.join(found)}: convert it to a plain LoRA"
    if found:
        return f"vLLM does not serve {' and '.join(found)}: {instead(facts.features, 'Transformers')}"
    return None


def owned_arguments() -> frozenset[str]:
    """The operator's own, and what would load code or files from elsewhere."""
    return _OWNED
