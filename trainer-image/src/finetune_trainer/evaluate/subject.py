"""One system under measurement: what it answers and what it finds likely, remembered where it is a baseline."""

import time
from collections.abc import Mapping, Sequence

import torch

from finetune_contract.evaluating import TUNED, BenchmarkPlan, Speed
from finetune_trainer.evaluate import benchmark
from finetune_trainer.evaluate.baselines import Memory
from finetune_trainer.evaluate.benchmark import Tasks
from finetune_trainer.evaluate.generate import BATCH_ROWS, Ids, Loss, greedy_answers, supervised_losses
from finetune_trainer.evaluate.references import References
from finetune_trainer.evaluate.systems import Systems
from finetune_trainer.openings import tokens_read
from finetune_trainer.train.workbench import Workbench

_LATENCY_PROMPTS = 16
_LATENCY_SECONDS = 2.0
"""Prompts that are answered one at a time, and after how long no further one is begun: a figure, not a benchmark."""


class Subject:
    """A system by name. Its model is loaded when something is measured that is not known."""

    def __init__(self, system: str, systems: Systems, bench: Workbench) -> None:
        self.system = system
        self._systems = systems
        self._bench = bench
        self._stop_ids = bench.renderer.stop_ids()
        self._asked: list[bool] = []
        self.speed: Speed | None = None
        """How fast it answered, where its answers were measured here."""

    @property
    def recalled(self) -> bool:
        """Whether all that was asked was known."""
        return bool(self._asked) and all(self._asked)

    def answers(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Token ids of the greedy answer to each prompt."""
        return self._answers(prompts, max_new_tokens, ())[0]

    def losses(self, sequences: Sequence[tuple[Ids, Ids]]) -> list[Loss]:
        """The loss of each (ids, labels)."""
        return self._losses(sequences, {})

    def answers_and_losses(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sequences: Sequence[tuple[Ids, Ids]]
    ) -> tuple[list[list[int]], list[Loss]]:
        """As `answers` and `losses` of the same rows; prompts that are longer than what follows are read only once."""
        read = sum(map(len, prompts))
        follows = sum(len(ids) for ids, _ in sequences) - read
        # Batches are of prompts of like length, and right answers in them are padded: that has to pay.
        answers, known = self._answers(prompts, max_new_tokens, sequences if read > follows else ())
        return answers, self._losses(sequences, known)

    def _answers(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sequences: Sequence[tuple[Ids, Ids]]
    ) -> tuple[list[list[int]], dict[int, Loss]]:
        """The answers, and by row the losses of sequences that were read with them; none where answers were known."""
        losses: dict[int, Loss] = {}

        def measure() -> list[list[int]]:
            with self._systems.model(self.system) as model:
                references = References(model, prompts, sequences) if sequences else None
                began = time.monotonic()
                after = references.read if references is not None else None
                found = greedy_answers(model, prompts, max_new_tokens, self._stop_ids, after_batch=after)
                seconds = time.monotonic() - began
                if references is not None:
                    losses.update(references.losses)
                    seconds -= references.seconds
                if self.system == TUNED and prompts:
                    latencies = self._latencies(model, prompts, max_new_tokens)
                    written = sum(len(answer.ids) for answer in found)
                    self.speed = self._speed(seconds, tokens_read(prompts), written, len(prompts), latencies)
            return [answer.ids for answer in found]

        memory = self._memory()
        if memory is None:
            self._asked.append(False)
            return measure(), losses
        answers, is_known = memory.answers(prompts, max_new_tokens, self._stop_ids, measure)
        self._asked.append(is_known)
        return answers, losses

    def _losses(self, sequences: Sequence[tuple[Ids, Ids]], known: Mapping[int, Loss]) -> list[Loss]:
        """The losses, those of some rows being known."""

        def measure() -> list[Loss]:
            rest = [row for row in range(len(sequences)) if row not in known]
            if not rest:
                return [known[row] for row in range(len(sequences))]
            with self._systems.model(self.system) as model:
                found = dict(zip(rest, supervised_losses(model, [sequences[row] for row in rest]), strict=True))
            return [found[row] if row in found else known[row] for row in range(len(sequences))]

        memory = self._memory()
        if memory is None:
            self._asked.append(False)
            return measure()
        losses, is_known = memory.losses(sequences, measure)
        self._asked.append(is_known)
        return losses

    def tasks(self, plan: BenchmarkPlan) -> Tasks:
        """What tasks of lm-eval-harness say; solved rows before prompts are the tasks' own affair."""

        def measure() -> Tasks:
            with self._systems.model(self.system) as model:
                return benchmark.run(plan, model, self._bench)

        memory = self._memory()
        if memory is None:
            return measure()
        found, known = memory.tasks(benchmark.digest(plan), measure)
        self._asked.append(known)
        return found

    def _memory(self) -> Memory | None:
        identity = self._systems.identity(self.system)
        if identity is None:
            return None
        device = self._bench.device
        return Memory(self._bench.store, identity, f"{device.type}/{device.dtype(trained=False)}")

    def _latencies(self, model: object, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[float]:
        seconds: list[float] = []
        for prompt in prompts[:_LATENCY_PROMPTS]:
            began = time.monotonic()
            greedy_answers(model, [prompt], max_new_tokens, self._stop_ids)
            seconds.append(time.monotonic() - began)
            if sum(seconds) > _LATENCY_SECONDS:
                break
        return sorted(seconds)

    def _speed(self, seconds: float, read: int, written: int, prompts: int, latencies: list[float]) -> Speed:
        device = self._bench.device
        return Speed(
            device=torch.cuda.get_device_name() if device.is_cuda else device.type,
            batch_size=min(BATCH_ROWS, prompts),
            prompt_tokens_per_second=round(read / seconds, 1),
            generated_tokens_per_second=round(written / seconds, 1),
            latency_p50=round(latencies[len(latencies) // 2], 4),
            latency_p95=round(latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))], 4),
        )
