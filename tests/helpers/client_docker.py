"""The docker engine with its own store: a daemon for the whole session."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from helpers.client import Client, Ref, Row
from helpers.client_containers import DEBIAN
from helpers.docker_engine import DockerEngine


class Docker(Client):
    name = "docker"
    origin = DEBIAN
    without: ClassVar[Mapping[Row, str]] = {
        Row.COPY: "it copies only through its own store: see the row of the mounted layer",
        Row.CATALOG: "it has no command for it",
        Row.DELETE: "it has no command for it",
        Row.REFERRERS: "it has no command for referrers",
        Row.CHUNKS: "it sends a blob in one PATCH",
        Row.VERSIONS: "it knows nothing of charts",
        Row.MIRROR: "it asks mirrors only for the images of one hub",
        Row.SIGN: "its signatures do not go through the registry's API",
        Row.STRANGER: "it takes any certificate on the loopback address, so over TLS the authority is not checked",
    }

    without_tls: ClassVar[Mapping[Row, str]] = {
        Row.INDEX: "`docker manifest` speaks plain HTTP to the loopback address, whatever answers there",
    }

    def __init__(self, folder: Path, engine: DockerEngine) -> None:
        super().__init__(folder)
        self.engine = engine

    def version(self) -> str:
        return self.engine("version", "--format", "{{.Server.Version}}").strip()

    def push(self, payload: bytes, ref: Ref) -> None:
        self._build(payload, ref)
        self.engine("push", str(ref))

    def pull(self, ref: Ref, architecture: str = "") -> bytes:
        self.forget()
        chosen = ["--platform", f"linux/{architecture}"] if architecture else []
        self.engine("pull", *chosen, str(ref))
        out = self.scratch() / "payload"
        return self.engine.content(str(ref), "/payload", out)

    def push_index(self, payloads: Mapping[str, bytes], ref: Ref) -> None:
        parts = []
        for architecture, payload in payloads.items():
            part = ref.at(tag=f"{ref.tag}-{architecture}")
            self._build(payload, part)
            self.engine("push", str(part))
            parts.append(str(part))
        self.engine("manifest", "create", "--insecure", str(ref), *parts)
        for architecture, part in zip(payloads, parts, strict=True):
            self.engine("manifest", "annotate", str(ref), part, "--os", "linux", "--arch", architecture)
        self.engine("manifest", "push", "--insecure", str(ref))

    def mount(self, payload: bytes, source: Ref, target: Ref) -> None:
        self.engine("tag", str(source), str(target))
        assert f"Mounted from {source.repository}" in self.engine("push", str(target))

    def tags(self, ref: Ref) -> list[str]:
        said = self.engine("pull", "-a", ref.name)
        return re.findall(r"^(\S+): Pulling from ", said, re.MULTILINE)

    def forget(self) -> None:
        """All images, so that the next pull brings everything."""
        self.engine("image", "prune", "-a", "-f")

    def _build(self, payload: bytes, ref: Ref) -> None:
        folder = self.scratch()
        (folder / "payload").write_bytes(payload)
        (folder / "Dockerfile").write_text('FROM scratch\nCOPY payload /payload\nCMD ["/payload"]\n')
        self.engine("build", "-q", "-t", str(ref), str(folder))
