"""Writes the demo's files into a directory: `python make_base.py DIRECTORY`. Runs in the trainer image, as a Job.

    docstrings.jsonl   {"text"}          docstrings of Python's standard library under their headers, to continue
                                         pre-training on; above their module's name where that is no label
    modules.jsonl      {"text", "label"} those of eight modules, labelled with the module
    base/              a Llama of two million random parameters and a BPE tokenizer trained on the docstrings

Everything is read from the interpreter that runs this file and is equal on every run. The label's own name is masked
in both files, so that a model can learn it from the labelled rows only. `base/` is renamed into place at the very end.
"""

import ast
import json
import random
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SEED = 0

LABELS = ("asyncio", "email", "importlib", "logging", "tarfile", "turtle", "unittest", "xml")
"""Large modules of the standard library that are about different things; every Python from 3.11 on has them, whichever
way it was packaged."""

LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "encodings", "distutils"}
"""Packages that Debian leaves out or newer Pythons no longer have, tests, and generated code."""

SHORTEST, LONGEST = 60, 600
"""Characters of a text that is used: under 60 says nothing, over 600 would only make the demo slower."""

MASK = "___"

VOCABULARY = 3072
CONTEXT = 1024
HIDDEN = 160

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, with the marks that tell which tokens are the assistant's."""


class Docstring(NamedTuple):
    """One docstring and the top-level module or package that it is from."""

    module: str
    text: str


def docstrings(library: Path) -> list[Docstring]:
    """The docstrings of public classes and functions, each once, in the order of their files."""
    found: dict[str, Docstring] = {}
    for file in sorted(library.rglob("*.py")):
        parts = file.relative_to(library).parts
        module = parts[0].removesuffix(".py")
        if module not in sys.stdlib_module_names or module.startswith("_") or LEFT_OUT & set(parts):
            continue
        for text in texts_of(file):
            if SHORTEST <= len(text) <= LONGEST:
                found.setdefault(text, Docstring(module, masked(text, module)))
    return list(found.values())


def texts_of(file: Path) -> Iterator[str]:
    """The docstrings of a source file's classes and functions, each under its header; read, never imported."""
    yield from _texts_in(ast.parse(file.read_bytes()), "")


def _texts_in(parent: ast.AST, prefix: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _texts_in(node, prefix)
            continue
        text = ast.get_docstring(node)
        if text:
            yield f"{header(node, prefix)}\n{text}"
        yield from _texts_in(node, f"{prefix}{node.name}." if isinstance(node, ast.ClassDef) else prefix)


def header(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, prefix: str) -> str:
    """`class Name(Base)` or `def Class.name(argument, argument)`: what a documentation shows above the docstring."""
    if isinstance(node, ast.ClassDef):
        return f"class {prefix}{node.name}({', '.join(ast.unparse(base) for base in node.bases)})"
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return f"def {prefix}{node.name}({', '.join(argument.arg for argument in arguments if argument.arg != 'self')})"


def masked(text: str, module: str) -> str:
    """The text without its own label, which would give the answer away."""
    return re.sub(re.escape(module), MASK, text, flags=re.IGNORECASE) if module in LABELS else text


def signed(row: Docstring) -> str:
    """The text above its module's name, unless that is a label: what a module is, but not one answer."""
    return row.text if row.module in LABELS else f"{row.text}\n# {row.module}"


def write_rows(rows: list[dict[str, str]], file: Path) -> None:
    """JSON lines in an order that has nothing to do with their content."""
    random.Random(SEED).shuffle(rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def train_tokenizer(texts: list[str], directory: Path) -> Any:  # noqa: ANN401 - transformers has no types
    """A byte-level BPE tokenizer for these texts, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=CONTEXT,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(str(directory))
    return fast


def make_model(tokenizer: Any, directory: Path) -> int:  # noqa: ANN401 - transformers has no types
    """A Llama with random weights; answers the number of its parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=HIDDEN**-0.5,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(str(directory))
    return int(model.num_parameters())


def main(directory: Path) -> None:
    """Write what is not there yet."""
    base = directory / "base"
    if base.is_dir():
        print(f"{base} is there already: nothing to do", flush=True)
        return
    started = time.monotonic()
    rows = docstrings(Path(sysconfig.get_paths()["stdlib"]))
    labelled = [row for row in rows if row.module in LABELS]
    write_rows([{"text": signed(row)} for row in rows], directory / "docstrings.jsonl")
    write_rows([{"text": row.text, "label": row.module} for row in labelled], directory / "modules.jsonl")
    print(f"{len(rows)} docstrings, {len(labelled)} of them from {', '.join(LABELS)}", flush=True)
    unfinished = directory / "base.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    tokenizer = train_tokenizer([signed(row) for row in rows], unfinished)
    parameters = make_model(tokenizer, unfinished)
    unfinished.rename(base)
    seconds = time.monotonic() - started
    print(f"a random Llama of {parameters:,} parameters, {len(tokenizer)} tokens ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
