"""A real but tiny Llama with a ChatML template, and random LoRA adapters that change its answers."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from finetune_contract.base import StoredReference
from finetune_contract.manifest import StoredKind
from finetune_contract.results import Probe, ProbePrompt
from finetune_contract.serving import ServedAdapter, ServingPlan
from finetune_store.deliver import deliver
from finetune_store.store import Store

SENTENCES = [
    "The operator tunes a model and proves that it is served.",
    "A dataset becomes an immutable revision with counts and a report.",
    "Wie heißt das Modul? Es heißt json, natürlich.",
    "zip, os, re and json are modules; each has functions with docstrings.",
]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CLAIM = "finetune-artifacts"
PROMPTS = ("The operator", "A dataset becomes an immutable revision with", "json")


@contextmanager
def quiet() -> Iterator[None]:
    """Libraries' own deprecations are not this project's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_base(directory: Path) -> None:
    """About 0.2 M parameters, 2,048 tokens of context."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )
    fast.save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,  # confident answers, as a trained model has
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(directory)


def write_adapter(base: Path, directory: Path, seed: int, scale: float = 0.15) -> None:
    """A LoRA adapter with random weights; scale 0 makes one that changes nothing."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=4 + 4 * (seed % 2), lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(model, config)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=scale) if scale else torch.nn.init.zeros_(weight)
    tuned.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)


def greedy(model: Any, tokenizer: Any, prompt: str, count: int) -> tuple[str, tuple[float, ...]]:
    """A greedy answer and its log-probabilities, one whole forward per token: no cache, no batch, no padding."""
    ids = tokenizer.encode(prompt)
    answer: list[int] = []
    logprobs: list[float] = []
    with torch.inference_mode():
        for _ in range(count):
            row = model(input_ids=torch.tensor([ids + answer])).logits[0, -1].float().log_softmax(-1)
            answer.append(int(row.argmax()))
            logprobs.append(float(row[answer[-1]]))
            if answer[-1] == tokenizer.eos_token_id:
                break
    return tokenizer.decode(answer, skip_special_tokens=True), tuple(logprobs)


def write_probe(base: Path, adapter: Path, prompts: tuple[str, ...] = PROMPTS) -> None:
    """probe.json as the trainer writes it."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    plain = [greedy(model, tokenizer, prompt, 8) for prompt in prompts]
    tuned_model = PeftModel.from_pretrained(model, adapter).eval()
    tuned = [greedy(tuned_model, tokenizer, prompt, 8) for prompt in prompts]
    rows = [
        ProbePrompt(prompt=prompt, tuned_text=t[0], tuned_logprobs=t[1], base_text=b[0], base_logprobs=b[1])
        for prompt, t, b in zip(prompts, tuned, plain, strict=True)
    ]
    (adapter / "probe.json").write_text(Probe(prompts=tuple(rows)).to_json())


class Shop:
    """A store with a base and published adapters, and what an init container made of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "store").mkdir()
        self.store = Store(root / "store", CLAIM)
        self.adapters = root / "adapters"
        with quiet(), self.store.workspace(StoredKind.MODEL) as work:
            write_base(work / "model")
            self.base = self.store.publish(StoredKind.MODEL, work / "model", {})
        self.base_path = self.store.path(self.base)

    def publish(self, seed: int, scale: float = 0.15) -> StoredReference:
        """Publish one adapter with its probe."""
        with quiet(), self.store.workspace(StoredKind.ARTIFACT) as work:
            write_adapter(self.base_path, work / "adapter", seed, scale)
            write_probe(self.base_path, work / "adapter")
            return self.store.publish(StoredKind.ARTIFACT, work / "adapter", {"base": self.base.digest})

    def plan(self, adapters: dict[str, StoredReference], **settings: Any) -> ServingPlan:
        """A plan for some adapters, delivered to their places."""
        served = tuple(ServedAdapter(name=name, artifact=ref) for name, ref in adapters.items())
        plan = ServingPlan(name="tiny", namespace="test", base=self.base, adapters=served, claim=CLAIM, **settings)
        deliver(plan, self.store, self.adapters)
        return plan

    def adapter_path(self, name: str, ref: StoredReference) -> Path:
        """Where the delivered adapter is."""
        return self.adapters / name / ref.digest.removeprefix("sha256:")

    def write_plan(self, plan: ServingPlan, name: str) -> Path:
        """The plan as the ConfigMap mounts it."""
        path = self.root / f"{name}.json"
        path.write_text(json.dumps(json.loads(plan.to_json())))
        return path
