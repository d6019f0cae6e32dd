"""Chooses the cases, runs them in the laboratory, and tells at the end how many there were."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.faults.laboratory import Case, Laboratory, cases_at_once

SUBSET_SHARE = 0.08
"""Of each group, at least one case."""
_LABORATORY = pytest.StashKey[Laboratory]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--faults", choices=("subset", "all"), default="subset", help="which fault cases to run")
    group.addoption("--faults-seed", type=int, default=0, help="chooses the subset")
    group.addoption("--faults-record", metavar="VERSION", help="record this version's objects for later upgrades")
    group.addoption("--faults-at-once", type=int, default=cases_at_once(), help="cases that run at the same time")


def case_of(item: pytest.Item) -> Case | None:
    found = getattr(item, "callspec", None)
    case = found.params.get("case") if found else None
    return case if isinstance(case, Case) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Unless all are asked for (or some by name), keep a seeded sample of each group."""
    for item in filter(case_of, items):
        # Connections that the proxy has cut are collected during whatever test waits just then.
        item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))
    if config.getoption("faults", "subset") == "all" or config.getoption("keyword"):
        return
    groups: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if case := case_of(item):
            groups[case.group].append(item)
    chance = random.Random(config.getoption("faults_seed", 0))
    dropped: set[pytest.Item] = set()
    for name in sorted(groups):
        kept = chance.sample(groups[name], max(1, round(SUBSET_SHARE * len(groups[name]))))
        dropped |= set(groups[name]) - set(kept)
    config.hook.pytest_deselected(items=list(dropped))
    items[:] = [item for item in items if item not in dropped]


@pytest.fixture(scope="session")
def laboratory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    config = request.config
    at_once = config.getoption("faults_at_once", cases_at_once())
    found = Laboratory(tmp_path_factory.mktemp("faults"), at_once)
    config.stash[_LABORATORY] = found
    try:
        found.begin([case for item in request.session.items if (case := case_of(item))])
        yield found
    finally:
        found.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(_LABORATORY, None)
    if found is not None:
        tally = found.tally
        terminalreporter.write_line(
            f"faults: {tally.cases} cases, {tally.injected} faults injected, "
            f"{tally.starts} operator starts, {tally.seconds:.0f} s"
        )
