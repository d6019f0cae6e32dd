"""What an attempt would hold on each of its devices, and what it could be changed to so that it fits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from finetune_contract.methods import ANSWERING_METHODS, SEQUENCE_METHODS, Method
from finetune_contract.preflight import MOST_WAYS, Accelerator, PreflightPlan, Way
from finetune_contract.training import AdapterVariant, LoraPlan, TrainingPlan
from finetune_store.store import Store
from finetune_trainer.preflight.dryrun import Inventory, Setting, Working, rehearse, take_inventory
from finetune_trainer.preflight.methods import answering_bytes, beside_bytes, kind_of, mask_bytes
from finetune_trainer.train.batching import most_on_cpu, most_on_gpu, plan_batches
from finetune_trainer.train.fit import SMALL_MODEL
from finetune_trainer.train.rehearsal import MARGIN, ROOM, candidates
from finetune_trainer.train.sharded import is_sharded

USED_BY_PROCESS = 900 * 2**20
"""Bytes that a process on CPU holds when its libraries are loaded: measured, docs/user-guides/preflight.md."""

_SMALL_ADAPTER = LoraPlan(rank=16, alpha=32, dropout=0.0)
"""What is proposed instead of training every weight: the defaults of spec.adapter."""

_SLOWER = {AdapterVariant.QLORA: 1.3}
"""Time of a step beside LoRA's; an assumption that only orders the ways, from QLoRA's unpacking of every weight."""

_FORWARD = 2
"""FLOPs per token and weight of a forward pass."""

_MOST_DEVICES = 8
"""GPUs that a node has, at most."""

_SHORTEST = 256
"""Tokens below which a shorter maxLength is not proposed."""


@dataclass(frozen=True)
class Need:
    """What one of the devices would hold."""

    peak: int
    micro_batch: int
    flops_per_token: float


@dataclass(frozen=True)
class Rows:
    """What is to be known of the rows."""

    length: int
    """Tokens of the longest sequence."""
    supervised: float
    """Share of the tokens that the loss is on."""
    cut_at: Callable[[int], float]
    """Share of the tokens that a shorter maxLength would cut."""
    answer: int = 0
    """Tokens of it that the model writes itself, at most."""


class Needs:
    """Needs of variations of one plan; each dry run is made once."""

    def __init__(self, config: Any, plan: PreflightPlan, rows: Rows, store: Store) -> None:  # noqa: ANN401
        """Take transformers' configuration, what is asked, what the rows are like, and where reward models are."""
        self._config, self._plan, self._rows, self._store = config, plan, rows, store
        self._kind = kind_of(plan.training)
        self._inventories: dict[str, Inventory] = {}
        self._workings: dict[tuple[str, int], Working] = {}

    def of(self, training: TrainingPlan, length: int, memory: int | None) -> Need:
        """What a plan takes on a device with so much memory; None: with the trainer's smallest micro batch.

        As in training, the largest of the candidates that fits is taken, and the smallest where none does.
        """
        sizes = self._sizes(training, length, memory)
        limit = MARGIN * memory if memory is not None else 0.0
        size = next((size for size in sizes[:-1] if self._peak(training, size, length) <= limit), sizes[-1])
        held = self._inventory(training)
        flops = held.flops_per_token + _FORWARD * held.parameters * self._kind.looked_at / self._kind.learnt
        return Need(self._peak(training, size, length), size, flops)

    def _sizes(self, training: TrainingPlan, length: int, memory: int | None) -> list[int]:
        settings, ranks = training.hyperparameters, training.parallelism.ranks
        counted = length * self._kind.counted
        if not self._plan.on_gpu:
            return [plan_batches(settings, ranks, most_on_cpu(counted)).micro]
        if settings.micro_batch_size is not None or memory is None:
            return [plan_batches(settings, ranks, 1).micro]
        config, inventory = self._config.get_text_config(), self._inventory(training)
        most = most_on_gpu(
            counted,
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            vocabulary=config.vocab_size,
            free_bytes=max(0, memory - inventory.weights),
            recomputes=inventory.parameters >= SMALL_MODEL,
        )
        estimate = plan_batches(settings, ranks, most)
        # Several ranks, and methods other than SFT and CPT, take the estimate untried; where it is too large,
        # ShrinkMicroBatch halves it.
        is_taken = ranks > 1 or training.method not in SEQUENCE_METHODS
        found = [estimate] if is_taken else candidates(estimate, ROOM)
        fewest = _fewest(training.method)
        return [cut.micro for cut in found] + ([fewest] if found[-1].micro > fewest else [])

    def _peak(self, training: TrainingPlan, size: int, length: int) -> int:
        """Of one device. Most is held when the backward pass begins, or when it has made the last gradient."""
        held, work = self._inventory(training), self._working(training, size * length * self._kind.learnt)
        ranks = training.parallelism.ranks
        if is_sharded(training):
            # FSDP2 holds its share, and two blocks put together: the one that is computed and the next.
            together = 2 * held.largest_layer + held.outside_layers
            return held.whole // ranks + together + work.at_most
        # DDP gathers gradients in buckets of its own.
        fixed = held.whole + (held.gradients if ranks > 1 else 0)
        own = 0 if self._plan.on_gpu else USED_BY_PROCESS + self._exact_sums(training, size)
        own += beside_bytes(training, self._store, held, on_gpu=self._plan.on_gpu)
        layers = 1 if self._recomputes(held) else held.layers
        mask = mask_bytes(self._kind, size, length, on_gpu=self._plan.on_gpu, layers=layers)
        learning = max(fixed - held.gradients + work.at_most, fixed + work.at_the_end) + mask
        return own + max(learning, self._answering(training, held, length))

    def _answering(self, training: TrainingPlan, held: Inventory, length: int) -> int:
        """When the model writes answers: those of a whole step at once, while there are no gradients."""
        if not self._rows.answer:
            return 0
        rows = training.hyperparameters.global_batch_size // training.parallelism.ranks
        prompt, on_gpu = length - self._rows.answer, self._plan.on_gpu
        setting = Setting(training.adapter, on_gpu, recomputes=False, learns=False)
        reading = rehearse(self._config, setting, rows * prompt).at_most
        writing = answering_bytes(self._config, rows, prompt, self._rows.answer, on_gpu=on_gpu)
        return held.weights + held.states + reading + writing

    def _exact_sums(self, training: TrainingPlan, size: int) -> int:
        """Gradients of several passes, which are summed in float64 on CPU (`train/exact.py`)."""
        if training.method in ANSWERING_METHODS:
            return 0
        cut = plan_batches(training.hyperparameters, training.parallelism.ranks, size)
        return 2 * self._inventory(training).gradients if cut.accumulation > 1 else 0

    def _inventory(self, training: TrainingPlan) -> Inventory:
        key = _name_of(training.adapter)
        if key not in self._inventories:
            found = take_inventory(self._config, training.adapter, on_gpu=self._plan.on_gpu, head=self._kind.head)
            self._inventories[key] = found
        return self._inventories[key]

    def _working(self, training: TrainingPlan, tokens: int) -> Working:
        key = (_name_of(training.adapter), tokens)
        if key not in self._workings:
            setting = Setting(
                training.adapter,
                self._plan.on_gpu,
                self._recomputes(self._inventory(training)),
                self._rows.supervised,
                self._kind.head,
                looks_back=self._kind.looked_at > 0,
            )
            self._workings[key] = rehearse(self._config, setting, tokens)
        return self._workings[key]

    def _recomputes(self, held: Inventory) -> bool:
        return self._plan.on_gpu and held.parameters >= SMALL_MODEL

    # --- ways to fit ---

    def ways(self) -> tuple[Way, ...]:
        """The cheapest changes after which the plan fits; none where no single one helps.

        The price of a way is the memory of the devices that it occupies (a stand-in for their price: no prices are
        known here), times the arithmetic of a step, times what is known to make a step slower.
        """
        device = self._plan.device
        if device is None:
            return ()
        found = []
        for change, training, length, on in self._changes(device):
            need = self.of(training, length, on.memory_bytes)
            if need.peak <= MARGIN * on.memory_bytes:
                variant = training.adapter.variant if training.adapter else None
                time = need.flops_per_token * (_SLOWER.get(variant, 1.0) if variant else 1.0)
                found.append((on.memory_bytes * training.parallelism.ranks * time, change, need.peak))
        found.sort()
        return tuple(Way(change=change, predicted_peak_bytes=peak) for _, change, peak in found[:MOST_WAYS])

    def _changes(self, device: Accelerator) -> Iterator[tuple[str, TrainingPlan, int, Accelerator]]:
        training, length = self._plan.training, self._rows.length
        yield from self._smaller_passes(device)
        if training.start is None:
            yield from self._other_adapters(device)
        yield from self._shorter(device)
        larger = [other for other in self._plan.others if other.memory_bytes > device.memory_bytes]
        for other in larger:
            yield f"a GPU with more memory: {other.name}, {other.memory_bytes / 2**30:.0f} GiB", training, length, other
        if training.adapter is None and training.method in SEQUENCE_METHODS:
            for each in (device, *larger):
                yield from self._more_devices(each)

    def _smaller_passes(self, device: Accelerator) -> Iterator[tuple[str, TrainingPlan, int, Accelerator]]:
        training, length = self._plan.training, self._rows.length
        size, fewest = training.hyperparameters.micro_batch_size, _fewest(training.method)
        if size is not None and size > fewest:
            changed = _with_settings(training, micro_batch_size=fewest)
            yield f"spec.hyperparameters.microBatchSize: {fewest}", changed, length, device

    def _other_adapters(self, device: Accelerator) -> Iterator[tuple[str, TrainingPlan, int, Accelerator]]:
        training, length = self._plan.training, self._rows.length
        adapter = training.adapter or _SMALL_ADAPTER
        wanted = (AdapterVariant.LORA, AdapterVariant.QLORA) if training.adapter is None else (AdapterVariant.QLORA,)
        for variant in wanted:
            if adapter.variant is not variant or training.adapter is None:
                changed = adapter.model_copy(update={"variant": variant})
                yield f"spec.adapter.type: {variant}", training.model_copy(update={"adapter": changed}), length, device

    def _shorter(self, device: Accelerator) -> Iterator[tuple[str, TrainingPlan, int, Accelerator]]:
        training, length = self._plan.training, self._rows.length // 2
        while length >= _SHORTEST and self._rows.cut_at(length) <= training.truncated_share:
            changed = _with_settings(training, max_length=length)
            yield f"spec.hyperparameters.maxLength: {length}", changed, length, device
            if self.of(changed, length, device.memory_bytes).peak <= MARGIN * device.memory_bytes:
                return
            length //= 2

    def _more_devices(self, device: Accelerator) -> Iterator[tuple[str, TrainingPlan, int, Accelerator]]:
        training, length = self._plan.training, self._rows.length
        count = 2 * training.parallelism.processes_per_node
        while count <= min(_MOST_DEVICES, training.hyperparameters.global_batch_size):
            parallelism = training.parallelism.model_copy(update={"processes_per_node": count})
            changed = training.model_copy(update={"parallelism": parallelism})
            yield f"{count} GPUs of {device.name} per pod, the model divided among them (FSDP)", changed, length, device
            if self.of(changed, length, device.memory_bytes).peak <= MARGIN * device.memory_bytes:
                return
            count *= 2


def _fewest(method: Method) -> int:
    """Rows of the smallest forward pass: KTO compares rows with each other."""
    return 2 if method is Method.KTO else 1


def _with_settings(training: TrainingPlan, **changes: int) -> TrainingPlan:
    settings = training.hyperparameters.model_copy(update=changes)
    return training.model_copy(update={"hyperparameters": settings})


def _name_of(adapter: LoraPlan | None) -> str:
    return adapter.to_json() if adapter else ""
