"""The figures of an adapter's update: parts that add up, failures that are counted, a clear word without a cluster."""

from pathlib import Path

import pytest

from tools.bench.serving import update
from tools.bench.serving.steady import Asked
from tools.bench.serving.update import PodTimes


def test_the_parts_are_the_whole_and_failures_are_counted() -> None:
    moments = [(0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 21.0, 28.0), (0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)]
    failed = Asked(1.0, "tuned", 503, "shutting down")
    times = [PodTimes(*each) for each in moments]
    assert sum(times[0].parts.values()) == 28
    rows = {row.name: row.value for row in update._rows([(times[0], [failed]), (times[1], [])])}
    assert (rows["adapter_update_s"], rows["failed_during_update"]) == (18, 1)
    assert (rows["adapter_update_seen_s"], rows["adapter_update_traffic_s"]) == (1.5, 4)


def test_the_runtimes_stamp_of_a_line_is_its_moment() -> None:
    log = "2026-11-21T18:31:28.950123456Z INFO importing\n2026-11-21T18:31:30.25Z INFO loaded /store and 2 adapters\n"
    assert update._moment_of(log, "loaded") - update._moment_of(log, "importing") == pytest.approx(1.299877)


def test_without_a_cluster_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(update, "KUBECONFIG", tmp_path / "none")
    assert update.measure() == []
    assert "failed_during_update: skipped: there is no local cluster" in capsys.readouterr().out
