"""Which test files begin when pytest-xdist's workers take whole files, one after another.

By itself xdist begins with the files of the most tests, which says nothing about how long they take.
"""

from collections.abc import Sequence

import pytest


def put_first(items: list[pytest.Item], files: Sequence[str]) -> None:
    """Sort tests in place: those of `files` (`cluster/test_demo.py`) in that order, then the others as they were."""
    turns = {name: turn for turn, name in enumerate(files)}
    items.sort(key=lambda item: turns.get("/".join(item.path.parts[-2:]), len(turns)))
