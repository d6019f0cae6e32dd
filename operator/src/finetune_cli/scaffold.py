"""The three YAMLs that `init` writes: answers in, texts out, every field with its description. Pure."""

import json
import re
import textwrap
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from finetune_cli.facts import Object
from finetune_cli.kinds import GROUP, VERSION
from finetune_cli.offline.crd_schemas import schemas
from finetune_cli.offline.documents import UnreadableError, read
from finetune_cli.offline.schema import Schema

WIDTH = 110
"""Where comments are wrapped."""

FILES = {"Dataset": "1-dataset.yaml", "FineTuneJob": "2-job.yaml", "ModelDeployment": "3-deployment.yaml"}
"""Named so that `kubectl apply -f FOLDER` goes in this order."""

MOST_INLINE_BYTES = 100 * 1024
"""A local file that is smaller stands in the Dataset itself (the CRD allows 128 KiB)."""


class Method(StrEnum):
    """The methods that need no settings of their own to start with; docs/user-guides/training.md."""

    SFT = "SFT"
    CPT = "CPT"
    DPO = "DPO"
    KTO = "KTO"
    GRPO = "GRPO"


ROWS = {
    Method.SFT: "questions and good answers",
    Method.CPT: "plain text of your field",
    Method.DPO: "two answers to a prompt, one better",
    Method.KTO: "answers marked good or bad",
    Method.GRPO: "prompts, and a rule that tells good answers",
}
"""What one has, and should take the method for."""

_STARTS: dict[Method, Object] = {
    Method.SFT: {"adapter": {"type": "LoRA", "rank": 16, "alpha": 32}, "epochs": 3, "metrics": ["EvalLoss"]},
    Method.CPT: {"adapter": {"type": "LoRA", "rank": 64, "alpha": 128}, "epochs": 1, "metrics": ["EvalLoss"]},
    Method.DPO: {
        "adapter": {"type": "LoRA", "rank": 16, "alpha": 32},
        "epochs": 1,
        "metrics": ["EvalLoss", "PreferenceAccuracy"],
        "dpo": {"beta": 0.1},
    },
    Method.KTO: {
        "adapter": {"type": "LoRA", "rank": 16, "alpha": 32},
        "epochs": 1,
        "metrics": ["EvalLoss"],
        "kto": {"beta": 0.1},
    },
    Method.GRPO: {
        "adapter": {"type": "LoRA", "rank": 16, "alpha": 32},
        "epochs": 1,
        "metrics": ["MeanReward"],
        "grpo": {"generations": 8, "rewards": [{"exactMatch": {}}]},
    },
}
_SETTINGS = ("dpo", "kto", "grpo")


@dataclass(frozen=True)
class Answers:
    """What is asked."""

    name: str
    data: Object
    """`spec.source` of the Dataset."""
    base: Object
    """`spec.baseModel` of the job."""
    method: Method = Method.SFT
    gpus: int = 1
    queue: str | None = None


def files(answers: Answers) -> dict[str, str]:
    """File name -> YAML."""
    return {FILES[one["kind"]]: _text(one) for one in (_dataset(answers), _job(answers), _deployment(answers))}


def json_lines(content: bytes) -> str:
    """The rows of a file, as they may stand in a Dataset.

    Raises:
        ValueError: it is no file of JSON lines; the message names the line.
    """
    lines = [line for line in content.decode("utf-8-sig").split("\n") if line.strip()]
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"row {number} is no JSON") from error
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is no JSON object")  # noqa: TRY004 - a file's content, not a caller's type
    if not lines:
        raise ValueError("it has no rows")
    return "".join(f"{line.strip()}\n" for line in lines)


def data_source(words: str, token: Object | None = None) -> Object:
    """`spec.source` for an address or a repository of the Hub.

    Raises:
        ValueError: it is none of them; the message tells what there is.
    """
    if found := re.fullmatch(r"configmap://([^/]+)/(.+)", words):
        return {"configMap": {"name": found[1], "key": found[2]}}
    if re.match(r"https?://", words):
        return {"http": {"urls": [words]}}
    return _stored(words, token, "a local file of JSON lines, an https:// or configmap:// address")


def base_model(words: str, token: Object | None = None) -> Object:
    """`spec.baseModel` for an address, a repository of the Hub, or `job:NAME`.

    Raises:
        ValueError: it is none of them.
    """
    if words.startswith("job:"):
        return {"fineTuneJob": {"name": words.removeprefix("job:")}}
    return _stored(words, token, "job:NAME")


