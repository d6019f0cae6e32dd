"""GGUF files, written by llama.cpp's own converter, which the image carries from a pinned source archive.

It runs as a process of its own: it is a script with modules of its own, and what it says is evidence.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_contract.exporting import Quantization
from finetune_contract.failure import FailureReason, FineTuneError

log = logging.getLogger(__name__)

ENV_CONVERTER = "FINETUNE_GGUF_CONVERTER"
"""Where the converter's scripts are, if not where the image has them."""

_CONVERTER = Path("/opt/finetune/llama.cpp")
_LAST_LINES = 3
"""Of what a converter that failed has said: the exception, and what it is about."""


def write_gguf(model: Path, quantization: Quantization, name: str, file: Path) -> None:
    """A model's directory as one GGUF file.

    Raises:
        FineTuneError: ExportFailed where llama.cpp does not know the architecture or the tokenizer.
    """
    _refuse_code(model)
    with _named(model, name, file.parent) as named:
        _convert("convert_hf_to_gguf.py", quantization, file, [str(named), f"--model-name={name}"])


def write_gguf_adapter(adapter: Path, base: Path, quantization: Quantization, name: str, file: Path) -> None:
    """An adapter's directory as one GGUF file, for the base in GGUF.

    Raises:
        FineTuneError: ExportFailed where llama.cpp does not know the architecture, or not an adapter of that kind.
    """
    _refuse_code(base)
    with _named(adapter, name, file.parent) as named:
        _convert("convert_lora_to_gguf.py", quantization, file, [str(named), f"--base={base}"])


@contextmanager
def _named(directory: Path, name: str, beside: Path) -> Iterator[Path]:
    """The directory under a name of its own: the converter writes what it reads from the name into the file."""
    link = beside / name
    link.symlink_to(directory, target_is_directory=True)
    try:
        yield link
    finally:
        link.unlink()


def _refuse_code(model: Path) -> None:
    """The converter would run a model's own code: the store holds none, and nothing may ask for any."""
    names = [path.name for path in model.glob("*.py")]
    names += [
        name
        for name in ("config.json", "tokenizer_config.json")
        if (model / name).is_file() and "auto_map" in json.loads((model / name).read_text(encoding="utf-8"))
    ]
    if names:
        raise FineTuneError(
            FailureReason.EXPORT_FAILED,
            f"spec.exports: {names[0]} asks for code of the model's own, which is never run; remove the GGUF export",
        )


def _convert(script: str, quantization: Quantization, file: Path, arguments: list[str]) -> None:
    directory = Path(os.environ.get(ENV_CONVERTER, _CONVERTER))
    if not (directory / script).is_file():
        raise FineTuneError(
            FailureReason.CONTRACT_VIOLATION,
            f"{directory / script} is not in this image; use the trainer image of this release",
        )
    command = [sys.executable, str(directory / script), *arguments, f"--outfile={file}"]
    command.append(f"--outtype={quantization.value.lower()}")
    log.info("converting to %s", quantization.value)
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    if done.returncode == 0 and file.is_file():
        return
    log.error("%s", done.stderr)
    if done.returncode < 0:
        raise FineTuneError(FailureReason.HOST_OUT_OF_MEMORY, f"llama.cpp's converter was killed ({done.returncode})")
    if "No space left on device" in done.stderr:
        raise FineTuneError(FailureReason.STORAGE_FULL, "no space is left for the GGUF file")
    said = [line for line in done.stderr.splitlines() if line.strip()][-_LAST_LINES:]
    raise FineTuneError(
        FailureReason.EXPORT_FAILED,
        f"spec.exports: llama.cpp's converter refuses the model: {' '.join(said)}"[:1000],
    )
