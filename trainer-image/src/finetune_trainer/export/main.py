"""`python -m finetune_trainer export`: make one export of a published artifact, without training.

    python -m finetune_trainer export --plan plan.json --store /store --termination-log /tmp/result.json

An export is a directory of the store, by content, found again by its key (artifact and settings); so what a pod has
made that died before it could say so is not made twice. The ExportResult goes into the termination log.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from finetune_contract.base import StoredReference
from finetune_contract.exporting import (
    ExportPlan,
    ExportResult,
    ExportSettings,
    ExportType,
    HubContent,
    Quantization,
)
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import Manifest, StoredKind
from finetune_contract.results import ArtifactType
from finetune_store.manifests import read_manifest
from finetune_store.opening import open_store
from finetune_store.store import Store
from finetune_trainer.command import options, run_plan

log = logging.getLogger(__name__)

MERGED = ExportSettings(type=ExportType.MERGED_MODEL)


def main(argv: Sequence[str]) -> int:
    """Make one export; answers the exit code."""
    parser = options("export", __doc__, ExportPlan)
    return run_plan(parser, argv, ExportPlan, _work, lambda failure: ExportResult(failure=failure))


def _work(plan: ExportPlan, root: Path) -> ExportResult:
    log.info("exporting %s as %s", plan.artifact.digest, plan.export.type.value)
    if plan.export.type is ExportType.HUB:
        # Read when the Hub's client is imported; models are loaded from the store by path all the same.
        os.environ["HF_HUB_OFFLINE"] = "0"
        if os.environ.get("HF_ENDPOINT"):
            # Mirrors speak the Hub's older protocol for large files; the client itself asks none of them.
            os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    return export(plan, root)


def export(plan: ExportPlan, root: Path) -> ExportResult:
    """Make what the plan asks for, or find it.

    Raises:
        FineTuneError: ExportFailed, ExportDenied, or any of the reasons that inputs cannot be read for.
    """
    store = open_store(plan.training, root)
    exporter = _Exporter(plan, store)
    match plan.export.type:
        case ExportType.MERGED_MODEL:
            return exporter.merged()
        case ExportType.GGUF | ExportType.GGUF_ADAPTER:
            return exporter.gguf()
        case ExportType.HUB:
            return exporter.pushed()


class _Exporter:
    def __init__(self, plan: ExportPlan, store: Store) -> None:
        self._plan = plan
        self._store = store
        self._is_adapter = plan.artifact.type is ArtifactType.ADAPTER
        self._artifact = StoredReference(digest=plan.artifact.digest, uri=plan.artifact.uri)

    def merged(self) -> ExportResult:
        """The whole model in the store: an export of its own, or the artifact where it is one."""
        if not self._is_adapter:
            return self._result(self._artifact, self._store.check(self._artifact), reused=True)
        if found := self._found(MERGED):
            return found
        with self._store.workspace(StoredKind.EXPORT) as work:
            difference = self._merge(work)
            result = self._publish(MERGED, work)
        return result.model_copy(update={"difference": difference})

    def _merge(self, work: Path) -> float:
        """Write the merged model with its card, which llama.cpp's converter reads, too; answers how far it is off."""
        from finetune_trainer.export.merged import write_merged

        base, artifact = self._store.verify(self._plan.artifact.base), self._store.verify(self._artifact)
        difference = write_merged(base, artifact, work)
        sentence = (
            f"The adapter is merged into its base in 16 bits; the merged model differs from base and adapter by "
            f"{difference.merged:.3g} nats per token on the probe prompts (the adapter changes {difference.base:.3g})."
        )
        self._write_card(work, sentence, ())
        return difference.merged

    def gguf(self) -> ExportResult:
        """A GGUF file in the store."""
        settings = self._plan.export
        if found := self._found(settings):
            return found
        from finetune_trainer.export.gguf import write_gguf, write_gguf_adapter

        quantization = settings.quantization or Quantization.F16
        name = self._plan.training.name
        with self._store.workspace(StoredKind.EXPORT) as work:
            file = work / f"{name}-{quantization.value}.gguf"
            if settings.type is ExportType.GGUF_ADAPTER:
                self._must_be_an_adapter()
                base = self._store.verify(self._plan.artifact.base)
                write_gguf_adapter(self._store.verify(self._artifact), base, quantization, name, file)
                sentence = f"The adapter as a GGUF file ({quantization.value}) for llama.cpp's `--lora`."
            else:
                with self._model() as model:
                    write_gguf(model, quantization, name, file)
                sentence = f"The whole model as a GGUF file ({quantization.value}), by llama.cpp's converter."
            self._write_card(work, sentence, ("gguf",))
            return self._publish(settings, work)

    def pushed(self) -> ExportResult:
        """A branch of a repository on the Hub."""
        from finetune_trainer.export.hub import push

        target = self._plan.export.hub
        if target is None:
            raise FineTuneError(FailureReason.INVALID_PLAN, "spec.exports: type Hub needs hub.repo")
        content = self._artifact
        if target.content is HubContent.MERGED_MODEL:
            content = _reference(self.merged())
        directory = self._store.verify(content)
        pushed = push(directory, target, f"{self._plan.training.name}: {content.digest}")
        return ExportResult(digest=content.digest, uri=pushed.uri, bytes=_bytes_of(read_manifest(directory)))

    @contextmanager
    def _model(self) -> Iterator[Path]:
        """The whole model's directory: the artifact, the merged export if there is one, or merged just for now."""
        if not self._is_adapter:
            yield self._store.verify(self._artifact)
        elif found := self._found(MERGED):
            yield self._store.verify(_reference(found))
        else:
            with self._store.workspace(StoredKind.EXPORT) as work:
                self._merge(work)
                yield work

    def _must_be_an_adapter(self) -> None:
        if not self._is_adapter:
            raise FineTuneError(
                FailureReason.EXPORT_FAILED,
                f"spec.exports: type GGUFAdapter needs an adapter, and this job made a {self._plan.artifact.type}; "
                "use type GGUF",
            )

    def _found(self, settings: ExportSettings) -> ExportResult | None:
        digest = self._store.pointer(settings.key_for(self._artifact.digest))
        if digest is None:
            return None
        reference = self._store.reference(StoredKind.EXPORT, digest)
        try:
            result = self._result(reference, self._store.check(reference), reused=True)
        except FineTuneError as error:
            log.info("%s was made before, and is to be made again: %s", settings.type.value, error)
            return None
        log.info("%s was made before: %s", settings.type.value, reference.uri)
        return result

    def _publish(self, settings: ExportSettings, work: Path) -> ExportResult:
        lineage = {
            "artifact": self._artifact.digest,
            "base": self._plan.artifact.base.digest,
            "dataset": self._plan.training.dataset.digest,
            "runKey": self._plan.training.run_key,
            "export": settings.to_json(),
        }
        reference = self._store.publish(StoredKind.EXPORT, work, lineage)
        self._store.point(settings.key_for(self._artifact.digest), reference.digest)
        return self._result(reference, self._store.check(reference))

    def _write_card(self, work: Path, sentence: str, tags: tuple[str, ...]) -> None:
        from finetune_trainer.export.card import Figures, Subject, lineage_in, write_card

        plan = self._plan
        outcome = self._store.outcome(plan.training.run_key)
        subject = Subject(
            plan=plan.training,
            type=plan.artifact.type,
            scores=plan.evaluation,
            seconds=plan.cost.seconds,
            gpu_seconds=plan.cost.gpu_seconds,
            figures=Figures.of(outcome) if outcome else None,
            export=sentence,
            artifact=plan.artifact.digest,
            tags=tags,
            base=lineage_in(self._store, plan.training.base),
            dataset=lineage_in(self._store, plan.training.dataset),
        )
        write_card(subject, work)

    def _result(self, reference: StoredReference, manifest: Manifest, *, reused: bool = False) -> ExportResult:
        return ExportResult(digest=reference.digest, uri=reference.uri, bytes=_bytes_of(manifest), reused=reused)


def _bytes_of(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.files)


def _reference(result: ExportResult) -> StoredReference:
    assert result.digest is not None
    assert result.uri is not None
    return StoredReference(digest=result.digest, uri=result.uri)
