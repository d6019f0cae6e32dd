"""One training step on fake tensors: every allocation is counted, none is made.

What is counted is what torch would ask the device for: weights, gradients, AdamW's two states, what the forward pass
keeps, what is needed for moments. What is not: the CUDA context, fragmentation, and kernels' own workspaces.
"""

import copy
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from finetune_contract.training import AdapterVariant, LoraPlan
from finetune_trainer.preflight.heads import Head, look, loss_of
from finetune_trainer.train.adapters import attach
from finetune_trainer.train.attention import is_segmentable
from finetune_trainer.train.meters import flops_per_token

REHEARSED = "finetune_rehearsed"
"""An attention that allocates what the GPU's kernel does, whatever the CPU would choose."""

_OPTIMISER_STATES = 2
"""AdamW keeps two numbers per trained weight."""

_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Per weight: 4 bits; for each block of 64 a scale in 8 bits, of which 256 share one in 32 (Dettmers et al. 2023)."""

_FEW, _MORE = 4, 6
"""Layers of the two models that tell what each layer adds: with fewer, other things may decide the peak."""

_FAKE_TOKENS = 2
"""Sequences of a dry run have at least so many tokens."""


@dataclass(frozen=True)
class Setting:
    """What a step is computed with."""

    adapter: LoraPlan | None
    on_gpu: bool = True
    """bf16 by autocast, and logits in tiles; else fp32, and the logits of all supervised tokens at once."""
    recomputes: bool = True
    supervised: float = 1.0
    """Share of the tokens that the loss is on."""
    head: Head = Head.SUPERVISED
    looks_back: bool = False
    """Whether the same tokens go through a reference, too, without gradients."""
    learns: bool = True
    """Whether there is a backward pass; else what is counted is reading a prompt."""


@dataclass(frozen=True)
class Inventory:
    """Bytes of what stays from step to step, on one device that holds everything."""

    weights: int
    gradients: int
    states: int
    """AdamW's."""
    largest_layer: int
    """Weights of the largest block: what FSDP puts together at a time."""
    outside_layers: int
    """Weights that belong to no block: embeddings, head, last norm."""
    layers: int
    parameters: int
    flops_per_token: float

    @property
    def whole(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.states


@dataclass(frozen=True)
class Working:
    """Bytes of what is there only while a step is computed, gradients of weights left out."""

    at_most: int
    per_layer: int
    layers: int

    @property
    def at_the_end(self) -> int:
        """When the backward pass has come to the first layer, and all gradients are there."""
        return self.at_most - (self.layers - 1) * self.per_layer


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch has few types
    """Counts the bytes of storages that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: dict[int, Any] = {}
        self.alive = 0
        self.kept = 0
        """Bytes of gradients, which stay when the pass is over."""
        self.working = 0

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata  # noqa: SLF001 - what identifies a storage
        if key in self._known:
            return
        size = storage.nbytes()
        self._known[key] = weakref.finalize(storage, self._gone, key, size)
        self.alive += size
        self.working = max(self.working, self.alive - self.kept)

    def keep(self, parameter: torch.Tensor) -> None:
        """Take note of a gradient."""
        assert parameter.grad is not None
        self.kept += size_of(parameter)

    def _gone(self, key: int, size: int) -> None:
        self._known.pop(key, None)
        self.alive -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result


class _Kernel(torch.autograd.Function):
    """What flash attention keeps: queries, keys, values, its output and one number per token and head."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:  # noqa: ANN401
        out = torch.empty_like(query)
        sums = query.new_empty(query.shape[:3], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, _gradient: Any) -> Any:  # noqa: ANN401
        query, key, value, _out, _sums = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _attention(_module: Any, query: Any, key: Any, value: Any, _mask: Any, **_others: Any) -> tuple[Any, None]:  # noqa: ANN401
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    packed = [states.transpose(1, 2).contiguous().to(dtype) for states in (query, key, value)]
    return _Kernel.apply(*packed), None  # type: ignore[no-untyped-call]


def take_inventory(
    config: Any,  # noqa: ANN401
    adapter: LoraPlan | None,
    *,
    on_gpu: bool,
    head: Head = Head.SUPERVISED,
) -> Inventory:
    """What a model and its optimiser take; counted on the whole model's shape.

    Args:
        config: transformers' configuration of a causal language model.
        adapter: None: all weights are trained.
        on_gpu: bf16 for weights that are not trained; else fp32.
        head: What stands at the model's end.

    Raises:
        FineTuneError: InvalidPlan when the adapter's target modules are not the model's.
    """
    model = _model(config, Setting(adapter, on_gpu, head=head))
    trained = [each for each in model.parameters() if each.requires_grad]
    # Adapters are trained in fp32.
    gradients = sum(each.numel() * (4 if adapter else each.element_size()) for each in trained)
    weights = _bytes(model) + sum(map(size_of, model.buffers())) + (gradients - sum(map(size_of, trained)))
    layers = [_bytes(layer) for layer in _blocks(model)]
    return Inventory(
        weights=weights - _quantised(model, adapter)[0],
        gradients=gradients,
        states=gradients * _OPTIMISER_STATES,
        largest_layer=max(layers, default=0),
        outside_layers=weights - sum(layers),
        layers=len(layers),
        parameters=model.num_parameters(),
        flops_per_token=flops_per_token(model),
    )


def rehearse(config: Any, setting: Setting, tokens: int) -> Working:  # noqa: ANN401
    """What a step over so many tokens takes beside the inventory.

    Layers are alike, so two small models tell what each of them adds; the dry run of all layers of an 8B model takes
    ten times as long and gives the same (a test compares them).
    """
    layers = config.get_text_config().num_hidden_layers
    few, more = min(_FEW, layers), min(_MORE, layers)
    first = rehearse_whole(_with_layers(config, few), setting, tokens)
    if layers <= few:
        return Working(first, 0, layers)
    grown = rehearse_whole(_with_layers(config, more), setting, tokens) - first
    per_layer = max(0, grown // (more - few))
    return Working(first + (layers - few) * per_layer, per_layer, layers)


def rehearse_whole(config: Any, setting: Setting, tokens: int) -> int:  # noqa: ANN401
    """The same with all layers; answers the most bytes at once."""
    model = _model(config, setting)
    with FakeTensorMode(), _quiet():
        _imagine(model, setting.adapter)
        ledger = _Ledger()
        for tensor in (*model.parameters(), *model.buffers()):
            ledger.add(tensor)
        before = ledger.alive
        for each in model.parameters():
            if each.requires_grad:
                each.register_post_accumulate_grad_hook(ledger.keep)
        with ledger:
            _step(model, setting, tokens)
        return ledger.working - before + _quantised(model, setting.adapter)[1]


def _with_layers(config: Any, layers: int) -> Any:  # noqa: ANN401
    changed = copy.deepcopy(config)
    text = changed.get_text_config()
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    text.num_hidden_layers = layers
    return changed


def _model(config: Any, setting: Setting) -> Any:  # noqa: ANN401
    from transformers import AttentionInterface, AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(REHEARSED, _attention)
    AttentionMaskInterface.register(REHEARSED, lambda *_args, **_kwargs: None)
    dtype = torch.bfloat16 if setting.on_gpu and setting.adapter is not None else torch.float32
    scores = setting.head is Head.SCORE
    with torch.device("meta"):
        if scores:
            config = copy.deepcopy(config)
            config.num_labels = 1
        model = (AutoModelForSequenceClassification if scores else AutoModelForCausalLM).from_config(
            config, dtype=dtype
        )
    if is_segmentable(model):
        model.set_attn_implementation(REHEARSED)
    if setting.recomputes:
        model.activation_checkpointing_enable()
    model.train()
    if setting.adapter is None:
        return model
    # What PiSSA begins with takes as much as what LoRA begins with, and is computed from weights.
    plain = (AdapterVariant.PISSA, AdapterVariant.QLORA)
    variant = AdapterVariant.LORA if setting.adapter.variant in plain else setting.adapter.variant
    model.enable_input_require_grads()
    with torch.device("meta"):
        return attach(
            model, setting.adapter.model_copy(update={"variant": variant}), None, "SEQ_CLS" if scores else "CAUSAL_LM"
        )


def _imagine(model: Any, adapter: LoraPlan | None) -> None:  # noqa: ANN401
    """Put fake tensors of the CPU in the place of meta tensors: autocast only knows devices that compute."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():  # noqa: SLF001 - what `to` cannot do for fake tensors
            if parameter is None:
                continue
            if id(parameter) not in made:
                # Adapters are trained in fp32.
                dtype = torch.float32 if parameter.requires_grad and adapter is not None else parameter.dtype
                fake = torch.empty(parameter.shape, dtype=dtype, device="cpu")
                made[id(parameter)] = torch.nn.Parameter(fake, requires_grad=parameter.requires_grad)
            module._parameters[name] = made[id(parameter)]  # noqa: SLF001
        for name, buffer in module._buffers.items():  # noqa: SLF001
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")  # noqa: SLF001


def _step(model: Any, setting: Setting, tokens: int) -> None:  # noqa: ANN401
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    # One row, whose pieces are kept apart, is what a micro batch becomes.
    ids = torch.zeros((1, max(_FAKE_TOKENS, tokens)), dtype=torch.int64)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16) if setting.on_gpu else nullcontext()
    decoder = _decoder(model)
    with autocast:
        if not setting.learns:
            with torch.no_grad():
                decoder(input_ids=ids, use_cache=False)
            return
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
        loss = loss_of(setting.head, hidden, base, setting.supervised, on_gpu=setting.on_gpu)
        del hidden
        if setting.looks_back:
            with torch.no_grad():
                look(setting.head, decoder(input_ids=ids, use_cache=False).last_hidden_state, base)
    loss.backward()


def _quantised(model: Any, adapter: LoraPlan | None) -> tuple[int, int]:  # noqa: ANN401
    """What holding the frozen linear layers in 4 bits saves, and what unpacking one for a moment takes."""
    if adapter is None or adapter.variant is not AdapterVariant.QLORA:
        return 0, 0
    weights = [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lora_" not in name and not name.endswith(("lm_head", "score"))
    ]
    saved = sum(weight.numel() * (weight.element_size() - _NF4_BYTES) for weight in weights)
    return int(saved), max(map(size_of, weights), default=0)


def _blocks(model: Any) -> list[Any]:  # noqa: ANN401
    return list(getattr(_decoder(model), "layers", ()))


def _decoder(model: Any) -> Any:  # noqa: ANN401
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(base, base.base_model_prefix) if hasattr(base, "score") else base.get_decoder()


def _bytes(module: Any) -> int:  # noqa: ANN401
    return sum(map(size_of, module.parameters()))


def size_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor."""
    return tensor.numel() * tensor.element_size()


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave the random numbers of this process as they were."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
