"""The base model with all its adapters in one process, and one forward pass over rows that mix them."""

import inspect
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.serving import ServedAdapter, ServingPlan
from finetune_server.adapters import add_adapter
from finetune_server.masks import use_short_masks
from finetune_server.mixing import RowAdapters, mix
from finetune_server.onednn import use_onednn
from finetune_store.opening import open_store

log = logging.getLogger(__name__)

BASE = "__base__"
"""peft's own word for rows of a mixed batch that no adapter touches."""

BASE_ALIASES = ("tgi", "dummy")
"""Model names that TGI's and huggingface_hub's clients send when nobody chose one: always the base model."""


_CACHED_TOKENS = 65536
"""Tokens whose text is remembered: a few megabytes."""


class Served(NamedTuple):
    """A model name that clients may ask for."""

    name: str
    key: str
    """BASE or peft's name of the adapter. Ours, not the user's: torch refuses dots in module names."""
    root: str
    """Directory of the weights."""


class LanguageModel:
    """A causal language model whose rows each choose an adapter."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - transformers and peft are untyped
        tokenizer: Any,  # noqa: ANN401
        load_seconds: Mapping[str, float],
    ) -> None:
        """Take what was loaded, and how long each served name took."""
        self.tokenizer = tokenizer
        self.load_seconds = load_seconds
        # peft's wrapper only adds what its own way of mixing adapters needs.
        self._model = _causal_model(model)
        self._rows = RowAdapters(model.device)
        self.takes_positions = "position_ids" in inspect.signature(self._model.forward).parameters
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.vocabulary = int(model.get_input_embeddings().num_embeddings)
        self.config = model.config
        self.context = context_of(model.config)
        self.end_tokens = end_tokens_of(model, tokenizer)
        self.special_tokens = frozenset(tokenizer.all_special_ids)
        self._decode = _decoder_of(tokenizer)
        # A token is decoded for itself, for its text and for its neighbour's: most of that is always the same.
        self._piece = lru_cache(_CACHED_TOKENS)(lambda token: self._text([token], skip_special_tokens=False))
        self._alone = lru_cache(_CACHED_TOKENS)(lambda token: self._text([token], skip_special_tokens=True))
        mix(self._model, self._rows)
        use_onednn(self._model)
        use_short_masks()
        self._inject_row_adapters()

    def _inject_row_adapters(self) -> None:
        """Tell every LoRA layer that is still peft's, at each forward, which row has which adapter.

        peft's own `model(..., adapter_names=...)` walks all modules twice per token and, when a forward raises,
        leaves its hooks with the old names behind: the next batch could be answered by the wrong adapter. Hooks that
        are set once and read the current names can do neither.
        """

        def inject(_module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
            return args, {**kwargs, "adapter_names": list(self._rows.keys)}

        for module in self._model.modules():
            if isinstance(module, LoraLayer):
                module.register_forward_pre_hook(inject, with_kwargs=True)

    @torch.inference_mode()
    def forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        adapters: Sequence[str],
        cache: Any,  # noqa: ANN401
    ) -> tuple[torch.Tensor, Any]:
        """The logits after each row's last token.

        Args:
            ids: (rows, new tokens), left-padded when they are prompts.
            mask: (rows, all tokens so far), 0 at padding.
            positions: (rows, new tokens), counted from each row's first real token.
            adapters: One key per row.
            cache: What the last call returned; None for prompts.

        Returns:
            Logits (rows, vocabulary) in fp32, and the cache.
        """
        self._rows.assign(adapters)
        extra = {"position_ids": positions} if self.takes_positions else {}
        output = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1, **extra
        )
        return output.logits[:, -1].float(), output.past_key_values

    def decode(self, ids: list[int]) -> str:
        """Ids as text without special tokens, exactly as they were generated (nothing tidied)."""
        return self._alone(ids[0]) if len(ids) == 1 else self._text(ids, skip_special_tokens=True)

    def piece(self, token: int) -> str:
        """One token as text, special tokens spelled out."""
        return self._piece(token)

    def _text(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return str(self._decode(ids, skip_special_tokens=skip_special_tokens))


def _decoder_of(tokenizer: Any) -> Callable[..., str]:  # noqa: ANN401
    """What turns ids into text, nothing tidied; `skip_special_tokens` says whether special ones have any."""
    kind, plain = type(tokenizer), PreTrainedTokenizerFast
    if all(getattr(kind, name, None) is getattr(plain, name) for name in ("decode", "_decode")):
        # All that these do is to look for settings, which takes longer than to decode.
        decode: Callable[..., str] = tokenizer.backend_tokenizer.decode
        return decode
    return partial(tokenizer.decode, clean_up_tokenization_spaces=False)


def _causal_model(model: Any) -> Any:  # noqa: ANN401
    return model.get_base_model() if isinstance(model, PeftModel) else model


def context_of(config: Any) -> int:  # noqa: ANN401
    """Tokens a model can attend to; 2,048 where its config does not say."""
    text = config.get_text_config()
    return int(getattr(text, "max_position_embeddings", None) or 2048)


def end_tokens_of(model: Any, tokenizer: Any) -> frozenset[int]:  # noqa: ANN401
    """Ids that end an answer: the generation config's, the tokenizer's own, and the chat template's end of turn.

    The trainer ends answers there too, and bases are common whose end of sequence is not their template's end of turn.
    """
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*ids, tokenizer.eos_token_id, _end_of_turn(tokenizer)) if token is not None)


def _end_of_turn(tokenizer: Any) -> int | None:  # noqa: ANN401
    """The special token that a chat template writes after an answer."""
    answer = "THE-ANSWER"
    turns = [{"role": "user", "content": "-"}, {"role": "assistant", "content": answer}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False) if tokenizer.chat_template else ""
    except TemplateError:
        return None
    ids = tokenizer.encode(text.rpartition(answer)[2], add_special_tokens=False)
    return ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else None


def served_models(plan: ServingPlan, store: Path, adapters: Path) -> list[Served]:
    """Every model of a plan, the base first."""
    base = open_store(plan, store).path(plan.base)
    return [
        Served(plan.name, BASE, str(base)),
        *(
            Served(adapter.name, f"adapter_{number:04d}", str(adapter_directory(adapters, adapter)))
            for number, adapter in enumerate(plan.adapters)
        ),
    ]


def adapter_directory(root: Path, adapter: ServedAdapter) -> Path:
    """Where the init container has put an adapter."""
    return root / adapter.name / adapter.artifact.digest.removeprefix("sha256:")


def load(models: Sequence[Served]) -> LanguageModel:
    """Load the base (the first) and every adapter.

    Raises:
        FineTuneError: ModelNotFound or InvalidPlan, naming the directory and the fault.
    """
    torch.set_num_threads(usable_cpus())
    disable_progress_bar()
    base, *adapters = models
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    if not Path(base.root, "config.json").is_file():
        raise FineTuneError(FailureReason.MODEL_NOT_FOUND, f"base: {base.root} holds no config.json")
    tokenizer = AutoTokenizer.from_pretrained(base.root, local_files_only=True)
    seconds: dict[str, float] = {}
    with _timed(seconds, base.name):
        model = AutoModelForCausalLM.from_pretrained(base.root, dtype=dtype, local_files_only=True).to(device)
    for adapter in adapters:
        with _timed(seconds, adapter.name):
            model = add_adapter(model, adapter.name, Path(adapter.root), adapter.key)
    model.eval().requires_grad_(requires_grad=False)
    torch.set_num_threads(threads_for(model.num_parameters()))
    log.info("loaded %s and %d adapters on %s as %s", base.root, len(adapters), device, dtype)
    return LanguageModel(model, tokenizer, seconds)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began


_PARAMETERS_PER_THREAD = 50_000_000
"""Below this, waking a second thread for each small matrix costs more than it saves: on 2 cores, 8 rows of a 2 M model
take 1.8 ms per token with one thread and 3.2 ms with two, of a 20 M model 10 and 14 ms; from 135 M on they are even."""


def threads_for(parameters: int) -> int:
    """Threads for one matrix product, by the size of the model."""
    return max(1, min(usable_cpus(), parameters // _PARAMETERS_PER_THREAD))


def usable_cpus(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs this container may use at once; torch would count the node's and thrash."""
    available = len(os.sched_getaffinity(0))
    try:
        quota, period = quota_file.read_text().split()
        return max(1, min(available, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return available
