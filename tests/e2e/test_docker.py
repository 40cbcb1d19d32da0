"""The docker engine, beyond the matrix: a large layer, and the index of another client."""

import os
import platform
import re
from pathlib import Path

import pytest

from helpers.client_place import Place
from helpers.docker_engine import DockerEngine
from helpers.skopeo import Layout, Skopeo

pytestmark = pytest.mark.e2e

#: crosses several parts of a multipart upload, and several chunks of docker's
LARGE = 24 << 20


def test_push_then_pull_by_tag_and_by_digest(registry: Place, docker: DockerEngine, build, tmp_path: Path) -> None:
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


def test_the_platform_of_this_machine_is_pulled_from_an_index(
    registry: Place, docker: DockerEngine, skopeo: Skopeo, tmp_path: Path
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
