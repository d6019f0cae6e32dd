"""Bad input of the worst kind: what the API server refuses, with the field's path, and what it takes (NAMED).

NAMED tells, too, in which reasons of a condition each may end.
"""

import json
from typing import Any

from tests.cluster.kube import Object
from tests.cluster.objects import resource

MEGABYTE = "x" * 1_000_000
GOOD_ROWS = "\n".join(json.dumps({"prompt": f"{n} and one?", "completion": f"{n + 1}"}) for n in range(20))


def rows(text: str = GOOD_ROWS, **spec: Any) -> Object:
    return resource("Dataset", "rows", {"source": {"inline": {"jsonl": text}}, **spec})


def source(**source: Any) -> Object:
    return resource("Dataset", "rows", {"source": source})


def volume(path: Any) -> Object:
    return source(persistentVolumeClaim={"claimName": "finetune-artifacts", "path": path})


def job(base: Any = None, **spec: Any) -> Object:
    base = base or {"huggingFace": {"repo": "org/model"}}
    return resource("FineTuneJob", "job", {"baseModel": base, "dataset": {"name": "good"}, **spec})


def after(name: str) -> Object:
    return job({"fineTuneJob": {"name": name}})


def serving(*adapters: Any, **spec: Any) -> Object:
    return resource("ModelDeployment", "serving", {"adapters": list(adapters), **spec})


def adapter(name: Any, job_name: Any = "nobody") -> Object:
    return {"name": name, "fineTuneJob": {"name": job_name}}


def named(name: Any, item: Object) -> Object:
    return {**item, "metadata": {"name": name}}


REFUSED: dict[str, tuple[Object, str]] = {
    "a spec that is a list": ({**job(), "spec": []}, "spec"),
    "a spec that is text": ({**rows(), "spec": "drop table"}, "spec"),
    "a source that is a list": (resource("Dataset", "rows", {"source": [{"inline": {}}]}), "spec.source"),
    "rows as an object": (source(inline={"jsonl": {"prompt": "a"}}), "spec.source.inline.jsonl"),
    "null rows": (source(inline={"jsonl": None}), "spec.source.inline.jsonl"),
    "inline of 1 MB": (rows(MEGABYTE), "spec.source.inline.jsonl"),
    "a name of 1 MB": (job(dataset={"name": MEGABYTE}), "spec.dataset.name"),
    "a token of 1 MB": (rows(rerun=MEGABYTE), "spec.rerun"),
    "4 MB": (rows(rerun="x" * 4_000_000), "too large"),
    "a thousand addresses": (source(http={"urls": ["http://localhost/a"] * 1000}), "spec.source.http.urls"),
    "a thousand columns": (rows(columns={f"c{n}": "x" for n in range(1000)}), "spec.columns"),
    "a thousand tolerations": (job(scheduling={"tolerations": [{"key": "a"}] * 1000}), "spec.scheduling.tolerations"),
    "a thousand adapters": (serving(*(adapter(f"a{n}") for n in range(1000))), "spec.adapters"),
    "a deep object": (rows(columns={"a": {"b": {"c": {"d": "e"}}}}), "spec.columns"),
    "a path upwards": (volume("../../etc/passwd"), "persistentVolumeClaim.path"),
    "a path upwards in the middle": (volume("a/../../../etc/passwd"), "persistentVolumeClaim.path"),
    "an absolute path": (volume("/etc/passwd"), "persistentVolumeClaim.path"),
    "a path with a null byte": (volume("a\0b"), "persistentVolumeClaim.path"),
    "a path as a number": (volume(7), "persistentVolumeClaim.path"),
    "a key upwards": (source(configMap={"name": "rows", "key": "../../etc/passwd"}), "spec.source.configMap.key"),
    "a config map upwards": (source(configMap={"name": "../rows", "key": "a"}), "spec.source.configMap.name"),
    "a config map elsewhere": (source(configMap={"name": "kube-system/x", "key": "a"}), "spec.source.configMap.name"),
    "a namespace beside the name": (
        source(configMap={"name": "a", "key": "b", "namespace": "kube-system"}), "spec.source.configMap.namespace",
    ),
    "a dataset elsewhere": (job(dataset={"name": "other/good"}), "spec.dataset.name"),
    "a dataset's namespace": (job(dataset={"name": "good", "namespace": "other"}), "spec.dataset.namespace"),
    "a job elsewhere": (after("other/job"), "spec.baseModel.fineTuneJob.name"),
    "an adapter elsewhere": (serving(adapter("a", "other/job")), "fineTuneJob.name"),
    "a Secret elsewhere": (
        job({"huggingFace": {"repo": "a/b", "tokenSecretRef": {"name": "kube-system/token", "key": "a"}}}),
        "tokenSecretRef.name",
    ),
    "a file as an address": (source(http={"urls": ["file:///etc/passwd"]}), "spec.source.http.urls[0]"),
    "a script as an address": (source(http={"urls": ["javascript:alert(1)"]}), "spec.source.http.urls[0]"),
    "an address with a line break": (source(http={"urls": ["http://a\nHost: b"]}), "spec.source.http.urls[0]"),
    "a bucket upwards": (job({"s3": {"uri": "s3://../../bucket"}}), "spec.baseModel.s3.uri"),
    "a repository upwards": (job({"huggingFace": {"repo": "../../root"}}), "spec.baseModel.huggingFace.repo"),
    "a repository as an address": (job({"huggingFace": {"repo": "http://a/b"}}), "spec.baseModel.huggingFace.repo"),
    "a Cyrillic name": (named("d\u0430taset", rows()), "metadata.name"),
    "an emoji as a name": (named("\U0001f600", rows()), "metadata.name"),
    "a name upwards": (named("../rows", rows()), "metadata.name"),
    "an adapter's name upwards": (serving(adapter("../../etc")), "spec.adapters[0].name"),
    "an adapter's name in Greek": (serving(adapter("\u03b1\u03b2\u03b3")), "spec.adapters[0].name"),
    "negative rows held out": (rows(split={"test": -5}), "spec.split.test"),
    "negative bad rows": (rows(prepare={"maxBadRows": -1}), "spec.prepare.maxBadRows"),
    "a negative rank": (job(adapter={"rank": -16}), "spec.adapter.rank"),
    "a rank of a quintillion": (job(adapter={"rank": 10**18}), "spec.adapter.rank"),
    "not a number": (job(hyperparameters={"learningRate": "NaN"}), "spec.hyperparameters.learningRate"),
    "infinity": (job(hyperparameters={"epochs": "Infinity"}), "spec.hyperparameters.epochs"),
    "negative memory": (job(resources={"limits": {"memory": "-1Gi"}}), "spec.resources.limits.memory"),
    "its own result": (named("job", after("job")), "spec.baseModel.fineTuneJob.name"),
    "an array as a flag": (job(hyperparameters={"packing": [True]}), "spec.hyperparameters.packing"),
}  # fmt: skip

