"""skopeo, podman and buildah: three programs over one library, each with stores of its own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from helpers.client import Client, Ref, Row
from helpers.client_place import Place, unpacked
from helpers.docker_engine import need
from helpers.skopeo import Layout

DEBIAN = "Debian package"
_NO_REFERRERS = "it has no command for referrers"
_NO_CHARTS = "it knows nothing of charts"
_NO_SIGNING = "its signatures do not go through the registry's API"
_ONE_PATCH = "it sends a blob in one PATCH"
_OWN_STORE = "it copies only through its own store: see the row of the mounted layer"


class Containers(Client):
    """What the three have in common."""

    program: ClassVar[str]
    origin = DEBIAN

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        need(self.program)
        (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (folder / "registries.conf").write_text("")
        (folder / "containers.conf").write_text("")
        (folder / "auth.json").write_text("{}")

    def environment(self, place: Place | None = None) -> dict[str, str]:
        return {
            **super().environment(),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "REGISTRY_AUTH_FILE": str(self.folder / "auth.json"),
        }

    def version(self) -> str:
        return self.run(self.program, "--version").split()[2]

    @staticmethod
    def trust(place: Place, prefix: str = "") -> list[str]:
        """The flags that say how to speak to a registry."""
        if not place.tls:
            return [f"--{prefix}tls-verify=false"]
        return [f"--{prefix}cert-dir={place.ca.parent}"] if place.ca else [f"--{prefix}tls-verify=true"]


class SkopeoClient(Containers):
    name = program = "skopeo"
    without: ClassVar[Mapping[Row, str]] = {
        Row.CATALOG: "it has no command for it",
        Row.REFERRERS: _NO_REFERRERS,
        Row.CHUNKS: _ONE_PATCH,
        Row.VERSIONS: _NO_CHARTS,
        Row.MIRROR: "it is podman's and buildah's library, without a mirror protocol",
        Row.SIGN: _NO_SIGNING,
    }

    def push(self, payload: bytes, ref: Ref) -> None:
        layout = Layout(self.scratch())
        self._copy(layout.finish("it", layout.image("amd64", {"payload": payload})), ref)

    def pull(self, ref: Ref, architecture: str = "") -> bytes:
        out = self.scratch()
        chosen = ["--override-arch", architecture] if architecture else []
        self._skopeo(*chosen, "copy", *self.trust(ref.place, "src-"), f"docker://{ref}", f"dir:{out}")
        return layers(out)

    def push_index(self, payloads: Mapping[str, bytes], ref: Ref) -> None:
        layout = Layout(self.scratch())
        images = [layout.image(architecture, {"payload": payload}) for architecture, payload in payloads.items()]
        self._copy(layout.finish("it", layout.index(*images)), ref)

    def mount(self, payload: bytes, source: Ref, target: Ref) -> None:
        self.copy(source, target)

    def copy(self, source: Ref, target: Ref) -> None:
        trust = self.trust(source.place, "src-")
        self._copy(f"docker://{source}", target, *trust)

    def tags(self, ref: Ref) -> list[str]:
        said = self._skopeo("list-tags", *self.trust(ref.place), f"docker://{ref.name}")
        found: list[str] = json.loads(said)["Tags"]
        return found

    def delete(self, ref: Ref) -> None:
        self._skopeo("delete", *self.trust(ref.place), f"docker://{ref}")

    def _copy(self, source: str, target: Ref, *flags: str) -> None:
        self._skopeo("copy", "--all", *flags, *self.trust(target.place, "dest-"), source, f"docker://{target}")

    def _skopeo(self, *arguments: str) -> str:
        return self.run("skopeo", "--policy", str(self.folder / "policy.json"), *arguments)


class Stored(Containers):
    """podman and buildah: both build into a store and push from it."""

    def command(self, *arguments: str, place: Place | None = None) -> str:
        """Everything in folders of our own; no service, no network, no cgroups of ours."""
        store = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run"), "--storage-driver", "vfs"]
        return self.run(self.program, *store, *arguments, place=place)

    def push(self, payload: bytes, ref: Ref) -> None:
        self._build(payload, str(ref))
        self._push(ref)

    def pull(self, ref: Ref, architecture: str = "") -> bytes:
        self.forget()
        chosen = ["--arch", architecture] if architecture else []
        self.command("pull", "-q", *chosen, *self.trust(ref.place), str(ref))
        out = self.scratch()
        self.command("push", "-q", str(ref), f"dir:{out}")
        return layers(out)

    def push_index(self, payloads: Mapping[str, bytes], ref: Ref) -> None:
        made = f"localhost/list-{next(self._numbers)}"
        self.command("manifest", "create", made)
        for architecture, payload in payloads.items():
            image = f"{made}-{architecture}"
            self._build(payload, image, "--arch", architecture)
            self.command("manifest", "add", made, f"containers-storage:{image}")
        self.command("manifest", "push", "--all", *self.trust(ref.place), made, f"docker://{ref}")

    def mount(self, payload: bytes, source: Ref, target: Ref) -> None:
        self.command("tag", str(source), str(target))
        self._push(target)

    def forget(self) -> None:
        self.command("rmi", "-a", "-f")

    def _push(self, ref: Ref) -> None:
        self.command("push", "-q", *self.trust(ref.place), str(ref))

    def _build(self, payload: bytes, name: str, *flags: str) -> None:
        folder = self.scratch()
        (folder / "payload").write_bytes(payload)
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY payload /payload\n")
        build = ["build", "-q", "--isolation", "chroot", "--layers", "--timestamp", "0"]
        policy = ["--signature-policy", str(self.folder / "policy.json")]
        self.command(*build, *policy, *flags, "-t", name, str(folder))


class Podman(Stored):
    name = program = "podman"
    without: ClassVar[Mapping[Row, str]] = {
        Row.COPY: _OWN_STORE,
        Row.DELETE: "it has no command for it",
        Row.REFERRERS: _NO_REFERRERS,
        Row.CHUNKS: _ONE_PATCH,
        Row.VERSIONS: _NO_CHARTS,
        Row.MIRROR: "its mirrors are ordinary pulls: see the row of pull by tag",
        Row.SIGN: _NO_SIGNING,
    }

    def command(self, *arguments: str, place: Place | None = None) -> str:
        return super().command("--cgroup-manager", "cgroupfs", "--events-backend", "none", *arguments, place=place)

    def tags(self, ref: Ref) -> list[str]:
        return [line.split()[-1] for line in self._search(ref.place, "--list-tags", ref.name)]

    def catalog(self, place: Place) -> list[str]:
        return [line.split()[0].removeprefix(f"{place.address}/") for line in self._search(place, f"{place.address}/")]

    def _search(self, place: Place, *arguments: str) -> list[str]:
        """A line for each found, without the table's head. It has no flag for an authority."""
        verify = f"--tls-verify={str(place.tls).lower()}"
        said = self.command("search", "--limit", "1000", "--no-trunc", verify, *arguments, place=place)
        return said.splitlines()[1:]

    def environment(self, place: Place | None = None) -> dict[str, str]:
        return {**Client.environment(self, place), **super().environment()}


class Buildah(Stored):
    name = program = "buildah"
    without: ClassVar[Mapping[Row, str]] = {
        Row.COPY: _OWN_STORE,
        Row.TAGS: "it has no command for it",
        Row.CATALOG: "it has no command for it",
        Row.DELETE: "it has no command for it",
        Row.REFERRERS: _NO_REFERRERS,
        Row.CHUNKS: _ONE_PATCH,
        Row.VERSIONS: _NO_CHARTS,
        Row.MIRROR: "its mirrors are ordinary pulls: see the row of pull by tag",
        Row.SIGN: _NO_SIGNING,
    }


def layers(folder: Path) -> bytes:
    """All layers of an image in a `dir:`, unpacked."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    found = (folder / layer["digest"].removeprefix("sha256:") for layer in manifest["layers"])
    return b"".join(unpacked(layer.read_bytes()) for layer in found)
