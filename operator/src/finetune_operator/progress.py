"""Asks running training and batch pods how far they are."""

from collections.abc import Mapping

import aiohttp

from finetune_contract.batching import BatchProgress
from finetune_contract.paths import POD_PORT
from finetune_contract.results import Progress
from finetune_operator import metrics
from finetune_operator.entries import Key, RunningPod
from finetune_operator.pods import PodPoller, ask


class ProgressPoller(PodPoller[Key, Progress | BatchProgress]):
    """Keeps `cache.progress`: asks the newest running training or batch pod of each resource."""

    PORT = POD_PORT

    @property
    def _kept(self) -> dict[Key, Progress | BatchProgress]:
        return self._cache.progress

    def _pods(self) -> Mapping[Key, RunningPod]:
        return {pod.key: pod for pod in sorted(self._cache.training_pods(), key=lambda pod: (pod.created, pod.uid))}

    async def _ask(self, session: aiohttp.ClientSession, pod: RunningPod) -> Progress | BatchProgress | None:
        model: type[Progress | BatchProgress] = BatchProgress if pod.key.kind == "BatchInference" else Progress
        answer = await ask(session, self._url(pod, "/progress"), model)
        metrics.PROGRESS_POLLS.labels(answer if isinstance(answer, str) else "ok").inc()
        return None if isinstance(answer, str) else answer
