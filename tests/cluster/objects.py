"""Our kinds as tests write them: valid by default, one thing changed by keyword."""

from typing import Any

from tests.cluster.kube import Object

API_VERSION = "finetune.dev/v1alpha1"


def resource(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def dataset(name: str = "colours", **spec: Any) -> Object:
    default = {
        "source": {"persistentVolumeClaim": {"claimName": "files", "path": "rows.jsonl"}},
        "split": {"test": 0.2},
    }
    return resource("Dataset", name, {**default, **spec})


def text_dataset(name: str = "sentences", **spec: Any) -> Object:
    default = {"source": {"persistentVolumeClaim": {"claimName": "files", "path": "text.jsonl"}}}
    return resource("Dataset", name, {**default, **spec})


def job(name: str = "colour-namer", **spec: Any) -> Object:
    default = {
        "baseModel": {"persistentVolumeClaim": {"claimName": "files", "path": "base"}},
        "dataset": {"name": "colours"},
        "hyperparameters": {"epochs": 4, "learningRate": 0.003, "globalBatchSize": 16},
        "evaluation": {"metrics": ["EvalLoss", "ExactMatch"], "baselines": ["ZeroShot"], "maxRows": 24},
        # Little is asked for, so that several tests have pods on a small node; more than one thread helps no model of
        # this size, and two pods that each wait for two threads on two cores hinder each other.
        "resources": {
            "requests": {"cpu": "100m", "memory": "512Mi"},
            "limits": {"nvidia.com/gpu": 1, "cpu": "1"},
        },
    }
    return resource("FineTuneJob", name, {**default, **spec})


def deployment(name: str = "colours", **spec: Any) -> Object:
    default = {"adapters": [{"name": "namer", "fineTuneJob": {"name": "colour-namer"}}]}
    return resource("ModelDeployment", name, {**default, **spec})


def batch(name: str = "labels", **spec: Any) -> Object:
    default = {
        "model": {"fineTuneJob": {"name": "colour-namer"}},
        "input": {"dataset": {"name": "colours", "split": "test"}},
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}},
    }
    return resource("BatchInference", name, {**default, **spec})