def _stored(words: str, token: Object | None, others: str) -> Object:
    if found := re.fullmatch(r"pvc://([^/]+)(?:/(.*))?", words):
        return {"persistentVolumeClaim": {"claimName": found[1], "path": found[2] or "."}}
    if words.startswith("s3://"):
        return {"s3": {"uri": words}}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", words, re.ASCII):
        return {"huggingFace": {"repo": words, **({"tokenSecretRef": token} if token else {})}}
    raise ValueError(
        f"{words!r} is neither {others}, pvc://CLAIM/PATH, s3://BUCKET/PREFIX nor a Hub repository ORG/NAME"
    )


def _resource(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _dataset(answers: Answers) -> Object:
    spec = {
        "source": answers.data,
        "format": "Auto",
        "prepare": {"deduplicate": {"exact": True}},
        "split": {"test": 0.1},
    }
    return _resource("Dataset", f"{answers.name}-data", spec)


def _job(answers: Answers) -> Object:
    start = _STARTS[answers.method]
    metrics = start["metrics"]
    spec = {
        "baseModel": answers.base,
        "dataset": {"name": f"{answers.name}-data"},
        "method": answers.method.value,
        **{name: start[name] for name in _SETTINGS if name in start},
        "adapter": start["adapter"],
        "hyperparameters": {"epochs": start["epochs"], "globalBatchSize": 16, "maxLength": "Auto"},
        "evaluation": {"metrics": metrics, "baselines": ["ZeroShot"]},
        "gate": {"rules": [{"metric": metrics[-1], "betterThan": "ZeroShot"}]},
        "checkpoints": {"intervalMinutes": 10},
        **({"scheduling": {"queueName": answers.queue}} if answers.queue else {}),
        **({"resources": {"limits": {"nvidia.com/gpu": answers.gpus}}} if answers.gpus else {}),
    }
    return _resource("FineTuneJob", answers.name, spec)


def _deployment(answers: Answers) -> Object:
    spec = {
        "adapters": [{"name": answers.name, "fineTuneJob": {"name": answers.name}}],
        "replicas": 1,
        **({"resources": {"limits": {"nvidia.com/gpu": 1}}} if answers.gpus else {}),
    }
    return _resource("ModelDeployment", f"{answers.name}-serving", spec)


def _text(resource: Object) -> str:
    schema = schemas()[resource["kind"]]
    head = [
        f"# {schema['description']} Every field: `kubectl explain {resource['kind'].lower()}.spec`.",
        f"apiVersion: {resource['apiVersion']}",
        f"kind: {resource['kind']}",
        "metadata:",
        f"  name: {_scalar(resource['metadata']['name'])}",
        "spec:",
    ]
    return "\n".join([*head, *_block(resource["spec"], schema["properties"]["spec"], 2)]) + "\n"


def _block(value: Object, schema: Schema, indent: int) -> list[str]:
    """Lines of a mapping, each field under its description."""
    lines = []
    margin = " " * indent
    for key, child in value.items():
        below = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
        prefix = f"{margin}# "
        lines += textwrap.wrap(below.get("description", ""), WIDTH, initial_indent=prefix, subsequent_indent=prefix)
        if isinstance(child, dict) and child:
            lines += [f"{margin}{key}:", *_block(child, below, indent + 2)]
        elif isinstance(child, str) and child.endswith("\n") and _is_plain(child):
            lines += [f"{margin}{key}: |", *(f"{margin}  {line}" for line in child.removesuffix("\n").split("\n"))]
        elif isinstance(child, list) and any(isinstance(item, dict) for item in child):
            lines += [f"{margin}{key}:", *(f"{margin}  - {_flow(item)}" for item in child)]
        else:
            lines.append(f"{margin}{key}: {_flow(child)}")
    return lines


def _is_plain(text: str) -> bool:
    """Whether a block of YAML can hold the text as it is."""
    return all(char.isprintable() or char in "\n\t" for char in text)


def _flow(value: Any) -> str:  # noqa: ANN401 - what YAML holds
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:  # noqa: ANN401
    """As plain as kubectl's YAML and ours read it, else in quotes."""
    plain = yaml.safe_dump(value, width=10**6, default_flow_style=True).removesuffix("...\n").strip()
    try:
        [document] = read(f"[{plain}]", "")
    except (UnreadableError, ValueError):
        return json.dumps(value)
    return plain if document.value == [value] else json.dumps(value)
