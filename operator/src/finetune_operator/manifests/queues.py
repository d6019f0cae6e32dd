"""What Kueue needs of a Job: its labels, and that the Job waits until Kueue lets it go."""

import hashlib
import json

from finetune_operator.api.queueing import JobScheduling
from finetune_operator.manifests.naming import ANNOTATION_CONTENT, LABEL_QUEUE, LABEL_QUEUE_PRIORITY, Manifest


def enqueue(job: Manifest, plan: Manifest, scheduling: JobScheduling) -> Manifest:
    """The Job as it is to be queued; as it was where no queue is named.

    It is created suspended, although Kueue's webhook would do that too: where Kueue is not there (any more, or yet), a
    job that names a queue waits and says so, and does not take what the queue is there to share out.
    """
    marks = {LABEL_QUEUE: scheduling.queue_name, LABEL_QUEUE_PRIORITY: scheduling.queue_priority}
    labels = {**job["metadata"]["labels"], **{label: name for label, name in marks.items() if name}}
    metadata = {**job["metadata"], "labels": labels}
    if scheduling.queue_name is None:
        return {**job, "metadata": metadata}
    spec = {**job["spec"], "suspend": True}
    content = json.dumps([plan["data"], labels, spec], sort_keys=True).encode()
    annotations = {**metadata["annotations"], ANNOTATION_CONTENT: hashlib.sha256(content).hexdigest()[:16]}
    return {**job, "metadata": {**metadata, "annotations": annotations}, "spec": spec}
