"""Every command, flag, file and metric that the documentation names exists; its Python compiles."""

import importlib.util
import re
import shlex
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import typer
import yaml

from finetune_cli.__main__ import app
from tests.documents import PAGES, ROOT, Word, blocks, command_lines, words
from tools.metrics_page import catalogue, name_of

MAKE_TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
TYPED = [word._replace(text=re.sub(r"^(\w+=\S+ )+", "", word.text)) for word in command_lines()]
RESOURCES = re.compile(
    r"datasets?|dset|finetunejobs?|ftj|modeldeployments?|mdep|batchinferences?|binf|yaml"
    r"|events|pods|pvc|apiservices|namespaces?|jobs|crds?|nodes?|secrets?|lease|resourcequota|configmaps?"
)
FOREIGN_FLAGS = {"--lora", "--gpu-memory-utilization", "--cuda-graphs"}
"""Of llama.cpp, vLLM and TGI."""
OF_PROMETHEUS = {"finetune_dev_name", "finetune_dev_role"}
"""What our labels are called on what it scrapes."""
OF_OUR_SOURCES = [*(ROOT / "operator/src").rglob("*.py"), *(ROOT / "trainer-image/src").rglob("*.py")]


def starting(*words_: str) -> list[Word]:
    return [word for word in TYPED if word.text.split()[: len(words_)] == list(words_)]


def test_make_targets_exist() -> None:
    found = starting("make")
    assert len(found) > 20
    named = {(word.place, target) for word in found for target in word.text.split("#")[0].split()[1:]}
    assert {item for item in named if "=" not in item[1] and item[1] not in MAKE_TARGETS} == set()


@cache
def plugin() -> dict[str, set[str]]:
    """Flags of each subcommand of `kubectl finetune`."""
    group = typer.main.get_command(app)
    return {
        name: {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {"--help"}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }


@pytest.mark.parametrize("word", [pytest.param(word, id=word.place) for word in starting("kubectl", "finetune")])
def test_kubectl_finetune_has_the_command_and_its_flags(word: Word) -> None:
    text = word.text.split(" # ")[0]
    for name in re.split(r"[|,]", (text.split()[2:] or ["status"])[0]):
        if name.startswith("-") or not name.isalpha() or name.isupper():
            continue
        assert name in plugin(), f"{word.place}: {text}"
        flags = {part.split("=")[0] for part in text.split()[3:] if re.match(r"--?[a-z]", part)}
        assert flags <= plugin()[name], f"{word.place}: {text}"


def test_resources_that_kubectl_is_asked_for_exist() -> None:
    verbs = {"get", "describe", "explain", "patch", "delete", "edit", "annotate", "label"}
    asked = [
        (word.place, resource.split(".")[0].split("/")[0])
        for word in starting("kubectl")
        for verb, *rest in [[part for part in word.text.split()[1:] if not part.startswith("-")] or [""]]
        if verb in verbs and rest and not re.search(r"[A-Z{]", rest[0])
        for resource in rest[0].split(",")
    ]
    assert len(asked) > 10
    assert {item for item in asked if not RESOURCES.fullmatch(item[1])} == set()


def test_modules_that_python_runs_exist() -> None:
    modules = {found[1] for word in TYPED if (found := re.search(r"python3? -m ([\w.]+)", word.text))}
    assert modules
    assert {name for name in modules if importlib.util.find_spec(name) is None} == set()


def test_flags_in_sentences_exist() -> None:
    known = {flag for flags in plugin().values() for flag in flags} | FOREIGN_FLAGS
    sources = "".join(file.read_text() for folder in ("tests", "tools") for file in (ROOT / folder).rglob("*.py"))
    named = {(word.place, flag) for word in words() for flag in re.findall(r"^--[a-z][\w-]+", word.text)}
    assert {item for item in named if item[1] not in known and f'"{item[1]}"' not in sources} == set()


def test_files_that_pages_name_exist() -> None:
    top = {item.name for item in ROOT.iterdir() if item.is_dir() and item.name not in {".git", ".venv", ".local"}}
    named = {
        (word.place, part.rstrip(".,:"))
        for word in TYPED
        for part in word.text.split("#")[0].split()
        if part.split("/")[0] in top and "/" in part and not re.search(r"[<>*{$]|\.\.\.", part)
    }
    assert len(named) > 5
    assert {(place, path) for place, path in named if not (ROOT / path.split("::")[0]).exists()} == set()


def test_links_of_pages_outside_the_site_lead_somewhere() -> None:
    """The site's own links are checked when it is built."""
    dead = set()
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text()):
            path, _, anchor = target.partition("#")
            if target.startswith(("http://", "https://")):
                continue
            if not (ROOT / path).exists() or (anchor and anchor not in anchors(ROOT / path)):
                dead.add((name, target))
    assert dead == set()


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_metrics_and_variables_that_pages_name_exist() -> None:
    sources = "".join(file.read_text() for file in OF_OUR_SOURCES)
    metrics = {name_of(metric) for some in catalogue().values() for metric in some} | OF_PROMETHEUS
    packages = {folder.name for folder in (*(ROOT / "operator/src").iterdir(), *(ROOT / "trainer-image/src").iterdir())}
    named = {(word.place, name) for word in words() for name in re.findall(r"\bfinetune_[a-z_]+\b(?![./])", word.text)}
    unknown = {
        (place, name)
        for place, name in named
        if name not in metrics | packages
        # The library adds the suffix of a counter; Prometheus makes finetune_dev_role of our label finetune.dev/role.
        and name.removesuffix("_total") not in sources
        and name.replace("finetune_dev_", "finetune.dev/") not in sources
    }
    assert unknown == set()


def test_chart_values_that_helm_is_given_exist() -> None:
    values = yaml.safe_load((ROOT / "charts/finetune-operator/values.yaml").read_text())
    unknown = set()
    for word in starting("helm"):
        parts = shlex.split(word.text.split(" # ")[0])
        for flag, setting in pairwise(parts):
            if flag in {"--set", "--set-string", "--set-json"}:
                found = values
                for name in re.split(r"\.(?![^{]*})", setting.split("=")[0]):
                    if not isinstance(found, dict) or name not in found:
                        unknown.add((word.place, setting))
                        break
                    found = found[name]
    assert unknown == set()


@pytest.mark.parametrize("block", [pytest.param(block, id=block.place) for block in blocks("python")])
def test_python_compiles(block: Word) -> None:
    compile(block.text, block.place, "exec")


def test_blocks_are_in_languages_that_tests_look_at_or_that_say_nothing_to_check() -> None:
    looked_at = {"yaml", "console", "python", ""}
    shown = {"json", "promql", "text"}
    found = re.findall(r"^ *```(\w+)", "".join(page.read_text() for page in PAGES), re.MULTILINE)
    assert len(found) > 50
    assert set(found) <= looked_at | shown
