"""containerd, driven by ctr: the client of Kubernetes' nodes."""

import contextlib
import json
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from helpers.client import Client, Ref, Row
from helpers.client_containers import DEBIAN
from helpers.client_place import unpacked
from helpers.docker_engine import START_LIMIT, STOP_LIMIT, Failed, need
from helpers.skopeo import Layout

MIRRORED = "upstream.invalid"
_CONFIG = """version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.internal.v1.opt"]
[grpc]
  address = "{0}/containerd.sock"
[ttrpc]
  address = "{0}/containerd.sock.ttrpc"
"""


class Containerd(Client):
    name = "containerd"
    origin = DEBIAN
    without: ClassVar[Mapping[Row, str]] = {
        Row.COPY: "it copies only through its own store: see the row of the mounted layer",
        Row.TAGS: "it has no command for it",
        Row.CATALOG: "it has no command for it",
        Row.DELETE: "it has no command for it",
        Row.REFERRERS: "it has no command for referrers",
        Row.CHUNKS: "it sends a blob in one PUT",
        Row.VERSIONS: "it knows nothing of charts",
        Row.SIGN: "it has no command for it",
    }

    def version(self) -> str:
        return self.run("containerd", "--version").split()[2].partition("~")[0]

    def ctr(self, *arguments: str) -> str:
        return self.run("ctr", "-a", str(self.folder / "containerd.sock"), "-n", "matrix", *arguments)

    def push(self, payload: bytes, ref: Ref) -> None:
        layout = Layout(self.scratch())
        self._import(layout, layout.image("amd64", {"payload": payload}), ref)
        self._push(ref)

    def pull(self, ref: Ref, architecture: str = "") -> bytes:
        self.forget()
        return self._pulled(str(ref), self._trust(ref), architecture or "amd64")

    def push_index(self, payloads: Mapping[str, bytes], ref: Ref) -> None:
        layout = Layout(self.scratch())
        images = [layout.image(architecture, {"payload": payload}) for architecture, payload in payloads.items()]
        self._import(layout, layout.index(*images), ref)
        self._push(ref)

    def mount(self, payload: bytes, source: Ref, target: Ref) -> None:
        # Only what was pulled is labelled with the repository it came from.
        self.pull(source)
        self.ctr("images", "tag", str(source), str(target))
        self._push(target)

    def mirrored(self, ref: Ref) -> bytes:
        """Pulls an image of another registry, for which this one is the mirror."""
        self.forget()
        hosts = self.scratch()
        (hosts / MIRRORED).mkdir()
        (hosts / MIRRORED / "hosts.toml").write_text(
            f'server = "https://{MIRRORED}"\n{_host(ref, capabilities=["pull", "resolve"])}'
        )
        return self._pulled(f"{MIRRORED}/{ref.repository}:{ref.tag}", ["--hosts-dir", str(hosts)], "amd64")

    def forget(self) -> None:
        if images := self.ctr("images", "ls", "-q").split():
            self.ctr("images", "rm", "--sync", *images)

    def _import(self, layout: Layout, top: dict[str, Any], ref: Ref) -> None:
        layout.finish(ref.tag, top)
        index = json.loads((layout.folder / "index.json").read_bytes())
        index["manifests"][0]["annotations"]["io.containerd.image.name"] = str(ref)
        (layout.folder / "index.json").write_text(json.dumps(index))
        archive = self.scratch() / "image.tar"
        with tarfile.open(archive, "w") as packed:
            packed.add(layout.folder, arcname=".")
        self.ctr("images", "import", "--no-unpack", "--all-platforms", str(archive))

    def _push(self, ref: Ref) -> None:
        self.ctr("images", "push", *self._trust(ref), str(ref))

    def _pulled(self, name: str, trust: list[str], architecture: str) -> bytes:
        platform = f"linux/{architecture}"
        self.ctr("images", "pull", *trust, "--snapshotter", "native", "--platform", platform, name)
        archive = self.scratch() / "image.tar"
        self.ctr("images", "export", "--platform", platform, str(archive), name)
        with tarfile.open(archive) as packed:
            files = [packed.extractfile(member) for member in packed if "/sha256/" in member.name and member.isfile()]
            return b"".join(unpacked(file.read()) for file in files if file)

    def _trust(self, ref: Ref) -> list[str]:
        """The flags that say how to speak to a registry."""
        if not ref.place.tls:
            return ["--plain-http"]
        hosts = self.scratch()
        (hosts / ref.place.address).mkdir()
        (hosts / ref.place.address / "hosts.toml").write_text(
            f'server = "https://{ref.place.address}"\n{_host(ref, capabilities=["pull", "resolve", "push"])}'
        )
        return ["--hosts-dir", str(hosts)]


def _host(ref: Ref, capabilities: list[str]) -> str:
    lines = [f'[host."{ref.place.scheme}://{ref.place.address}"]', f"  capabilities = {json.dumps(capabilities)}"]
    return "\n".join([*lines, *([f'  ca = "{ref.place.ca}"'] if ref.place.ca else []), ""])


@contextlib.contextmanager
def containerd(folder: Path) -> Iterator[Containerd]:
    """Runs containerd in `folder`. Raises Missing; Failed with the end of its log when it does not start."""
    need("containerd", "ctr")
    (folder / "config.toml").write_text(_CONFIG.format(folder))
    log = folder / "containerd.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            ["containerd", "--config", str(folder / "config.toml")], stdout=output, stderr=subprocess.STDOUT
        )
    client = Containerd(folder)
    try:
        _wait(daemon, client, log)
        yield client
    finally:
        daemon.terminate()
        try:
            daemon.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _wait(daemon: subprocess.Popen[bytes], client: Containerd, log: Path) -> None:
    ends = time.monotonic() + START_LIMIT
    while time.monotonic() < ends and daemon.poll() is None:
        with contextlib.suppress(Failed):
            client.ctr("version")
            return
        time.sleep(0.2)
    raise Failed("containerd did not start\n" + "\n".join(log.read_text(errors="replace").splitlines()[-20:]))
