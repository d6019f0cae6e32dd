"""The two images that the cluster itself needs, made from Debian's static busybox without any image tool.

`pause` holds a pod's network namespace; `busybox` runs the helper pods that make volumes, and is a shell for tests.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")

VOLUME_SETUP = '#!/bin/sh\nset -e\nmkdir -p -m 0777 "$VOL_DIR"\n'
VOLUME_TEARDOWN = '#!/bin/sh\nset -e\nrm -rf "$VOL_DIR"\n'


def archive(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar archive of the entries, in their order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry, content in entries:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def entry(
    name: str, content: bytes = b"", *, mode: int = 0o644, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """One file, folder or link of an archive; always the same bytes for the same arguments."""
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.linkname = mode, kind, link
    return info, content


def busybox_files() -> list[tuple[tarfile.TarInfo, bytes]]:
    """A root file system of one program under all its names."""
    names = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    folders = [
        entry(name, mode=mode, kind=tarfile.DIRTYPE) for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777))
    ]
    links = [entry(f"bin/{name}", kind=tarfile.SYMTYPE, link="busybox") for name in names if name != "busybox"]
    return [
        *folders,
        entry("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
        *links,
        entry("bin/volume-setup", VOLUME_SETUP.encode(), mode=0o755),
        entry("bin/volume-teardown", VOLUME_TEARDOWN.encode(), mode=0o755),
        entry("etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"),
        entry("etc/group", b"root:x:0:\nnogroup:x:65534:\n"),
    ]


def image_archive(layer: bytes, references: dict[str, dict[str, Any]]) -> bytes:
    """An OCI archive of images that share one layer: reference -> `Cmd`, `Entrypoint`, `User`, `Env`."""
    blobs: list[tuple[tarfile.TarInfo, bytes]] = []

    def blob(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs.append(entry(f"blobs/sha256/{digest}", content))
        return {
            "mediaType": f"application/vnd.oci.image.{media_type}",
            "digest": f"sha256:{digest}",
            "size": len(content),
        }

    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    layers = [blob(layer, "layer.v1.tar")]
    manifests = []
    for reference, runtime in references.items():
        config = {"architecture": "amd64", "os": "linux", "config": runtime, "rootfs": rootfs}
        described = blob(json.dumps(config).encode(), "config.v1+json")
        manifest = {"schemaVersion": 2, "config": described, "layers": layers}
        manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
        names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}
        manifests.append({**blob(json.dumps(manifest).encode(), "manifest.v1+json"), "annotations": names})
    index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    layout = json.dumps({"imageLayoutVersion": "1.0.0"}).encode()
    return archive([entry("oci-layout", layout), *blobs, entry("index.json", index)])
