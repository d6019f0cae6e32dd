"""The rows of a benchmark: printed as a table, written as `{"rows": [{"name", "value", "unit"}]}`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tools.console import say
from tools.paths import LOCAL

FOLDER = LOCAL / "bench"


class Row(NamedTuple):
    """One figure."""

    name: str
    value: float
    unit: str


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` of them do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def report(name: str, rows: Sequence[Row]) -> None:
    """Print the figures and write `.local/bench/<name>.json`."""
    table = Table("figure", "value", "unit")
    for row in rows:
        table.add_row(row.name, f"{row.value:g}", row.unit)
    Console().print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}.json"
    file.write_text(json.dumps({"rows": [row._asdict() for row in rows]}, indent=2) + "\n")
    say(f"  figures in {file.relative_to(LOCAL.parent)}")
