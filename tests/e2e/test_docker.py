"""The docker engine: push, push again, mount, pull by tag and by digest, several platforms."""

import os
import platform
import re
from pathlib import Path

import pytest

from helpers.docker_engine import DockerEngine
from helpers.profiles import Profile
from helpers.skopeo import Layout, Skopeo

pytestmark = pytest.mark.e2e

#: crosses several parts of a multipart upload, and several chunks of docker's
LARGE = 24 << 20


def test_push_then_pull_by_tag_and_by_digest(registry: Profile, docker: DockerEngine, build, tmp_path: Path) -> None:
    name = f"{registry.address}/docker/app:1"
    build(name, {"hello.txt": b"hello\n", "large.bin": os.urandom(LARGE)})
    pushed = docker("push", name)
    digest = re.search(r"digest: (sha256:[0-9a-f]{64})", pushed)
    assert digest, pushed

    docker.forget(name)
    assert f"Digest: {digest[1]}" in docker("pull", name)
    assert docker.content(name, "/hello.txt", tmp_path / "out") == b"hello\n"

    docker.forget(name)
    pinned = f"{registry.address}/docker/app@{digest[1]}"
    assert f"Digest: {digest[1]}" in docker("pull", pinned)
    assert docker.content(pinned, "/hello.txt", tmp_path / "out") == b"hello\n"
    docker.forget(pinned)


def test_a_second_push_sends_nothing(registry: Profile, docker: DockerEngine, build) -> None:
    name = f"{registry.address}/docker/again:1"
    build(name, {"again.txt": os.urandom(100)})
    docker("push", name)
    assert "Layer already exists" in docker("push", name)
    docker.forget(name)


def test_a_layer_is_mounted_from_another_repository(registry: Profile, docker: DockerEngine, build) -> None:
    name, other = f"{registry.address}/docker/source:1", f"{registry.address}/docker/deep/target:1"
    build(name, {"mounted.bin": os.urandom(1 << 20)})
    docker("push", name)
    docker("tag", name, other)
    assert "Mounted from docker/source" in docker("push", other)
    docker.forget(name, other)
    docker("pull", other)
    docker.forget(other)


def test_the_platform_of_this_machine_is_pulled_from_an_index(
    registry: Profile, docker: DockerEngine, skopeo: Skopeo, tmp_path: Path
) -> None:
    mine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    other = "arm64" if mine == "amd64" else "amd64"
    layout = Layout(tmp_path / "layout")
    top = layout.index(
        layout.image(mine, {"platform.txt": b"mine"}), layout.image(other, {"platform.txt": b"the other one"})
    )
    name = f"{registry.address}/docker/multi:1"
    skopeo.copy(layout.finish("multi", top), f"docker://{name}", "--all")
    assert f"Digest: {top['digest']}" in docker("pull", name)
    assert docker.content(name, "/platform.txt", tmp_path / "out") == b"mine"
    docker.forget(name)


def test_an_index_is_made_with_docker_manifest(registry: Profile, docker: DockerEngine, build) -> None:
    base = f"{registry.address}/docker/listed"
    for architecture in ("amd64", "arm64"):
        build(f"{base}:{architecture}", {"it.txt": architecture.encode()})
        docker("push", f"{base}:{architecture}")
    docker("manifest", "create", "--insecure", f"{base}:all", f"{base}:amd64", f"{base}:arm64")
    docker("manifest", "annotate", f"{base}:all", f"{base}:arm64", "--arch", "arm64")
    digest = docker("manifest", "push", "--insecure", f"{base}:all").strip().splitlines()[-1]
    assert digest.startswith("sha256:")
    shown = docker("manifest", "inspect", "--insecure", f"{base}:all")
    assert '"arm64"' in shown and '"amd64"' in shown
    docker.forget(f"{base}:amd64", f"{base}:arm64")


def test_what_is_not_there_is_said_in_a_sentence(registry: Profile, docker: DockerEngine) -> None:
    said = docker("pull", f"{registry.address}/docker/absent:1", ok=False)
    assert "not found" in said or "manifest unknown" in said or "not known" in said, said
