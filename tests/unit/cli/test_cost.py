"""What runs have cost, asked of a server on loopback."""

import json

import pytest

from finetune_cli.facts import Object
from tests.unit.cli.apiserver import ApiServer, run
from tests.unit.cli.jobs import make_job


def costly(name: str, namespace: str = "team", **cost: object) -> Object:
    job = make_job(name, cost=cost or None, runs=[{"key": "key", "gpuSeconds": 9}, {"key": "old", "gpuSeconds": 7200}])
    job["metadata"]["namespace"] = namespace
    return job


class TestCost:
    @pytest.fixture(autouse=True)
    def _jobs(self, api: ApiServer) -> None:
        api.add(
            "finetunejobs",
            costly("a", gpuHours=2.5, lostGpuHours=0.5, amount=5.0, currency="EUR"),
            costly("b", gpuHours=1.5, lostGpuHours=0, amount=3.25, currency="EUR"),
            costly("c"),
            costly("d", "other", gpuHours=1, lostGpuHours=0, amount=7, currency="USD"),
        )

    def test_by_job_with_a_total_for_each_currency(self) -> None:
        lines = run("cost").stdout.splitlines()
        assert [line.split() for line in lines] == [
            ["NAME", "KIND", "PHASE", "GPU-HOURS", "LOST", "EARLIER", "RUNS", "COST"],
            ["a", "job", "Training", "2.50", "0.50", "2.00", "5.00", "EUR"],
            ["b", "job", "Training", "1.50", "0.00", "2.00", "3.25", "EUR"],
            ["c", "job", "Training", "0.00", "0.00", "2.00", "-"],
            ["TOTAL", "4.00", "0.50", "4.00", "8.25", "EUR"],
            ["TOTAL", "0.00", "0.00", "2.00", "-"],
        ]

    def test_of_all_namespaces(self) -> None:
        lines = run("cost", "-A").stdout.splitlines()
        assert next(line.split() for line in lines if "TOTAL" in line) == [
            "other", "TOTAL", "1.00", "0.00", "2.00", "7.00", "USD",
        ]  # fmt: skip

    def test_for_scripts(self) -> None:
        found = json.loads(run("cost", "a", "b", "-o", "json").stdout)
        assert found["totals"] == [
            {
                "namespace": "team",
                "currency": "EUR",
                "gpuHours": 4.0,
                "lostGpuHours": 0.5,
                "earlierGpuHours": 4.0,
                "amount": 8.25,
            }
        ]

    def test_names_of_every_namespace_are_wrong_usage(self) -> None:
        assert run("cost", "a", "-A").exit_code == 2
