"""Argo CD's health checks and actions, run by Lua 5.1 with the libraries that Argo CD gives them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import lua51

from tests import schemas
from tests.factories import Object
from tests.unit.gitops.states import FOLDER, STATES, State, message, resource
from tools import argocd

KINDS = sorted(STATES)
ABSENT = ("string", "math", "io", "debug", "coroutine", "python", "dofile", "loadfile")
"""What Argo CD's sandbox lacks (its `os` has only time functions)."""


def run(script: str, found: Object) -> Any:
    """What a script answers about an object, in Python's types."""
    lua = lua51.LuaRuntime(register_eval=False, register_builtins=False)
    for name in ABSENT:
        lua.globals()[name] = None
    lua.globals()["obj"] = _to_lua(lua, found)
    return _from_lua(lua.execute(script), found)


def _to_lua(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({name: _to_lua(lua, item) for name, item in value.items()})
    return lua.table_from([_to_lua(lua, item) for item in value]) if isinstance(value, list) else value


def _from_lua(value: Any, before: Any = None) -> Any:
    """As Argo CD does: a table that was empty before stays of the type it had."""
    if lua51.lua_type(value) != "table":
        return int(value) if isinstance(value, float) and value.is_integer() else value
    items = dict(value.items())
    if not items:
        return {} if isinstance(before, dict) else []
    if set(items) == set(range(1, len(items) + 1)):
        listed = before if isinstance(before, list) else []
        return [_from_lua(items[at], listed[at - 1] if at <= len(listed) else None) for at in sorted(items)]
    named = before if isinstance(before, dict) else {}
    return {name: _from_lua(item, named.get(name)) for name, item in items.items()}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def health(kind: str, found: Object) -> Any:
    return run((FOLDER / kind / "health.lua").read_text(), found)


def actions(kind: str, found: Object) -> dict[str, Any]:
    answer = run((FOLDER / kind / "actions/discovery.lua").read_text(), found)
    assert isinstance(answer, dict)
    return answer


ALL_STATES = [pytest.param(kind, state, id=f"{kind} {state.name}") for kind in KINDS for state in STATES[kind]]


@pytest.mark.parametrize(("kind", "state"), ALL_STATES)
def test_what_the_operator_writes_today_has_the_right_health(kind: str, state: State) -> None:
    found = resource(state)
    assert health(kind, found) == {"status": state.health, "message": message(found)}


KSTATUS = {"Healthy": "Current", "Degraded": "Failed", "Progressing": "InProgress", "Suspended": "InProgress"}


def kstatus(found: Object) -> str:
    """What Flux sees, by the rules of kstatus for kinds that it does not know."""
    status = found.get("status") or {}
    if status.get("observedGeneration") != found["metadata"]["generation"]:
        return "InProgress"
    says = {item["type"]: item["status"] for item in status["conditions"]}
    if says.get("Reconciling") == "True":
        return "InProgress"
    if says.get("Stalled") == "True":
        return "Failed"
    return "Current" if says["Ready"] == "True" else "InProgress"


@pytest.mark.parametrize(("kind", "state"), ALL_STATES)
def test_flux_sees_the_same_but_for_what_is_paused(kind: str, state: State) -> None:
    assert kstatus(resource(state)) == KSTATUS[state.health]


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_health_tests_pass(kind: str) -> None:
    tests = read(FOLDER / kind / "health_test.yaml")["tests"]
    assert {item["inputPath"] for item in tests} == {f"testdata/{state.name}.yaml" for state in STATES[kind]}
    for item in tests:
        assert health(kind, read(FOLDER / kind / item["inputPath"])) == item["healthStatus"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_action_tests_pass(kind: str) -> None:
    folder = FOLDER / kind / "actions"
    tests = read(folder / "action_test.yaml")
    for item in tests["discoveryTests"]:
        wanted = {entry["name"]: {k: v for k, v in entry.items() if k != "name"} for entry in item["result"]}
        assert actions(kind, read(folder / item["inputPath"])) == wanted
    for item in tests["actionTests"]:
        script = (folder / item["action"] / "action.lua").read_text()
        assert run(script, read(folder / item["inputPath"])) == read(folder / item["expectedOutputPath"])
    scripts = {file.parent.name for file in folder.glob("*/action.lua")}
    assert {item["action"] for item in tests["actionTests"]} == scripts
    assert set(actions(kind, read(folder / tests["discoveryTests"][0]["inputPath"]))) == scripts


@pytest.mark.parametrize(("kind", "state"), ALL_STATES)
def test_every_action_leaves_a_valid_object_with_all_else_as_it_was(kind: str, state: State) -> None:
    found = resource(state)
    for name in actions(kind, found):
        changed = run((FOLDER / kind / "actions" / name / "action.lua").read_text(), found)
        assert schemas.complaints(kind, changed["spec"], "spec") == []
        assert {**changed, "spec": None} == {**found, "spec": None}
        assert set(changed["spec"]) - set(found["spec"]) <= {"rerun", "suspend"}


def test_an_action_that_was_used_before_still_changes_something() -> None:
    found = resource(STATES["Dataset"][2])
    script = (FOLDER / "Dataset/actions/rerun/action.lua").read_text()
    once = run(script, found)
    once["metadata"]["generation"] += 1
    assert run(script, once)["spec"]["rerun"] != once["spec"]["rerun"]


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("testdata/*.yaml")), ids=lambda path: path.name)
def test_testdata_are_objects_that_the_api_server_would_keep(path: Path) -> None:
    found = read(path)
    assert schemas.complaints(found["kind"], found) == []


def test_one_health_check_for_all_kinds() -> None:
    assert len({(FOLDER / kind / "health.lua").read_text() for kind in KINDS}) == 1


def test_the_sandbox_lacks_what_argo_cd_lacks() -> None:
    with pytest.raises(lua51.LuaError, match="global 'string'"):
        run('return string.format("%d", 1)', {})


def test_the_patch_for_argocd_cm_has_the_same_scripts() -> None:
    assert argocd.PATCH.read_text() == argocd.patch(), "run `make generate`"
    data = read(argocd.PATCH)["data"]
    for kind in KINDS:
        assert data[f"resource.customizations.health.finetune.dev_{kind}"] == (FOLDER / kind / "health.lua").read_text()
        written = yaml.safe_load(data[f"resource.customizations.actions.finetune.dev_{kind}"])
        for entry in written["definitions"]:
            assert entry["action.lua"] == (FOLDER / kind / "actions" / entry["name"] / "action.lua").read_text()
