"""skopeo, beyond the matrix: byte for byte there and back, and what a delete says."""

import json
import os
from pathlib import Path

import pytest

from helpers.client_place import Place
from helpers.skopeo import Layout, Skopeo, digest_of

pytestmark = pytest.mark.e2e


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def test_an_image_comes_back_as_it_went(registry: Place, skopeo: Skopeo, layout: Layout, tmp_path: Path) -> None:
    made = layout.image("amd64", {"data.bin": os.urandom(9 << 20)})
    name = f"{registry.address}/skopeo/app:1"
    source = layout.finish("app", made)
    skopeo.copy(source, f"docker://{name}")
    assert skopeo.digest(name) == made["digest"]
    sent = registry.received()
    skopeo.copy(source, f"docker://{name}")
    assert registry.received() == sent

    back = tmp_path / "back"
    skopeo.copy(f"docker://{registry.address}/skopeo/app@{made['digest']}", f"oci:{back}:app")
    sent = {path.name: path.read_bytes() for path in (layout.folder / "blobs/sha256").iterdir()}
    assert {path.name: path.read_bytes() for path in (back / "blobs/sha256").iterdir()} == sent


def test_an_index_comes_back_whole(registry: Place, skopeo: Skopeo, layout: Layout, tmp_path: Path) -> None:
    images = [layout.image(architecture, {"a.txt": architecture.encode()}) for architecture in ("amd64", "arm64")]
    top = layout.index(*images)
    name = f"{registry.address}/skopeo/multi:1"
    skopeo.copy(layout.finish("multi", top), f"docker://{name}", "--all")
    raw = skopeo.raw(name)
    assert digest_of(raw) == top["digest"]
    assert [child["digest"] for child in json.loads(raw)["manifests"]] == [image["digest"] for image in images]

    skopeo.copy(f"docker://{name}", f"oci:{tmp_path / 'back'}:multi", "--all")
    back = {path.name for path in (tmp_path / "back/blobs/sha256").iterdir()}
    assert back == {path.name for path in (layout.folder / "blobs/sha256").iterdir()}


def test_a_deleted_image_is_gone_at_once_and_can_be_pushed_again(
    registry: Place, skopeo: Skopeo, layout: Layout
) -> None:
    name = f"{registry.address}/skopeo/gone:1"
    made = layout.image("amd64", {"g.txt": b"g"})
    source = layout.finish("g", made)
    skopeo.copy(source, f"docker://{name}")
    skopeo("delete", "--tls-verify=false", f"docker://{name}")
    said = skopeo("inspect", "--tls-verify=false", f"docker://{name}", ok=False)
    assert "not known" in said or "unknown" in said, said
    skopeo.copy(source, f"docker://{name}")
    assert skopeo.digest(name) == made["digest"]


def test_a_child_of_an_index_is_not_deleted_and_the_reason_is_said(
    registry: Place, skopeo: Skopeo, layout: Layout
) -> None:
    child = layout.image("amd64", {"c.txt": b"c"})
    top = layout.index(child)
    skopeo.copy(layout.finish("c", top), f"docker://{registry.address}/skopeo/family:1", "--all")
    target = f"docker://{registry.address}/skopeo/family@{child['digest']}"
    skopeo("delete", "--tls-verify=false", target, ok=False)
    assert skopeo.digest(f"{registry.address}/skopeo/family@{child['digest']}") == child["digest"]
