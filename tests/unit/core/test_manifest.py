"""Reading manifests: every input is hostile."""

import json
from typing import Any

import pytest

from tenure.core import media
from tenure.core.digest import Digest
from tenure.core.errors import ManifestInvalid
from tenure.core.manifest import MAX_DEPTH, MAX_DESCRIPTORS, Kind, Role, parse_manifest

BLOB = {"mediaType": "application/octet-stream", "digest": str(Digest.of(b"x")), "size": 1}
IMAGE: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": media.OCI_MANIFEST,
    "config": {**BLOB, "mediaType": media.OCI_CONFIG},
    "layers": [BLOB],
}
UNTYPED = {key: value for key, value in IMAGE.items() if key != "mediaType"}
INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": []}


def parse(body: Any, content_type: str | None = None) -> Any:
    return parse_manifest(json.dumps(body).encode(), content_type)


def test_an_image_names_its_config_and_layers_once_each() -> None:
    manifest = parse(IMAGE)
    assert manifest.kind is Kind.IMAGE
    assert {digest: role for digest, (role, _) in manifest.blobs().items()} == {Digest.of(b"x"): Role.CONFIG}


def test_an_index_tells_manifests_from_blobs() -> None:
    child = {**BLOB, "mediaType": media.DOCKER_MANIFEST}
    cache = {**BLOB, "digest": str(Digest.of(b"layer"))}
    manifest = parse({**INDEX, "manifests": [child, cache]})
    assert manifest.child_digests() == (Digest.of(b"x"),)
    assert [role for role, _ in manifest.blobs().values()] == [Role.ENTRY]


def test_an_empty_index_is_taken() -> None:
    assert parse(INDEX).children == ()


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (UNTYPED, None, media.OCI_MANIFEST),
        ({"schemaVersion": 2, "manifests": []}, None, media.OCI_INDEX),
        (UNTYPED, media.DOCKER_MANIFEST, media.DOCKER_MANIFEST),
        (IMAGE, f"{media.OCI_MANIFEST}; charset=utf-8", media.OCI_MANIFEST),
    ],
)  # fmt: skip
def test_the_media_type_comes_from_body_header_or_fields(body: Any, content_type: str | None, expected: str) -> None:
    assert parse(body, content_type).media_type == expected


def test_the_type_of_an_artifact_is_its_own_or_its_configs() -> None:
    assert parse(IMAGE).artifact_type == media.OCI_CONFIG
    assert parse({**IMAGE, "artifactType": "application/sbom"}).artifact_type == "application/sbom"
    assert parse(INDEX).artifact_type is None


def test_unknown_types_are_kept_and_what_they_name_is_followed() -> None:
    manifest = parse({**IMAGE, "mediaType": "application/vnd.someone.v1+json"})
    assert manifest.media_type == "application/vnd.someone.v1+json" and manifest.blobs()
    assert parse({"mediaType": "application/vnd.someone.v1+json"}).kind is Kind.OPAQUE


@pytest.mark.parametrize(
    ("body", "content_type", "sentence"),
    [
        ([], None, "JSON object"),
        ({**IMAGE, "manifests": []}, None, "not both"),
        (IMAGE, media.OCI_INDEX, "Content-Type"),
        ({**IMAGE, "schemaVersion": 1, "mediaType": None}, None, "schema 1"),
        ({"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "layers": []}, None, "config"),
        ({"schemaVersion": 2, "mediaType": media.OCI_INDEX}, None, "manifests array"),
        ({**IMAGE, "layers": {}}, None, "array"),
        ({**IMAGE, "layers": [1]}, None, "descriptor"),
        ({**IMAGE, "layers": [{**BLOB, "size": -1}]}, None, "size"),
        ({**IMAGE, "layers": [{**BLOB, "size": True}]}, None, "size"),
        ({**IMAGE, "layers": [{**BLOB, "size": 1 << 63}]}, None, "size"),
        ({**IMAGE, "layers": [{**BLOB, "digest": "sha256:../.."}]}, None, "digest"),
        ({**IMAGE, "layers": [{**BLOB, "digest": 5}]}, None, "digest"),
        ({**IMAGE, "layers": [{**BLOB, "mediaType": ""}]}, None, "mediaType"),
        ({**IMAGE, "layers": [BLOB] * MAX_DESCRIPTORS}, None, "at most"),
        ({**IMAGE, "annotations": {"a": 1}}, None, "strings"),
        ({**IMAGE, "artifactType": 1}, None, "artifactType"),
        ({**IMAGE, "mediaType": "a b\u00e9"}, None, "type/subtype"),
        ({**IMAGE, "mediaType": 7}, None, "string"),
        ({**IMAGE, "subject": "x"}, None, "subject"),
        ({**IMAGE, "Layers": []}, None, "case"),
        ({**IMAGE, "layers": [{**BLOB, "Digest": BLOB["digest"]}]}, None, "case"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(body: Any, content_type: str | None, sentence: str) -> None:
    with pytest.raises(ManifestInvalid, match=sentence):
        parse(body, content_type)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"not json", b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"a": NaN}', b'{"a":1,"a":2}',
        b'{"config":{"x":{"k":1,"k":2}}}', b"[" * 5000, b'{"a":' * 5000, b'{"n": ' + b"9" * 5000 + b"}",
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    ],
)  # fmt: skip
def test_broken_json_is_refused_without_harm(payload: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        parse_manifest(payload)


def test_brackets_inside_strings_are_no_depth() -> None:
    assert parse({**IMAGE, "annotations": {"a": "[" * 5000 + '\\"{'}}).annotations


def test_a_foreign_layer_may_be_absent() -> None:
    foreign = {**BLOB, "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}
    assert parse({**IMAGE, "layers": [foreign]}).layers[0].may_be_absent
    assert not parse(IMAGE).layers[0].may_be_absent
