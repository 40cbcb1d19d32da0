"""skopeo, the client of podman's family, without the machine's own configuration; and OCI layouts for it to copy."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.docker_engine import need, run

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True)
class Skopeo:
    environment: dict[str, str]

    @classmethod
    def found(cls, folder: Path) -> "Skopeo":
        """Raises Missing."""
        need("skopeo")
        (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (folder / "registries.conf").write_text("")
        return cls(
            {
                **os.environ,
                "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
                "REGISTRY_AUTH_FILE": str(folder / "auth.json"),
                "SKOPEO_POLICY": str(folder / "policy.json"),
            }
        )

    def __call__(self, verb: str, *arguments: str, ok: bool = True) -> str:
        """Standard output and error together. Raises Failed."""
        policy = self.environment["SKOPEO_POLICY"]
        return run(["skopeo", "--policy", policy, verb, *arguments], self.environment, ok=ok)

    def copy(self, source: str, target: str, *flags: str) -> str:
        """Between `oci:folder:name` and `docker://host/name`."""
        return self("copy", "--src-tls-verify=false", "--dest-tls-verify=false", *flags, source, target)

    def raw(self, reference: str) -> bytes:
        """The manifest's bytes as served."""
        return self("inspect", "--tls-verify=false", "--raw", f"docker://{reference}").encode()

    def digest(self, reference: str) -> str:
        return digest_of(self.raw(reference))


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Layout:
    """An OCI image layout in a folder."""

    folder: Path

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        """Writes a blob; its descriptor."""
        digest = digest_of(content)
        path = self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def image(self, architecture: str, files: dict[str, bytes]) -> dict[str, Any]:
        """An image of one layer for one platform; its descriptor."""
        archive = _tar(files)
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/" + next(iter(files))]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(archive)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(_json(config), CONFIG),
            "layers": [self.blob(gzip.compress(archive, 1, mtime=0), LAYER)],
        }
        made = self.blob(_json(manifest), MANIFEST)
        return {**made, "platform": {"architecture": architecture, "os": "linux"}}

    def index(self, *images: dict[str, Any]) -> dict[str, Any]:
        """An index over images; its descriptor."""
        return self.blob(_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(images)}), INDEX)

    def finish(self, name: str, top: dict[str, Any]) -> str:
        """Names `top` in the layout; how skopeo calls it."""
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        named = {**top, "annotations": {"org.opencontainers.image.ref.name": name}}
        (self.folder / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [named]}))
        return f"oci:{self.folder}:{name}"


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()
