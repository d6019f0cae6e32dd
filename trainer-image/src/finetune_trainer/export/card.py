"""The model card of an artifact or an export: README.md in the Hub's format, with the lineage that the store knows.

Every line is a fact of this run. It stands in the manifest, but not in the digest: what training took differs each
time, and the same weights must have the same name.
"""

import importlib.metadata
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract.base import StoredReference
from finetune_contract.evaluating import TUNED, Score
from finetune_contract.manifest import Manifest
from finetune_contract.methods import Method
from finetune_contract.paths import CARD_FILE, ENV_IMAGE, MANIFEST_FILE
from finetune_contract.results import ArtifactType, RunWarning, TrainingResult
from finetune_contract.training import TrainingPlan
from finetune_store.manifests import read_manifest
from finetune_store.store import Store
from finetune_trainer.data.provenance import PARTS, Terms

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")
_HUB = "hub:"


@dataclass(frozen=True)
class Figures:
    """What training saw and left out."""

    tokens: int
    supervised_tokens: int
    truncated_rows: int
    dropped_rows: int
    step: int
    train_loss: float | None
    warnings: tuple[RunWarning, ...] = ()

    @classmethod
    def of(cls, result: TrainingResult) -> "Figures":
        """The figures of a result."""
        return cls(
            tokens=result.tokens,
            supervised_tokens=result.supervised_tokens,
            truncated_rows=result.truncated_rows,
            dropped_rows=result.dropped_rows,
            step=result.step,
            train_loss=result.train_loss,
            warnings=result.warnings,
        )


@dataclass(frozen=True)
class Subject:
    """What a card tells of."""

    plan: TrainingPlan
    type: ArtifactType
    scores: tuple[Score, ...]
    seconds: float
    gpu_seconds: float
    figures: Figures | None
    base: dict[str, str]
    dataset: dict[str, str]
    """What the manifests of the inputs say of where they came from."""
    export: str = ""
    """What was made of the artifact, in a sentence; empty for the artifact itself."""
    artifact: str = ""
    """Digest of the artifact that an export was made of."""
    tags: tuple[str, ...] = ()


def lineage_in(store: Store, reference: StoredReference) -> dict[str, str]:
    """Where an input came from, as `Subject` takes it."""
    return _manifest(store, reference).lineage


def _manifest(store: Store, reference: StoredReference) -> Manifest:
    """Of a directory that this pod has read already; where it has not, the store is asked."""
    directory = store.path(reference)
    return read_manifest(directory) if (directory / MANIFEST_FILE).is_file() else store.check(reference)


def write_card(subject: Subject, directory: Path) -> None:
    """Write README.md into a directory that is going to be published."""
    (directory / CARD_FILE).write_text(model_card(subject), encoding="utf-8")


def model_card(subject: Subject) -> str:
    """The card's text, metadata first."""
    from huggingface_hub import ModelCard

    sections = [
        _introduction(subject),
        _lineage(subject),
        _training(subject),
        _evaluation(subject),
        _cost(subject),
        _limitations(subject),
    ]
    body = "\n\n".join(section for section in sections if section)
    return str(ModelCard(f"---\n{_metadata(subject)}\n---\n\n{body}\n"))


def _metadata(subject: Subject) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    plan = subject.plan
    is_reward = subject.type is ArtifactType.REWARD_MODEL
    results = [
        EvalResult(
            task_type="text-classification" if is_reward else "text-generation",
            dataset_type=_dataset_name(subject),
            dataset_name=_dataset_name(subject),
            dataset_split=plan.evaluation.split,
            dataset_revision=plan.dataset.digest,
            metric_type=score.metric.value,
            metric_value=score.value,
        )
        for score in subject.scores
        if score.system == TUNED
    ]
    data = ModelCardData(
        model_name=plan.name,
        base_model=_hub_name(subject.base),
        base_model_relation="adapter" if subject.type is ArtifactType.ADAPTER and not subject.export else "finetune",
        license=subject.base.get("license"),
        library_name="peft" if subject.type is ArtifactType.ADAPTER and not subject.export else "transformers",
        pipeline_tag="text-classification" if is_reward else "text-generation",
        tags=["finetune-operator", plan.method.value.lower(), *subject.tags],
        eval_results=results or None,
    )
    return data.to_yaml()


def _introduction(subject: Subject) -> str:
    plan = subject.plan
    kind = {
        ArtifactType.ADAPTER: f"A {plan.adapter.variant.value if plan.adapter else 'LoRA'} adapter",
        ArtifactType.MODEL: "A model",
        ArtifactType.REWARD_MODEL: "A reward model, which scores answers and writes none,",
    }[subject.type]
    text = f"# {plan.name}\n\n{kind} of `{_base_name(subject)}`, tuned by {plan.method.value} on "
    text += f"`{_dataset_name(subject)}`."
    return f"{text} {subject.export}".strip()


