"""What is served: a base model with random weights in a store, and random adapters of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_contract.base import StoredReference
from finetune_contract.manifest import StoredKind
from finetune_contract.serving import ServedAdapter, ServingPlan
from finetune_store.deliver import deliver
from finetune_store.store import Store
from tools.demo.make_base import make_model, train_tokenizer

CLAIM = "bench"
BASE = "base"
ADAPTERS = tuple(f"adapter-{number}" for number in range(8))
RANK = 16
LLAMA_VOCABULARY = 49152
"""As SmolLM-135M has it; so are the other sizes below."""

MakeModel = Callable[[Any, Path], int]


class Shop:
    """A store with a base and eight adapters, delivered as an init container does it."""

    def __init__(self, root: Path, texts: list[str], make: MakeModel) -> None:
        self.root = root
        (root / "store").mkdir(parents=True)
        self.store = Store(root / "store", CLAIM)
        with self.store.workspace(StoredKind.MODEL) as directory:
            tokenizer = train_tokenizer(texts, directory)
            self.parameters = make(tokenizer, directory)
            self.base = self.store.publish(StoredKind.MODEL, directory, {})
        self.base_path = self.store.path(self.base)
        served = tuple(ServedAdapter(name=name, artifact=self._adapter(seed)) for seed, name in enumerate(ADAPTERS))
        plan = ServingPlan(name=BASE, namespace="bench", base=self.base, adapters=served, claim=CLAIM)
        deliver(plan, self.store, self.adapters)
        self.plan = root / "plan.json"
        self.plan.write_text(plan.to_json())
        self.adapter_paths = [self.adapters / one.name / one.artifact.digest.removeprefix("sha256:") for one in served]

    @property
    def adapters(self) -> Path:
        """Where they are mounted."""
        return self.root / "adapters"

    def _adapter(self, seed: int) -> StoredReference:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(seed)
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(self.base_path, dtype=torch.float32), config)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
        with self.store.workspace(StoredKind.ARTIFACT) as directory:
            model.save_pretrained(directory)
            return self.store.publish(StoredKind.ARTIFACT, directory, {})


def make_llama(tokenizer: Any, directory: Path) -> int:  # noqa: ANN401 - transformers has no types
    """A Llama of 135 M random parameters; its tokenizer gets words that no text is made of, to have one per id."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    file = directory / "tokenizer.json"
    document = json.loads(file.read_text())
    words = document["model"]["vocab"]
    for number in range(len(words), LLAMA_VOCABULARY):
        words[f"w{number}"] = number
    file.write_text(json.dumps(document))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=LLAMA_VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    return int(model.num_parameters())


MODELS: dict[str, MakeModel] = {"demo": make_model, "llama": make_llama}
