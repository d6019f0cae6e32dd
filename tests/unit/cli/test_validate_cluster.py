"""`kubectl finetune validate --cluster`: what the files name is looked for."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from finetune_cli import __main__ as cli
from tests import factories
from tests.unit.cli.apiserver import ApiServer

NAMES_MUCH = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: triage}
spec:
  baseModel: {huggingFace: {repo: org/model, tokenSecretRef: {name: hf, key: token}}}
  dataset: {name: tickets}
  evaluation:
    metrics: [Benchmark]
    benchmark: {tasks: [ours], configMap: {name: task}}
  storage: {persistentVolumeClaim: {claimName: made-by-the-operator}}
  podTemplate:
    serviceAccountName: trainer
    imagePullSecrets: [{name: pull}]
    caBundle: {name: ca, key: ca.pem}
    env:
    - {name: A, valueFrom: {secretKeyRef: {name: env, key: a}}}
    - {name: B, valueFrom: {configMapKeyRef: {name: env, key: b}}}
---
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: second}
spec:
  baseModel: {persistentVolumeClaim: {claimName: models, path: base}}
  dataset: {name: tickets}
"""


class TestCluster:
    """`--cluster` against a server on loopback."""

    def run(self, text: str) -> tuple[int, dict[str, str]]:
        """Exit code, and what is said at each path."""
        result = CliRunner().invoke(cli.app, ["validate", "-", "--cluster", "-o", "json"], input=text)
        assert result.stdout, result.stderr
        found = json.loads(result.stdout)["findings"]
        return result.exit_code, {f"{one['subject']} {one['path']}": one["message"] for one in found}

    @pytest.mark.usefixtures("api")
    def test_everything_that_is_named_and_not_there_is_told_with_its_path_and_a_remedy(self) -> None:
        other = "create it, or name another"
        tickets = ("dataset.name", "Dataset 'tickets'", other)
        job = [
            ("baseModel.huggingFace.tokenSecretRef.name", "Secret 'hf'",
             "`kubectl create secret generic hf --from-literal=token=...` makes it"),
            tickets,
            ("evaluation.benchmark.configMap.name", "ConfigMap 'task'", other),
            ("podTemplate.serviceAccountName", "ServiceAccount 'trainer'", other),
            ("podTemplate.imagePullSecrets[0].name", "Secret 'pull'", other),
            ("podTemplate.caBundle.name", "ConfigMap 'ca'",
             "`kubectl create configmap ca --from-file=ca.pem=FILE` makes it"),
            ("podTemplate.env[0].valueFrom.secretKeyRef.name", "Secret 'env'",
             "`kubectl create secret generic env --from-literal=a=...` makes it"),
            ("podTemplate.env[1].valueFrom.configMapKeyRef.name", "ConfigMap 'env'",
             "`kubectl create configmap env --from-file=b=FILE` makes it"),
        ]  # fmt: skip
        second = [("baseModel.persistentVolumeClaim.claimName", "PersistentVolumeClaim 'models'", other), tickets]
        assert self.run(NAMES_MUCH) == (
            1,
            {
                f"FineTuneJob/{name} spec.{path}": f"{what} is in none of these files, nor in the cluster; {remedy}"
                for name, expected in (("triage", job), ("second", second))
                for path, what, remedy in expected
            },
        )

    def test_what_is_there_is_no_finding_and_a_missing_key_is(self, api: ApiServer) -> None:
        api.add("datasets", {**factories.make_dataset(), "metadata": {"name": "tickets"}})
        for plural, name, data in (
            ("secrets", "hf", {"TOKEN": "", "other": ""}), ("secrets", "pull", {}), ("secrets", "env", {"a": ""}),
            ("configmaps", "task", {}), ("configmaps", "ca", {"ca.pem": ""}), ("configmaps", "env", {"b": ""}),
            ("serviceaccounts", "trainer", {}), ("persistentvolumeclaims", "models", {}),
        ):  # fmt: skip
            api.add_native(plural, name, data=data)
        assert self.run(NAMES_MUCH) == (
            1,
            {
                "FineTuneJob/triage spec.baseModel.huggingFace.tokenSecretRef.key":
                    "Secret 'hf' has no key 'token'; it has TOKEN, other",
            },
        )  # fmt: skip

    def test_what_the_files_hold_is_not_asked_for(self, api: ApiServer) -> None:
        job = factories.make_job(baseModel={"persistentVolumeClaim": {"claimName": "models", "path": "base"}})
        bare = [{**one, "metadata": {"name": one["metadata"]["name"]}} for one in (job, factories.make_dataset())]
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}}
        code, said = self.run(yaml.safe_dump_all([*bare, claim]))
        assert (code, [words for words in said.values() if "passed over" not in words]) == (0, [])
        assert api.asked == []

    def test_what_one_may_not_look_at_is_a_note(self, api: ApiServer) -> None:
        api.refusal = (403, "secrets is forbidden")
        code, said = self.run(NAMES_MUCH)
        assert code == 0
        assert (
            "Secret 'hf' was not checked: you may not get secrets in namespace team; ask whoever runs the cluster"
            in (said["FineTuneJob/triage spec.baseModel.huggingFace.tokenSecretRef.name"])
        )