DEEP = "[" * 100_000
NO_CLASS = {"priorityClassName": "nobody-made-this"}
SPOILT = {"spoilt label!": "x"}

NAMED: dict[str, tuple[Object, tuple[str, ...]]] = {
    "rows that are no JSON": (rows("{oops"), ("BadRow",)),
    "rows that are nested for ever": (rows(f'{{"text": {DEEP}'), ("BadRow",)),
    "rows that are numbers": (rows("1\n2\n3"), ("BadRow",)),
    "a number of 10,000 digits": (rows(f'{{"text": {"9" * 10_000}}}'), ("BadRow", "DatasetInvalid")),
    "half a character": (rows('{"text": "\\ud800"}\n' * 20), ("BadRow", "DatasetInvalid")),
    "control characters, 128 KiB": (rows("\x01" * 128 * 1024), ("BadRow",)),
    "columns that are not there": (rows(columns={"prompt": "nowhere"}), ("DatasetInvalid", "BadRow")),
    "one row, most of it held out": (rows('{"text": "a"}', split={"test": 0.9}), ("DatasetInvalid", "InvalidPlan")),
    "a key that is not there": (source(configMap={"name": "good-rows", "key": "none"}), ("SourceNotFound",)),
    "a config map that is not there": (source(configMap={"name": "none", "key": "a"}), ("SourceNotFound",)),
    "a claim that is not there": (
        source(persistentVolumeClaim={"claimName": "none", "path": "*"}), ("SourceNotFound",),
    ),
    "a port nobody listens on": (source(http={"urls": ["http://127.0.0.1:1/a.jsonl"]}), ("SourceUnavailable",)),
    "more memory than there is": (rows(resources={"requests": {"memory": "1E"}}), ("Unschedulable",)),
    "a resource with a spoilt name": (rows(resources={"limits": {"bad name!!": 1}}), ("CreationDenied",)),
    "a limit below the request": (
        rows(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}), ("CreationDenied",),
    ),
    "a spoilt node label": (rows(scheduling={"nodeSelector": SPOILT}), ("CreationDenied",)),
    "a toleration that contradicts itself": (
        rows(scheduling={"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}), ("CreationDenied",),
    ),
    "a priority nobody made": (rows(scheduling=NO_CLASS), ("CreationDenied",)),
    "no dataset": (job(dataset={"name": "none"}), ("DatasetNotFound",)),
    "a dataset that failed": (job(dataset={"name": "rows-that-are-numbers"}), ("DatasetNotReady",)),
    "no job to tune": (after("none"), ("BaseNotFound",)),
    "a tunes b": (after("b-tunes-a"), ("ReferenceCycle",)),
    "b tunes a": (after("a-tunes-b"), ("ReferenceCycle",)),
    "one of three": (after("two-of-three"), ("ReferenceCycle",)),
    "two of three": (after("three-of-three"), ("ReferenceCycle",)),
    "three of three": (after("one-of-three"), ("ReferenceCycle",)),
    "no Secret": (
        job({"huggingFace": {"repo": "a/b", "tokenSecretRef": {"name": "none", "key": "a"}}}),
        ("CreateContainerConfigError",),
    ),
    "a Secret with a spoilt name": (
        job({"s3": {"uri": "s3://bucket/a", "credentialsSecretRef": {"name": "../token"}}}), ("CreationDenied",),
    ),
    "a base that is no model": (
        job({"persistentVolumeClaim": {"claimName": "finetune-artifacts", "path": "."}}), ("ModelNotFound",),
    ),
    "a base that is not in the volume": (
        job({"persistentVolumeClaim": {"claimName": "finetune-artifacts", "path": "\u2603/[a-z]*"}}),
        ("ModelNotFound",),
    ),
    "an adapter of nobody": (serving(adapter("a")), ("AdapterPending",)),
    "an adapter that waits in a circle": (serving(adapter("a", "a-tunes-b")), ("AdapterPending",)),
    "a thousand replicas of nothing": (serving(adapter("a"), replicas=1000), ("AdapterPending",)),
    "a base in a claim that is not there": (
        serving(baseModel={"persistentVolumeClaim": {"claimName": "none", "path": "."}}), ("StorageUnavailable",),
    ),
}  # fmt: skip