def _lineage(subject: Subject) -> str:
    plan = subject.plan
    rows = {
        "base model": f"`{_base_name(subject)}`",
        "base revision": f"`{subject.base['revision']}`" if "revision" in subject.base else "",
        "base digest": f"`{plan.base.digest}`",
        "base licence": subject.base.get("license", "not stated by its source"),
        "dataset": f"`{_dataset_name(subject)}`",
        "dataset digest": f"`{plan.dataset.digest}`",
        "dataset source": f"`{subject.dataset['source']}`" if "source" in subject.dataset else "",
        "dataset source revision": f"`{subject.dataset['sourceRevision']}`"
        if "sourceRevision" in subject.dataset
        else "",
        "dataset licence": subject.dataset.get("license", "not stated (`spec.license` of the Dataset)"),
        "dataset attribution": _cell(subject.dataset.get("attribution", "")),
        "models that wrote rows": _teachers(subject.dataset),
        "earlier adapter": f"`{plan.start.digest}`" if plan.start else "",
        "run": f"`{plan.run_key}`",
        "artifact": f"`{subject.artifact}`" if subject.artifact else "",
        "job": f"`{plan.namespace}/{plan.name}`",
        "trainer image": f"`{os.environ[ENV_IMAGE]}`" if os.environ.get(ENV_IMAGE) else "",
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }
    return f"## Lineage\n\n{_table(rows)}{_parts(subject.dataset)}"


def _teachers(dataset: dict[str, str]) -> str:
    """Each model that wrote rows of the dataset, with the terms that its answers are under."""
    teachers = Terms.stored(dataset).teachers
    return "; ".join(f"`{_cell(each.model)}` ({_cell(each.terms or 'terms not stated')})" for each in teachers)


def _parts(dataset: dict[str, str]) -> str:
    """The datasets that a mixture is made of, those of the mixtures in it among them."""
    if PARTS not in dataset:
        return ""
    lines = [
        "",
        "",
        "### Mixed from",
        "",
        "| dataset | digest | source | licence | attribution |",
        "|---|---|---|---|---|",
    ]
    for part in json.loads(dataset[PARTS]):
        source = part.get("source", "")
        cells = [
            part["dataset"],
            part["digest"],
            "a mixture" if source.startswith("mixture:") else source,
            part.get("license", "not stated"),
            part.get("attribution", ""),
        ]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text of a person as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _training(subject: Subject) -> str:
    plan, figures = subject.plan, subject.figures
    settings: dict[str, Any] = {"method": plan.method.value}
    for part in (plan.hyperparameters, plan.adapter, plan.dpo, plan.orpo, plan.simpo, plan.kto):
        if part is not None:
            settings |= part.model_dump(mode="json", by_alias=True)
    for other in (plan.online, plan.distillation):
        if other is not None:
            settings |= json.loads(other.to_json())
    settings["ranks"] = plan.parallelism.ranks
    # What is left to the trainer is unset in the plan, and decides no weight but the length.
    rows = {name: f"`{json.dumps(value)}`" for name, value in settings.items() if value is not None}
    if figures:
        rows |= {
            "optimiser steps": str(figures.step),
            "tokens per epoch": f"{figures.tokens}, of them {figures.supervised_tokens} with loss",
            "rows cut or left out": f"{figures.truncated_rows} cut, of them {figures.dropped_rows} left out",
            "training loss": "" if figures.train_loss is None else f"{figures.train_loss:.4f}",
        }
    return f"## Training\n\n{_table(rows)}"


def _evaluation(subject: Subject) -> str:
    if not subject.scores:
        return "## Evaluation\n\nNothing was measured on held-out rows."
    lines = [
        f"On `{subject.plan.evaluation.split}` rows of the same dataset, never trained on; 95 % bootstrap intervals.",
        "",
        "| metric | system | value | 95 % interval | rows |",
        "|---|---|---|---|---|",
    ]
    for score in subject.scores:
        has_interval = score.low is not None and score.high is not None
        interval = f"{score.low:.4f} to {score.high:.4f}" if has_interval else "none"
        lines.append(f"| {score.metric.value} | {score.system} | {score.value:.4f} | {interval} | {score.rows} |")
    return "## Evaluation\n\n" + "\n".join(lines)


def _cost(subject: Subject) -> str:
    rows = {"wall time": f"{subject.seconds:.0f} s", "GPU time": f"{subject.gpu_seconds:.0f} GPU-seconds"}
    scope = "All attempts of the run." if subject.export else "The attempt that published it, up to then."
    return f"## Cost\n\n{scope}\n\n{_table(rows)}"


def _limitations(subject: Subject) -> str:
    plan, figures = subject.plan, subject.figures
    lines = [
        "The limitations of the base model hold here, too; nothing was done about them.",
        "The evaluation is on rows of the dataset it was trained on: other inputs have not been measured."
        if subject.scores
        else "Nothing is known of its quality but the training loss.",
    ]
    if subject.type is ArtifactType.ADAPTER and not subject.export:
        lines.append(f"It fits the base model with digest `{plan.base.digest}` and no other.")
    if figures and figures.truncated_rows:
        lines.append(f"{figures.truncated_rows} rows were longer than the sequences it was trained on.")
    if plan.method in (Method.GRPO, Method.RLOO):
        lines.append("It was trained on rewards, and may have learnt what raises them without being better.")
    lines += [warning.message for warning in figures.warnings] if figures else []
    return "## Limitations\n\n" + "\n".join(f"- {line}" for line in lines)


def versions() -> dict[str, str]:
    """The libraries that decide the weights, and this project."""
    return {name: importlib.metadata.version(name) for name in ("finetune-operator", *_LIBRARIES)}


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items() if value)])


def _hub_name(lineage: dict[str, str]) -> str | None:
    source = lineage.get("source", "")
    return source.removeprefix(_HUB) if source.startswith(_HUB) else None


def _base_name(subject: Subject) -> str:
    return _hub_name(subject.base) or subject.base.get("source") or subject.plan.base.digest


def _dataset_name(subject: Subject) -> str:
    return subject.dataset.get("name") or subject.plan.dataset.digest
