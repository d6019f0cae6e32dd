"""What we rely on in Kopf, and what we tell it."""

import itertools

import kopf
import pytest

from finetune_operator.cluster import CHILD_KINDS, OWN_KINDS, RESOURCES
from finetune_operator.handlers import EndlessBackoffs, build_registry, configure, connection
from finetune_operator.reconcile.kinds import KINDS
from finetune_operator.settings import Settings


def test_every_kind_is_watched_and_nothing_else() -> None:
    registry = build_registry(lambda *_: None, Settings())
    selectors = registry._watching.get_all_selectors()
    watched = {(selector.group, selector.version, selector.any_name) for selector in selectors}
    expected = {
        (*RESOURCES[kind].api_version.rpartition("/")[::2], RESOURCES[kind].plural)
        for kind in (*OWN_KINDS, *CHILD_KINDS)
    }
    assert watched == expected


def test_kopf_decides_nothing() -> None:
    registry = build_registry(lambda *_: None, Settings())
    for kind in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert kind.get_all_handlers() == []


def test_our_kinds_are_those_that_are_reconciled() -> None:
    assert set(KINDS) == set(OWN_KINDS)
    assert {kind.plural for kind in KINDS.values()} == {RESOURCES[kind].plural for kind in OWN_KINDS}


def test_kopf_writes_nothing_and_children_are_selected_on_the_server() -> None:
    settings = kopf.OperatorSettings()
    configure(settings, Settings())
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.watching.label_selectors["batch", "v1", "jobs"] == "app.kubernetes.io/managed-by=finetune-operator"
    assert settings.watching.label_selectors["", "v1", "pods"] == "app.kubernetes.io/managed-by=finetune-operator"


def test_a_watch_that_is_silently_dead_is_noticed_within_three_minutes() -> None:
    settings = kopf.OperatorSettings()
    configure(settings, Settings())
    # Bookmarks come once a minute, so a shorter time would open healthy watches anew.
    assert 60 < settings.watching.inactivity_timeout < 170


def test_back_offs_are_settings() -> None:
    settings = kopf.OperatorSettings()
    configure(settings, Settings(outage_retry_seconds=0.5))
    backoffs = settings.networking.error_backoffs
    assert isinstance(backoffs, EndlessBackoffs)
    assert max(itertools.islice(backoffs, 100)) <= 0.5


def test_kopf_never_gives_up() -> None:
    backoffs = EndlessBackoffs(30)
    first = list(itertools.islice(backoffs, 1000))
    assert all(0 < seconds <= 30 for seconds in first)
    assert len(list(itertools.islice(backoffs, 3))) == 3, "each request begins anew"


def test_without_credentials_there_is_a_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(ValueError, match="KUBECONFIG"):
        connection()
