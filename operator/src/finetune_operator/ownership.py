"""Whose an object is. A name belongs to whoever had it first: a server-side apply would take the object over."""

from finetune_operator.cluster import controller_uid
from finetune_operator.errors import Denied
from finetune_operator.manifests.naming import LABEL_KIND, LABEL_MANAGED_BY, LABEL_NAME, Manifest
from finetune_operator.reconcile.troubles import TAKEN

_OURS = (LABEL_MANAGED_BY, LABEL_KIND, LABEL_NAME)


def must_be_ours(manifest: Manifest, found: Manifest | None) -> None:
    """Return if what is found under a manifest's name has the manifest's owner, or nothing is.

    What has no owner at all but our labels, as after a restore that dropped owners, is taken back.

    Raises:
        Denied: Naming the owner, and what to do.
    """
    if found is None or controller_uid(found) == controller_uid(manifest):
        return
    metadata, wanted = found["metadata"], manifest["metadata"]["labels"]
    labels = metadata.get("labels") or {}
    owners = [owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
    if not owners and all(labels.get(label) == wanted[label] for label in _OURS):
        return
    kind = manifest["kind"]
    belongs = f"belongs to {owners[0]['kind']} {owners[0]['name']}" if owners else "was not made by the operator"
    raise Denied(
        f"{TAKEN}: the {kind} of this name {belongs} and is left alone; rename the {wanted[LABEL_KIND]} "
        f"{wanted[LABEL_NAME]}, or what has the name"
    )
