"""One module for each value of the engine enum: container, arguments, probes, and which adapters it can serve."""

from finetune_contract.serving import EngineType
from finetune_operator.manifests.engines import tgi, transformers, vllm
from finetune_operator.manifests.engines.base import EngineModule

ENGINES: dict[EngineType, EngineModule] = {
    EngineType.TRANSFORMERS: transformers,
    EngineType.VLLM: vllm,
    EngineType.TGI: tgi,
}
