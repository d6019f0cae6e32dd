"""Pod templates: what the operator gives its pods, and what the resource's `podTemplate` adds to it."""

from finetune_contract.paths import CA_BUNDLE_MOUNT
from finetune_operator.api.podtemplate import EnvVar, PodTemplate
from finetune_operator.manifests.naming import Manifest

_CA_FILE = str(CA_BUNDLE_MOUNT / "ca.crt")
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
"""What OpenSSL and httpx, requests, curl and botocore read."""


def pod_template(pod: Manifest, labels: dict[str, str], template: PodTemplate) -> Manifest:
    """The template of a Job's or Deployment's pods; what the operator sets wins."""
    metadata: Manifest = {"labels": {**template.labels, **labels}}
    if template.annotations:
        metadata["annotations"] = dict(template.annotations)
    return {"metadata": metadata, "spec": _dressed(pod, template)}


def _dressed(pod: Manifest, template: PodTemplate) -> Manifest:
    variables = [_variable(variable) for variable in template.env]
    mounts: list[Manifest] = []
    spec = dict(pod)
    if template.ca_bundle:
        reference = template.ca_bundle
        source = {"name": reference.name, "items": [{"key": reference.key, "path": "ca.crt"}]}
        spec["volumes"] = [*pod["volumes"], {"name": "ca-bundle", "configMap": source}]
        mounts.append({"name": "ca-bundle", "mountPath": str(CA_BUNDLE_MOUNT), "readOnly": True})
        variables += [{"name": name, "value": _CA_FILE} for name in _CA_VARIABLES]
    for field in ("initContainers", "containers"):
        if field in pod:
            spec[field] = [_with(container, variables, mounts) for container in pod[field]]
    if template.service_account_name:
        spec["serviceAccountName"] = template.service_account_name
    if template.image_pull_secrets:
        spec["imagePullSecrets"] = [secret.to_dict() for secret in template.image_pull_secrets]
    return spec


def _with(container: Manifest, variables: list[Manifest], mounts: list[Manifest]) -> Manifest:
    own = {variable["name"] for variable in container["env"]}
    added = [variable for variable in variables if variable["name"] not in own]
    return {
        **container,
        "env": [*container["env"], *added],
        "volumeMounts": [*container["volumeMounts"], *mounts],
    }


def _variable(variable: EnvVar) -> Manifest:
    return variable.to_dict()
