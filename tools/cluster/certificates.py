"""One certificate authority and a certificate for every component, made with openssl."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.settings import API_SERVER, CLUSTER_DOMAIN, KUBERNETES_SERVICE_IP, NODE, NODE_IP
from tools.console import output_of

DAYS = "3650"


@dataclass(frozen=True)
class Identity:
    """Whom a certificate names: Kubernetes reads the common name as user and the organization as group."""

    file: str
    common_name: str
    organization: str = ""
    alternative_names: str = ""

    @property
    def subject(self) -> str:
        """The subject in openssl's notation."""
        return (f"/O={self.organization}" if self.organization else "") + f"/CN={self.common_name}"


SERVER = Identity(
    "apiserver",
    "kube-apiserver",
    alternative_names=(
        f"IP:127.0.0.1,IP:{KUBERNETES_SERVICE_IP},IP:{NODE_IP},DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,"
        f"DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.{CLUSTER_DOMAIN}"
    ),
)
CLIENTS = (
    Identity("admin", "admin", "system:masters"),
    Identity("kubelet", f"system:node:{NODE}", "system:nodes"),
    Identity("kube-controller-manager", "system:kube-controller-manager"),
    Identity("kube-scheduler", "system:kube-scheduler"),
    Identity("kube-proxy", "system:kube-proxy"),
    Identity("apiserver-kubelet-client", "apiserver-kubelet-client", "system:masters"),
    Identity("front-proxy-client", "front-proxy-client"),
)


def ensure(pki: Path) -> None:
    """Make all certificates unless they are there; an interrupted attempt is thrown away."""
    if pki.exists():
        return
    partial = pki.with_name(pki.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    new_authority(partial)
    for identity in (SERVER, *CLIENTS):
        new_certificate(partial, identity)
    new_key(partial / "service-account.key")
    output_of(
        [
            "openssl",
            "pkey",
            "-in",
            str(partial / "service-account.key"),
            "-pubout",
            "-out",
            str(partial / "service-account.pub"),
        ]
    )
    partial.rename(pki)


def new_key(file: Path) -> None:
    """An elliptic-curve key: a hundred times faster to make than RSA."""
    output_of(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(file)])


def new_authority(pki: Path) -> None:
    """The self-signed certificate that every other one is checked against."""
    new_key(pki / "ca.key")
    argv = [
        "openssl",
        "req",
        "-x509",
        "-new",
        "-key",
        str(pki / "ca.key"),
        "-subj",
        "/CN=finetune-local-ca",
        "-days",
        DAYS,
    ]
    output_of([*argv, "-addext", "keyUsage=critical,digitalSignature,keyCertSign", "-out", str(pki / "ca.crt")])


def new_certificate(pki: Path, identity: Identity) -> None:
    """Key and certificate of one identity, signed by the authority beside them."""
    key, request, extensions = (pki / f"{identity.file}.{suffix}" for suffix in ("key", "csr", "ext"))
    new_key(key)
    output_of(["openssl", "req", "-new", "-key", str(key), "-subj", identity.subject, "-out", str(request)])
    names = f"\nsubjectAltName={identity.alternative_names}" if identity.alternative_names else ""
    extensions.write_text(f"keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,serverAuth{names}\n")
    argv = ["openssl", "x509", "-req", "-in", str(request), "-CA", str(pki / "ca.crt"), "-CAkey", str(pki / "ca.key")]
    argv += ["-CAcreateserial", "-days", DAYS, "-extfile", str(extensions), "-out", str(pki / f"{identity.file}.crt")]
    output_of(argv)
    request.unlink()
    extensions.unlink()


def kubeconfig(pki: Path, client: str) -> str:
    """A self-contained kubeconfig (JSON, which is YAML) for one of the clients."""

    def embedded(name: str) -> str:
        return base64.b64encode((pki / name).read_bytes()).decode()

    cluster = {"server": API_SERVER, "certificate-authority-data": embedded("ca.crt")}
    user = {"client-certificate-data": embedded(f"{client}.crt"), "client-key-data": embedded(f"{client}.key")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "finetune-local", "cluster": cluster}],
        "users": [{"name": client, "user": user}],
        "contexts": [{"name": "finetune-local", "context": {"cluster": "finetune-local", "user": client}}],
        "current-context": "finetune-local",
    }
    return json.dumps(document, indent=2) + "\n"
