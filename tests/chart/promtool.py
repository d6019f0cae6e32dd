"""promtool for tests, from Debian's prometheus package."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import Manifest
from tools import packages

PROMTOOL = packages.unpacked_folder("prometheus") / "usr" / "bin" / "promtool"

needs_promtool = pytest.mark.skipif(
    not PROMTOOL.exists(), reason="no promtool: `python3 -m tools.packages prometheus` fetches it"
)


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False, timeout=60)


def check_rules(file: Path, groups: list[Manifest]) -> None:
    """Write a file of rules and have promtool read it."""
    file.write_text(yaml.safe_dump({"groups": groups}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
