"""cosign with a key of its own: no transparency log, no time stamps, nothing asked of anybody but the registry."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from helpers.client import Client, Ref, Row
from helpers.client_place import Place
from helpers.client_programs import COSIGN
from helpers.client_registry_tools import GO_MODULE
from helpers.go_programs import install

_NOT_ITS_WORK = "it signs what others push"


class Cosign(Client):
    name = "cosign"
    origin = GO_MODULE
    without: ClassVar[Mapping[Row, str]] = {
        Row.TAG: _NOT_ITS_WORK,
        Row.DIGEST: _NOT_ITS_WORK,
        Row.INDEX: _NOT_ITS_WORK,
        Row.MOUNT: _NOT_ITS_WORK,
        Row.COPY: "it copies with crane's library",
        Row.TAGS: "it has no command for it",
        Row.CATALOG: "it has no command for it",
        Row.DELETE: _NOT_ITS_WORK,
        Row.REFERRERS: "a signature is what it attaches: see the row of signing",
        Row.CHUNKS: "it sends a blob in one PATCH",
        Row.VERSIONS: "it knows nothing of charts",
        Row.MIRROR: "it has no mirrors",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._path = str(install(COSIGN))
        self.run(self._path, "generate-key-pair", cwd=folder)
        # Both without any service, else it would ask for those of the public instance.
        self.run(self._path, "signing-config", "create", "--out", "signing.json", cwd=folder)
        self.run(self._path, "trusted-root", "create", "--out", "trusted.json", cwd=folder)

    def environment(self, place: Place | None = None) -> dict[str, str]:
        return {**super().environment(), "COSIGN_PASSWORD": ""}

    def version(self) -> str:
        return COSIGN.version.removeprefix("v")

    def push(self, payload: bytes, ref: Ref) -> None:
        folder = self.scratch()
        (folder / "payload").write_bytes(payload)
        self.run(self._path, "upload", "blob", *_trust(ref.place), "--files", "payload", str(ref), cwd=folder)

    def pull(self, ref: Ref, architecture: str = "") -> bytes:
        """Only what verifying reads."""
        return self.verify(ref).encode()

    def sign(self, ref: Ref) -> None:
        root = ["--signing-config", "signing.json", "--trusted-root", "trusted.json"]
        key = ["--yes", "--key", "cosign.key"]
        self.run(self._path, "sign", *key, *root, *_trust(ref.place), str(ref), cwd=self.folder)

    def verify(self, ref: Ref) -> str:
        """Raises Failed."""
        key = ["--key", "cosign.pub", "--insecure-ignore-tlog", "--trusted-root", "trusted.json"]
        return self.run(self._path, "verify", *key, *_trust(ref.place), str(ref), cwd=self.folder)


def _trust(place: Place) -> list[str]:
    if not place.tls:
        return ["--allow-http-registry"]
    return ["--registry-cacert", str(place.ca)] if place.ca else []
