"""Objects as compressed JSON: tens of thousands of them are kept, and most are never looked at again.

Kubernetes objects are small and alike, so a shared dictionary of what they all say does most of the work: a quarter
of the size, for 30 microseconds to pack and 10 to unpack.
"""

import zlib
from typing import Any

import msgspec

LEVEL = 1
"""The fastest; with the dictionary, higher ones save little more."""

_DICTIONARY = (
    b'"nodeName":"hostIP":"podIPs":[{"ip":"10."initContainerStatuses":"qosClass":"Burstable""BestEffort""Guaranteed"'
    b'"supervisedTokens":"truncatedTokens":0,\\"truncatedRows\\":0,\\"evaluation\\":[],\\"timings\\":[],'
    b'{\\"base\\":{\\"digest\\":\\"sha256:\\",\\"uri\\":\\"pvc://finetune-artifacts/models/\\"},\\"revision\\":\\"'
    b'{\\"runKey\\":\\"\\",\\"attempt\\":1,\\"artifact\\":{\\"digest\\":\\"sha256:\\",\\"type\\":\\"Adapter\\",\\"bytes'
    b'"progress":{"loss":"evalLoss":"tokensPerSecond":"percent":100,"phase":"Done","step":"totalSteps":'
    b'"progressPercent":"100%","retriesUsed":0,"run":{"generation":1,"inputs":{"base":"sha256:"baseRevision":"baseUri":'
    b'"pvc://finetune-artifacts/models/"dataset":"sha256:"datasetUri":"pvc://finetune-artifacts/datasets/"key":"number":1'
    b'"stage":"startedAt":"runs":[{"artifactDigest":"sha256:"outcome":"Succeeded"}],"stalledDisruptions":0,"timings":[]'
    b'"artifact":{"base":{"digest":"sha256:"uri":"pvc://finetune-artifacts/artifacts/"bytes":"type":"Adapter",'
    b'"attempts":[{"message":"","node":"number":1,"reason":"Succeeded","run":"seconds":"step":"attemptsTotal":1,'
    b'"message":"revision sha256:"message":"base sha256:"message":"Adapter sha256:"reason":"Resolved",'
    b'"observedGeneration":1,"reason":"Accepted","type":"Accepted"}"type":"DatasetReady"}"type":"Running"}"type":"Staged"}'
    b'"spec":{"adapter":{"alpha":32,"dropout":0,"rank":16,"targetModules":["all-linear"],"type":"LoRA"},"baseModel":{'
    b'"huggingFace":{"repo":"revision":"main"}},"checkpoints":{"gracePeriodSeconds":120,"intervalMinutes":10,"keep":2},'
    b'"dataset":{"name":"evaluation":{"baselines":[],"fewShotExamples":4,"maxNewTokens":64,"maxRows":200,"metrics":['
    b'"EvalLoss"],"split":"test"},"hyperparameters":{"epochs":3,"globalBatchSize":16,"maxGradNorm":1,"maxLength":"Auto",'
    b'"packing":true,"scheduler":"cosine","seed":0,"warmupSteps":0.03,"weightDecay":0},"limits":{"truncatedShare":0.01},'
    b'"method":"SFT","resources":{"limits":{"nvidia.com/gpu":1},"requests":{}},"retries":{"limit":2},"scheduling":{'
    b'"nodeSelector":{},"tolerations":[]}},"status":{'
    b'{"type":"SuccessCriteriaMet","status":"True","lastProbeTime":"2026-'
    b'"reason":"CompletionsReached","message":"Reached expected number of succeeded pods"},{"type":"Complete",'
    b'"startTime":"completionTime":"succeeded":1,"terminating":0,"uncountedTerminatedPods":{},"ready":0}}'
    b'"spec":{"suspend":false,"parallelism":1,"backoffLimit":0},"status":{"conditions":['
    b'"status":{"phase":"Succeeded","conditions":[{"type":"Ready","status":"False","lastProbeTime":null,'
    b'"lastTransitionTime":"2026-"reason":"PodCompleted"},{"type":"PodScheduled","status":"True",'
    b'"containerStatuses":[{"name":"train","state":{"terminated":{"exitCode":0,"reason":"Completed","message":"'
    b'"startedAt":"finishedAt":"lastState":{},"ready":false,"restartCount":0,"image":"imageID":"'
    b'"batch.kubernetes.io/controller-uid":"batch.kubernetes.io/job-name":"controller-uid":"job-name":"'
    b'{"apiVersion":"batch/v1","kind":"Job","blockOwnerDeletion":true}],{"apiVersion":"v1","kind":"Pod",'
    b'{"apiVersion":"finetune.dev/v1alpha1","kind":"FineTuneJob","metadata":{"creationTimestamp":"2026-'
    b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"namespace":"uid":"labels":{'
    b'"app.kubernetes.io/managed-by":"finetune-operator","finetune.dev/attempt":"1","finetune.dev/kind":"FineTuneJob",'
    b'"finetune.dev/name":"","finetune.dev/role":"train","finetune.dev/role":"stage","finetune.dev/run":""},'
    b'"ownerReferences":[{"apiVersion":"finetune.dev/v1alpha1","kind":"FineTuneJob","name":"","uid":"","controller":true,'
    b'"blockOwnerDeletion":false}],"resourceVersion":"","generation":1,"creationTimestamp":"2026-'
    b'"annotations":{"finetune.dev/generation":"1"}}}'
)
"""What objects of ours and their children say, the most frequent last. Any text is packed right without it."""


def pack(value: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Compress a JSON value."""
    packer = zlib.compressobj(LEVEL, wbits=-15, memLevel=6, zdict=_DICTIONARY)
    return packer.compress(msgspec.json.encode(value)) + packer.flush()


def unpack(packed: bytes) -> Any:  # noqa: ANN401 - any JSON
    """The value again, a copy each time."""
    return msgspec.json.decode(zlib.decompressobj(wbits=-15, zdict=_DICTIONARY).decompress(packed))
