"""The clients that are recorded: what each of them does between two answers of its own command line.

A client is a function that drives it through `Stage` and returns its version. It may use all of the registry
behind `stage.address`, which is empty at first and nobody else's.
"""

import contextlib
import json
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.client_programs import COSIGN, CRANE, HELM, ORAS, REGCTL
from helpers.docker_engine import Failed, engine, need, run
from helpers.go_programs import install
from helpers.skopeo import Layout, Skopeo, digest_of

#: bytes of a layer: several reads of a socket, several pieces of docker's
LAYER = 150_000


@dataclass(frozen=True, slots=True)
class Stage:
    """`operation(name)` names what comes next in the recording."""

    address: str
    folder: Path
    operation: Callable[[str], None]

    def noise(self, name: str, length: int = LAYER) -> bytes:
        """Bytes that do not compress."""
        return random.Random(name).randbytes(length)

    def place(self, name: str) -> Path:
        """A folder of this name, made when missing."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def layout(self, name: str) -> tuple[Layout, str]:
        """An image of one layer; the layout and how skopeo calls it."""
        layout = Layout(self.place(name))
        return layout, layout.finish(name, layout.image("amd64", {f"{name}.bin": self.noise(name)}))

    def index(self, name: str) -> tuple[Layout, str]:
        """An index over two platforms."""
        layout = Layout(self.place(name))
        images = [layout.image(each, {f"{each}.bin": self.noise(name + each)}) for each in ("amd64", "arm64")]
        return layout, layout.finish(name, layout.index(*images))


def skopeo(stage: Stage) -> str:
    tool = Skopeo.found(stage.place("skopeo"))
    base = f"docker://{stage.address}/skopeo"
    layout, source = stage.layout("app")
    digest = json.loads((layout.folder / "index.json").read_text())["manifests"][0]["digest"]
    plain = "--tls-verify=false"

    stage.operation("push")
    tool.copy(source, f"{base}/app:1")
    stage.operation("push again")
    tool.copy(source, f"{base}/app:1")
    stage.operation("copy to another repository")
    tool.copy(f"{base}/app:1", f"{base}/deep/copy:1")
    stage.operation("pull by tag")
    tool.copy(f"{base}/app:1", f"oci:{stage.place('tag')}:app")
    stage.operation("pull by digest")
    tool.copy(f"{base}/app@{digest}", f"oci:{stage.place('digest')}:app")
    stage.operation("push compressed as zstd, on the fly")
    tool.copy(source, f"{base}/zstd:1", "--dest-compress-format=zstd", "--dest-compress")
    stage.operation("push an index")
    tool.copy(stage.index("multi")[1], f"{base}/multi:1", "--all")
    stage.operation("pull an index")
    tool.copy(f"{base}/multi:1", f"oci:{stage.place('index')}:multi", "--all")
    stage.operation("inspect")
    tool("inspect", plain, f"{base}/app:1")
    stage.operation("list")
    tool("list-tags", plain, f"{base}/app")
    stage.operation("pull what is not there")
    tool("inspect", plain, f"{base}/app:absent", ok=False)
    stage.operation("delete")
    tool("delete", plain, f"{base}/app:1")
    stage.operation("delete again")
    tool("delete", plain, f"{base}/app:1", ok=False)
    return _version(["skopeo", "--version"])


def docker(stage: Stage) -> str:
    with engine(stage.place("engine")) as tool:
        base = f"{stage.address}/docker"
        for name in ("app", "amd64", "arm64"):
            context = stage.place(f"context-{name}")
            (context / "noise.bin").write_bytes(stage.noise(name))
            (context / "Dockerfile").write_text('FROM scratch\nCOPY noise.bin /noise.bin\nCMD ["/noise.bin"]\n')
            tool("build", "-q", "-t", f"{base}/{name}:1", str(context))
        stage.operation("push")
        pushed = tool("push", f"{base}/app:1")
        digest = re.findall(r"digest: (sha256:[0-9a-f]{64})", pushed)[0]
        stage.operation("push again")
        tool("push", f"{base}/app:1")
        tool("tag", f"{base}/app:1", f"{base}/deep/mounted:1")
        stage.operation("mount")
        tool("push", f"{base}/deep/mounted:1")
        tool.forget(f"{base}/app:1", f"{base}/deep/mounted:1")
        stage.operation("pull by tag")
        tool("pull", f"{base}/app:1")
        stage.operation("pull again")
        tool("pull", f"{base}/app:1")
        tool.forget(f"{base}/app:1")
        stage.operation("pull by digest")
        tool("pull", f"{base}/app@{digest}")
        stage.operation("push an index")
        tool("tag", f"{base}/amd64:1", f"{base}/multi:amd64")
        tool("tag", f"{base}/arm64:1", f"{base}/multi:arm64")
        tool("push", f"{base}/multi:amd64")
        tool("push", f"{base}/multi:arm64")
        tool("manifest", "create", "--insecure", f"{base}/multi:1", f"{base}/multi:amd64", f"{base}/multi:arm64")
        tool("manifest", "annotate", f"{base}/multi:1", f"{base}/multi:arm64", "--arch", "arm64")
        tool("manifest", "push", "--insecure", f"{base}/multi:1")
        tool.forget(f"{base}/amd64:1", f"{base}/arm64:1", f"{base}/multi:amd64", f"{base}/multi:arm64")
        stage.operation("pull an index")
        tool("pull", f"{base}/multi:1")
        stage.operation("list")
        tool("pull", "-a", f"{base}/app")
        stage.operation("pull what is not there")
        tool("pull", f"{base}/app:absent", ok=False)
        server = tool("version", "--format", "{{.Server.Version}}").strip().partition("+")[0]
        return f"{tool('version', '--format', '{{.Client.Version}}').strip()}-engine-{server}"


def podman(stage: Stage) -> str:
    need("podman")
    home = stage.place("podman")
    policy = stage.place("podman/.config/containers") / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (home / "auth.json").write_text("{}")
    (home / "registries.conf").write_text(f'[[registry]]\nlocation = "{stage.address}"\ninsecure = true\n')
    environment = {
        **os.environ,
        "HOME": str(home),
        "CONTAINERS_REGISTRIES_CONF": str(home / "registries.conf"),
        "REGISTRY_AUTH_FILE": str(home / "auth.json"),
    }
    storage = ["--root", str(home / "graph"), "--runroot", str(home / "run"), "--storage-driver", "vfs"]

    def tool(*words: str, ok: bool = True) -> str:
        return run(["podman", *storage, *words], environment, ok=ok)

    base = f"{stage.address}/podman"
    image = tool("pull", "-q", stage.layout("app")[1]).split()[-1]
    tool("tag", image, f"{base}/app:1", f"{base}/deep/mounted:1")
    stage.operation("push")
    tool("push", "-q", "--digestfile", str(home / "digest"), f"{base}/app:1")
    stage.operation("push again")
    tool("push", "-q", f"{base}/app:1")
    stage.operation("mount")
    tool("push", "-q", f"{base}/deep/mounted:1")
    tool("rmi", "-af")
    stage.operation("pull by tag")
    tool("pull", "-q", f"{base}/app:1")
    stage.operation("pull again")
    tool("pull", "-q", f"{base}/app:1")
    tool("rmi", "-af")
    stage.operation("pull by digest")
    tool("pull", "-q", f"{base}/app@{(home / 'digest').read_text().strip()}")
    stage.operation("push an index")
    tool("manifest", "create", "multi")
    tool("manifest", "add", "--all", "multi", stage.index("multi")[1])
    tool("manifest", "push", "--all", "multi", f"docker://{base}/multi:1")
    stage.operation("pull an index")
    tool("pull", "-q", f"{base}/multi:1")
    stage.operation("list")
    tool("search", "--list-tags", f"{base}/app")
    stage.operation("search")
    tool("search", f"{stage.address}/pod")
    stage.operation("pull what is not there")
    tool("pull", "-q", f"{base}/app:absent", ok=False)
    return _version(["podman", "--version"])


def ctr(stage: Stage) -> str:
    need("ctr", "containerd")
    with _containerd(stage.place("containerd")) as socket:
        base = f"{stage.address}/ctr"

        def tool(*words: str, ok: bool = True, namespace: str = "one") -> str:
            return run(["ctr", "-a", socket, "-n", namespace, "images", *words], dict(os.environ), ok=ok)

        for name, (layout, _) in {"app": stage.layout("app"), "multi": stage.index("multi")}.items():
            archive = stage.folder / f"{name}.tar"
            run(["tar", "-C", str(layout.folder), "-cf", str(archive), "."], dict(os.environ))
            tool("import", "--no-unpack", "--all-platforms", "--index-name", f"{base}/{name}:1", str(archive))
        plain = "--plain-http"
        stage.operation("push")
        tool("push", plain, f"{base}/app:1")
        stage.operation("push again")
        tool("push", plain, f"{base}/app:1")
        stage.operation("push an index")
        tool("push", plain, f"{base}/multi:1")
        digest = _digest(tool("ls", f"name=={base}/app:1"))
        stage.operation("pull by tag")
        tool("pull", plain, "--snapshotter", "native", f"{base}/app:1", namespace="two")
        stage.operation("pull by digest")
        tool("pull", plain, "--snapshotter", "native", f"{base}/app@{digest}", namespace="three")
        stage.operation("pull an index")
        tool("pull", plain, "--snapshotter", "native", "--all-platforms", f"{base}/multi:1", namespace="two")
        stage.operation("mount")
        tool("tag", f"{base}/app:1", f"{base}/deep/mounted:1", namespace="two")
        tool("push", plain, f"{base}/deep/mounted:1", namespace="two")
        stage.operation("pull what is not there")
        tool("pull", plain, f"{base}/app:absent", ok=False)
    return _version(["containerd", "--version"])


def crane(stage: Stage) -> str:
    environment = {**os.environ, "DOCKER_CONFIG": str(stage.place("config"))}
    program = str(install(CRANE))

    def tool(*words: str, ok: bool = True) -> str:
        return run([program, *words], environment, ok=ok)

    base = f"{stage.address}/crane"
    layout, index = stage.layout("app")[0], stage.index("multi")[0]
    stage.operation("push")
    tool("push", str(layout.folder), f"{base}/app:1")
    stage.operation("push again")
    tool("push", str(layout.folder), f"{base}/app:1")
    stage.operation("copy to another repository")
    tool("copy", f"{base}/app:1", f"{base}/deep/copy:1")
    stage.operation("tag")
    tool("tag", f"{base}/app:1", "second")
    stage.operation("digest")
    digest = tool("digest", f"{base}/app:1").strip()
    stage.operation("pull by tag")
    tool("pull", "--format", "oci", f"{base}/app:1", str(stage.folder / "by-tag"))
    stage.operation("pull by digest")
    tool("pull", "--format", "oci", f"{base}/app@{digest}", str(stage.folder / "by-digest"))
    stage.operation("push an index")
    tool("push", "--index", str(index.folder), f"{base}/multi:1")
    stage.operation("pull an index")
    tool("pull", "--format", "oci", f"{base}/multi:1", str(stage.folder / "whole"))
    stage.operation("list")
    tool("ls", f"{base}/app")
    stage.operation("catalog")
    tool("catalog", stage.address)
    stage.operation("delete a tag")
    tool("delete", f"{base}/app:second")
    stage.operation("delete by digest")
    tool("delete", f"{base}/app@{digest}")
    stage.operation("pull what is not there")
    tool("manifest", f"{base}/app:1", ok=False)
    return CRANE.version.removeprefix("v")


def oras(stage: Stage) -> str:
    environment = {**os.environ, "DOCKER_CONFIG": str(stage.place("config"))}
    program, work = str(install(ORAS)), stage.place("work")
    (work / "noise.bin").write_bytes(stage.noise("noise"))
    (work / "signature.json").write_text('{"signed": "yes"}')

    def tool(*words: str, ok: bool = True) -> str:
        return run([program, *words], environment, ok=ok, cwd=work)

    base, plain = f"{stage.address}/oras", "--plain-http"
    push = ["push", plain, "--artifact-type", "application/vnd.example.noise"]
    stage.operation("push")
    digest = _digest(tool(*push, f"{base}/app:1", "noise.bin"))
    stage.operation("push again")
    tool(*push, f"{base}/app:1", "noise.bin")
    stage.operation("attach")
    tool("attach", plain, "--artifact-type", "application/vnd.example.signature", f"{base}/app:1", "signature.json")
    stage.operation("discover")
    tool("discover", plain, "--format", "tree", f"{base}/app:1")
    tool("discover", plain, "--format", "tree", "--artifact-type", "application/vnd.example.absent", f"{base}/app:1")
    stage.operation("copy with referrers")
    tool("cp", "-r", "--from-plain-http", "--to-plain-http", f"{base}/app:1", f"{base}/deep/copy:1")
    stage.operation("pull by tag")
    tool("pull", plain, "-o", "by-tag", f"{base}/app:1")
    stage.operation("pull by digest")
    tool("pull", plain, "-o", "by-digest", f"{base}/app@{digest}")
    stage.operation("tag")
    tool("tag", plain, f"{base}/app:1", "second", "third")
    stage.operation("make and push an index")
    tool("manifest", "index", "create", plain, f"{base}/app:index", "1", "second")
    stage.operation("list")
    tool("repo", "tags", plain, f"{base}/app")
    tool("repo", "ls", plain, stage.address)
    stage.operation("fetch a blob and delete it")
    stored = digest_of((work / "noise.bin").read_bytes())
    tool("blob", "fetch", plain, "--descriptor", f"{base}/app@{stored}")
    stage.operation("delete")
    tool("manifest", "delete", plain, "-f", f"{base}/app:index")
    stage.operation("pull what is not there")
    tool("pull", plain, f"{base}/app:absent", ok=False)
    return ORAS.version.removeprefix("v")


def regctl(stage: Stage) -> str:
    environment = {**os.environ, "REGCTL_CONFIG": str(stage.folder / "regctl.json")}
    program = str(install(REGCTL))

    def tool(*words: str, ok: bool = True) -> str:
        return run([program, *words], environment, ok=ok)

    base = f"{stage.address}/regctl"
    layout, index = stage.layout("app")[0], stage.index("multi")[0]
    tool("registry", "set", "--tls", "disabled", stage.address)
    stage.operation("push")
    tool("image", "copy", f"ocidir://{layout.folder}:app", f"{base}/app:1")
    stage.operation("push again")
    tool("image", "copy", f"ocidir://{layout.folder}:app", f"{base}/app:1")
    stage.operation("mount")
    tool("image", "copy", f"{base}/app:1", f"{base}/deep/mounted:1")
    stage.operation("push in chunks")
    tool("registry", "set", "--blob-max", "40000", "--blob-chunk", "40000", stage.address)
    tool("image", "copy", f"ocidir://{stage.layout('chunked')[0].folder}:chunked", f"{base}/chunked:1")
    stage.operation("digest")
    digest = tool("image", "digest", f"{base}/app:1").strip()
    stage.operation("pull by tag")
    tool("image", "copy", f"{base}/app:1", f"ocidir://{stage.folder}/by-tag:app")
    stage.operation("pull by digest")
    tool("image", "copy", f"{base}/app@{digest}", f"ocidir://{stage.folder}/by-digest:app")
    stage.operation("push an index")
    tool("image", "copy", f"ocidir://{index.folder}:multi", f"{base}/multi:1")
    stage.operation("pull an index")
    tool("image", "copy", f"{base}/multi:1", f"ocidir://{stage.folder}/whole:multi")
    stage.operation("put an artifact with a subject")
    (stage.folder / "note.json").write_text('{"note": 1}')
    tool("artifact", "put", "--artifact-type", "application/vnd.example.note", "--subject", f"{base}/app:1",
         "--file", str(stage.folder / "note.json"))  # fmt: skip
    tool("artifact", "list", f"{base}/app:1")
    stage.operation("list")
    tool("tag", "ls", f"{base}/app")
    tool("repo", "ls", stage.address)
    stage.operation("delete a tag")
    tool("tag", "delete", f"{base}/multi:1")
    stage.operation("delete by digest")
    tool("manifest", "delete", f"{base}/app@{digest}")
    stage.operation("pull what is not there")
    tool("manifest", "get", f"{base}/app:1", ok=False)
    return REGCTL.version.removeprefix("v")


def helm(stage: Stage) -> str:
    home = stage.place("helm")
    environment = {**os.environ, **{f"HELM_{name}_HOME": str(home / name) for name in ("CONFIG", "CACHE", "DATA")}}
    program, plain = str(install(HELM)), "--plain-http"

    def tool(*words: str, ok: bool = True) -> str:
        return run([program, *words], environment, ok=ok, cwd=home)

    base = f"oci://{stage.address}/helm"
    chart = stage.place("chart/app")
    (chart / "values.yaml").write_text("replicas: 1\n")
    for version in ("1.0.0", "1.1.0+build.5"):
        (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: app\nversion: {version}\n")
        tool("package", str(chart))
    stage.operation("push")
    tool("push", plain, "app-1.0.0.tgz", base)
    stage.operation("push again")
    tool("push", plain, "app-1.0.0.tgz", base)
    stage.operation("push a version with a plus")
    tool("push", plain, "app-1.1.0+build.5.tgz", base)
    stage.operation("pull a version")
    pulled = tool("pull", plain, f"{base}/app", "--version", "1.0.0", "-d", str(stage.place("one")))
    stage.operation("pull the newest")
    tool("pull", plain, f"{base}/app", "-d", str(stage.place("two")))
    stage.operation("pull by digest")
    tool("pull", plain, f"{base}/app@{_digest(pulled)}", "-d", str(stage.place("three")))
    stage.operation("show")
    tool("show", "chart", plain, f"{base}/app", "--version", "^1.0")
    stage.operation("pull what is not there")
    tool("pull", plain, f"{base}/absent", "--version", "1.0.0", ok=False)
    return HELM.version.removeprefix("v")


def cosign(stage: Stage) -> str:
    """Signs with a key and without a log: what a registry sees of it is the same."""
    home = stage.place("cosign")
    environment = {**os.environ, "COSIGN_PASSWORD": "", "HOME": str(home), "DOCKER_CONFIG": str(home)}
    program = str(install(COSIGN))

    def tool(*words: str, ok: bool = True) -> str:
        return run([program, *words], environment, ok=ok, cwd=home)

    image = f"{stage.address}/cosign/app"
    pushed = run([str(install(CRANE)), "push", str(stage.layout("app")[0].folder), f"{image}:1"], environment)
    pinned, plain = f"{image}@{_digest(pushed)}", "--allow-http-registry"
    (home / "predicate.json").write_text('{"built": "here"}')
    (home / "config.json").write_text("{}")
    tool("generate-key-pair")
    key = ["--key", "cosign.key", "--use-signing-config=false", "--tlog-upload=false", "-y", plain]
    stage.operation("sign")
    tool("sign", *key, pinned)
    stage.operation("sign again")
    tool("sign", *key, pinned)
    stage.operation("verify")
    tool("verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", plain, f"{image}:1")
    stage.operation("attest")
    tool("attest", *key, "--predicate", "predicate.json", "--type", "custom", pinned)
    stage.operation("tree")
    tool("tree", plain, f"{image}:1")
    stage.operation("sign the old way, by tags")
    tool("sign", *key, "--new-bundle-format=false", pinned)
    stage.operation("verify what is not there")
    tool("verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", plain, f"{image}:absent", ok=False)
    return COSIGN.version.removeprefix("v")


@contextlib.contextmanager
def _containerd(folder: Path) -> Iterator[str]:
    """A containerd of its own; its socket."""
    socket = folder / "containerd.sock"
    off = ", ".join(f'"io.containerd.{name}"' for name in (
        "grpc.v1.cri", "snapshotter.v1.devmapper", "snapshotter.v1.btrfs", "snapshotter.v1.zfs", "snapshotter.v1.aufs",
    ))  # fmt: skip
    config = folder / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\ndisabled_plugins = [{off}]\n'
        f'[grpc]\naddress = "{socket}"\n'
        # Else a second namespace finds what the first has, and asks the registry for nothing.
        '[plugins."io.containerd.metadata.v1.bolt"]\ncontent_sharing_policy = "isolated"\n'
    )
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(["containerd", "--config", str(config)], stdout=log, stderr=log)
    try:
        ends = time.monotonic() + 30
        while not socket.exists():
            if time.monotonic() > ends or daemon.poll() is not None:
                raise Failed(f"containerd did not start\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield str(socket)
    finally:
        daemon.terminate()
        daemon.wait(30)


def _digest(told: str) -> str:
    found = re.findall(r"sha256:[0-9a-f]{64}", told)
    if not found:
        raise Failed(f"no digest in: {told}")
    return found[-1]


def _version(command: list[str]) -> str:
    return re.findall(r"\d+\.\d+\.\d+", run(command, dict(os.environ)))[0]


CLIENTS: dict[str, Callable[[Stage], str]] = {
    each.__name__: each for each in (skopeo, docker, podman, ctr, crane, oras, regctl, helm, cosign)
}
