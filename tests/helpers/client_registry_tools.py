"""crane, oras and regctl: programs that talk to registries and keep nothing themselves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from helpers.client import ARTIFACT, CHUNK, Client, Ref, Row
from helpers.client_place import Place, unpacked
from helpers.client_programs import CRANE, ORAS, REGCTL
from helpers.docker_engine import run
from helpers.go_programs import GoProgram, install
from helpers.skopeo import INDEX, MANIFEST, Layout

GO_MODULE = "Go module"
_NO_CHARTS = "it knows nothing of charts"
_NO_MIRROR = "it has no mirrors"
_NO_SIGNING = "signing is for other programs"
_NO_BUILD = "it builds nothing"


class Tool(Client):
    """What the three have in common: a program built from its module, and images as OCI layouts."""

    program: ClassVar[GoProgram]
    origin = GO_MODULE

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._path = str(install(self.program))

    def tool(self, *arguments: str, place: Place | None = None, cwd: Path | None = None) -> str:
        return self.run(self._path, *arguments, place=place, cwd=cwd)

    def version(self) -> str:
        """What was asked for: a program built from its module does not always know its version."""
        return self.program.version.removeprefix("v")

    def image(self, payload: bytes) -> Layout:
        """A layout with one image, named `it`."""
        layout = Layout(self.scratch())
        layout.finish("it", layout.image("amd64", {"payload": payload}))
        return layout

    def index(self, payloads: Mapping[str, bytes]) -> Layout:
        """A layout with one index, named `it`."""
        layout = Layout(self.scratch())
        images = [layout.image(architecture, {"payload": payload}) for architecture, payload in payloads.items()]
        layout.finish("it", layout.index(*images))
        return layout


class Crane(Tool):
    name = "crane"
    program = CRANE
    without: ClassVar[Mapping[Row, str]] = {
        Row.REFERRERS: "it has no command for referrers",
        Row.CHUNKS: "it sends a blob in one PATCH",
        Row.VERSIONS: _NO_CHARTS,
        Row.MIRROR: _NO_MIRROR,
        Row.SIGN: _NO_SIGNING,
    }

    def push(self, payload: bytes, ref: Ref) -> None:
        self.tool("push", str(self.image(payload).folder), str(ref), place=ref.place)

    def pull(self, ref: Ref, architecture: str = "") -> bytes:
        out = self.scratch() / "out"
        chosen = ["--platform", f"linux/{architecture}"] if architecture else []
        self.tool("pull", "--format", "oci", *chosen, str(ref), str(out), place=ref.place)
        return blobs(out)

    def push_index(self, payloads: Mapping[str, bytes], ref: Ref) -> None:
        layout = self.index({})
        images = [layout.image(architecture, {"payload": payload}) for architecture, payload in payloads.items()]
        # It pushes the layout's own index, so the images stand in it directly.
        top = {"schemaVersion": 2, "mediaType": INDEX, "manifests": images}
        (layout.folder / "index.json").write_text(json.dumps(top))
        self.tool("push", "--index", str(layout.folder), str(ref), place=ref.place)

    def mount(self, payload: bytes, source: Ref, target: Ref) -> None:
        self.copy(source, target)

    def copy(self, source: Ref, target: Ref) -> None:
        self.tool("copy", str(source), str(target), place=source.place)

    def tags(self, ref: Ref) -> list[str]:
        return self.tool("ls", ref.name, place=ref.place).split()

    def catalog(self, place: Place) -> list[str]:
        return self.tool("catalog", place.address, place=place).split()

    def delete(self, ref: Ref) -> None:
        self.tool("delete", str(ref), place=ref.place)


class Oras(Tool):
    name = "oras"
    program = ORAS
    without: ClassVar[Mapping[Row, str]] = {
        Row.CHUNKS: "it sends a blob in one PUT",
        Row.VERSIONS: _NO_CHARTS,
        Row.MIRROR: _NO_MIRROR,
        Row.SIGN: _NO_SIGNING,
    }

    def push(self, payload: bytes, ref: Ref) -> None:
        folder = self.scratch()
        (folder / "payload").write_bytes(payload)
        kind = ["--artifact-type", "application/vnd.example.thing"]
        self.tool("push", *trust(ref.place), *kind, str(ref), "payload:application/octet-stream", cwd=folder)

    def pull(self, ref: Ref, architecture: str = "") -> bytes:
        out = self.scratch()
        if architecture:
            chosen = ["--platform", f"linux/{architecture}", "--to-oci-layout"]
            self.tool("cp", *chosen, *trust(ref.place, "from-"), str(ref), f"{out}:it")
            return blobs(out)
        self.tool("pull", *trust(ref.place), "-o", str(out), str(ref))
        return (out / "payload").read_bytes()

    def push_index(self, payloads: Mapping[str, bytes], ref: Ref) -> None:
        source = f"{self.index(payloads).folder}:it"
        self.tool("cp", "--from-oci-layout", *trust(ref.place, "to-"), source, str(ref))

    def mount(self, payload: bytes, source: Ref, target: Ref) -> None:
        self.copy(source, target)

    def copy(self, source: Ref, target: Ref) -> None:
        both = [*trust(source.place, "from-"), *trust(target.place, "to-")]
        self.tool("cp", "-r", *both, str(source), str(target))

    def tags(self, ref: Ref) -> list[str]:
        return self.tool("repo", "tags", *trust(ref.place), ref.name).split()

    def catalog(self, place: Place) -> list[str]:
        return self.tool("repo", "ls", *trust(place), place.address).split()

    def delete(self, ref: Ref) -> None:
        self.tool("manifest", "delete", "--force", *trust(ref.place), str(ref))

    def attach(self, payload: bytes, ref: Ref) -> None:
        folder = self.scratch()
        (folder / "note").write_bytes(payload)
        self.tool("attach", *trust(ref.place), "--artifact-type", ARTIFACT, str(ref), "note:text/plain", cwd=folder)

    def attached(self, ref: Ref) -> list[str]:
        said = self.tool("discover", *trust(ref.place), "--format", "json", "--depth", "1", str(ref))
        return [found["digest"] for found in json.loads(said)["referrers"]]


class Regctl(Tool):
    name = "regctl"
    program = REGCTL
    without: ClassVar[Mapping[Row, str]] = {
        Row.VERSIONS: _NO_CHARTS,
        Row.MIRROR: "its mirrors are ordinary pulls: see the row of pull by tag",
        Row.SIGN: _NO_SIGNING,
    }

    def push(self, payload: bytes, ref: Ref) -> None:
        self._regctl(ref.place, "image", "copy", f"ocidir://{self.image(payload).folder}:it", str(ref))

    def push_chunks(self, payload: bytes, ref: Ref) -> None:
        source = f"ocidir://{self.image(payload).folder}:it"
        limits = ["--blob-chunk", str(CHUNK), "--blob-max", str(CHUNK)]
        self._regctl(ref.place, "image", "copy", source, str(ref), settings=limits)

    def pull(self, ref: Ref, architecture: str = "") -> bytes:
        out = self.scratch()
        chosen = ["--platform", f"linux/{architecture}"] if architecture else []
        self._regctl(ref.place, "image", "copy", *chosen, str(ref), f"ocidir://{out}:it")
        return blobs(out)

    def push_index(self, payloads: Mapping[str, bytes], ref: Ref) -> None:
        self._regctl(ref.place, "image", "copy", f"ocidir://{self.index(payloads).folder}:it", str(ref))

    def mount(self, payload: bytes, source: Ref, target: Ref) -> None:
        self.copy(source, target)

    def copy(self, source: Ref, target: Ref) -> None:
        self._regctl(source.place, "image", "copy", "--referrers", str(source), str(target))

    def tags(self, ref: Ref) -> list[str]:
        return self._regctl(ref.place, "tag", "ls", ref.name).split()

    def catalog(self, place: Place) -> list[str]:
        return self._regctl(place, "repo", "ls", place.address).split()

    def delete(self, ref: Ref) -> None:
        self._regctl(ref.place, "manifest", "delete", "--force-tag-dereference", str(ref))

    def attach(self, payload: bytes, ref: Ref) -> None:
        note = self.scratch() / "note"
        note.write_bytes(payload)
        kind = ["--artifact-type", ARTIFACT, "--file-media-type", "text/plain"]
        self._regctl(ref.place, "artifact", "put", *kind, "--subject", str(ref), "-f", str(note))

    def attached(self, ref: Ref) -> list[str]:
        said = self._regctl(ref.place, "artifact", "list", str(ref), "--format", "{{json .}}")
        return [found["digest"] for found in json.loads(said)["descriptors"]]

    def _regctl(self, place: Place, *arguments: str, settings: list[str] | None = None) -> str:
        home = self.scratch()
        shape = ["--tls", "enabled" if place.tls else "disabled", "--skip-check"]
        trusted = ["--cacert", place.ca.read_text()] if place.ca else []
        environment = {**self.environment(), "REGCTL_CONFIG": str(home / "config.json")}
        told = [self._path, "registry", "set", place.address, *shape, *trusted, *(settings or [])]
        run(told, environment)
        return run([self._path, *arguments], environment)


def trust(place: Place, prefix: str = "") -> list[str]:
    """The flags of oras and helm that say how to speak to a registry."""
    if not place.tls:
        return [f"--{prefix}plain-http"]
    return [f"--{prefix}ca-file", str(place.ca)] if place.ca else []


def blobs(folder: Path) -> bytes:
    """All layers of all images in a layout, unpacked."""
    found = []
    for blob in sorted((folder / "blobs/sha256").iterdir()):
        content = blob.read_bytes()
        if content.startswith(b"{") and json.loads(content).get("mediaType") == MANIFEST:
            found += [folder / "blobs/sha256" / layer["digest"][7:] for layer in json.loads(content)["layers"]]
    return b"".join(unpacked(layer.read_bytes()) for layer in found)
