"""What the pods of a ModelDeployment serve, as one thing with a name: it can be tried, kept and gone back to."""

import hashlib
import json
from collections.abc import Iterable

from finetune_contract.base import StoredReference
from finetune_contract.serving import ServedAdapter, ServingPlan
from finetune_operator.api.base import BaseStatus
from finetune_operator.api.modeldeployment import AdapterStatus, ModelDeployment
from finetune_operator.api.rollout import Revision, RevisionAdapter
from finetune_operator.manifests import serving
from finetune_operator.reconcile.endings import name_of
from finetune_operator.reconcile.servedbase import Pass
from finetune_operator.settings import Settings


def revision_of(
    deployment: ModelDeployment, base: StoredReference, adapters: Iterable[AdapterStatus], *, merged: bool
) -> Revision:
    """What the present spec and artifacts would have served."""
    served = [
        RevisionAdapter(name=each.name, digest=each.digest, uri=each.uri, adapter=each.adapter)
        for each in adapters
        if each.digest and each.uri
    ]
    engine = deployment.spec.engine
    document = [
        base.digest,
        merged,
        sorted([each.name, each.digest] for each in served),
        engine.model_dump(mode="json", by_alias=True, exclude_defaults=True),
    ]
    return Revision(
        key=hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16],
        base=BaseStatus(digest=base.digest, uri=base.uri),
        merged=merged,
        adapters=served,
        engine=engine,
    )


def document_of(deployment: ModelDeployment, revision: Revision, settings: Settings) -> ServingPlan:
    """The plan of its pods."""
    deployment = _with_engine(deployment, revision)
    base = StoredReference(digest=revision.base.digest, uri=revision.base.uri)
    adapters = tuple(
        ServedAdapter(name=each.name, artifact=StoredReference(digest=each.digest, uri=each.uri))
        for each in revision.adapters
    )
    if revision.merged:
        return serving.merged_plan(deployment, base, adapters[0], settings)
    return serving.plan(deployment, base, adapters, settings)


def plan_name(deployment: ModelDeployment, revision: Revision, settings: Settings) -> str:
    """The name of the plan's ConfigMap."""
    return name_of(serving.plan_config_map(deployment, document_of(deployment, revision, settings)))


def put(this: Pass, revision: Revision, track: serving.Track) -> str:
    """Keep Deployment and Service of a revision; answers the name of its plan."""
    deployment, settings = _with_engine(this.deployment, revision), this.observed.settings
    document = document_of(this.deployment, revision, settings)
    plan = serving.plan_config_map(deployment, document)
    name = name_of(plan)
    if not any(name_of(item) == name for item in (*this.observed.of("ConfigMap"), *this.create)):
        this.create += (plan,)
    facts = {each.name: each.adapter.facts() for each in revision.adapters if each.adapter}
    this.apply += serving.build(deployment, name, document, facts, settings, track)
    return name


def _with_engine(deployment: ModelDeployment, revision: Revision) -> ModelDeployment:
    spec = deployment.spec.model_copy(update={"engine": revision.engine})
    return deployment.model_copy(update={"spec": spec})
