"""Hostile and broken requests: a code of the spec and a sentence, never a 500."""

import json
from typing import Any

import pytest

from helpers.images import descriptor, make
from helpers.oci import put_image, refusal
from helpers.wire import exchange
from tenure.core import media
from tenure.core.digest import Digest

ZERO = f"sha256:{'0' * 64}"
OCI = [("Content-Type", media.OCI_MANIFEST)]


def image(**more: Any) -> bytes:
    """An image whose config is there, after put_image; `more` replaces fields."""
    body = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": descriptor(b"{}"), "layers": [], **more}
    return json.dumps(body).encode()


def bent(**more: Any) -> bytes:
    return image(config={**descriptor(b"{}"), **more})


MANIFESTS = {
    "nothing": b"",
    "no JSON": b"{",
    "HTML": b"<html></html>",
    "not an object": b"[]",
    "a string": b'"manifest"',
    "null": b"null",
    "a number that overflows": b'{"schemaVersion": 1e999}',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "BOM": b"\xef\xbb\xbf" + image(),
    "UTF-16": image().decode().encode("utf-16"),
    "NUL bytes": b"\0" * 100,
    "NaN": b'{"a": NaN}',
    "deep arrays": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep inside": image(annotations={}, x="y")[:-1] + b', "z":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a key twice": b'{"schemaVersion": 2, "layers": [], "layers": []}',
    "a key twice, deep": image(x={})[:-1] + b', "y": {"z": [{"k": 1, "k": 2}]}}',
    "a key twice, half a character": b'{"\\ud800": {}, "\\ud800": {}}',
    "a key twice, escaped": b'{"config": {}, "\\u0063onfig": {}}',
    "a huge number": b'{"a": ' + b"9" * 100_000 + b"}",
    "image and index": image(manifests=[]),
    "no config": image(config=None),
    "config is a list": image(config=[]),
    "layers is an object": image(layers={}),
    "a layer is a number": image(layers=[5]),
    "digest of another kind": bent(digest=f"md5:{'0' * 32}"),
    "digest in upper case": bent(digest=f"sha256:{'A' * 64}"),
    "digest with a path": bent(digest="sha256:../../etc/passwd"),
    "digest with NUL": bent(digest=f"sha256:{'0' * 63}\0"),
    "digest with half a character": bent(digest="sha256:\ud800"),
    "digest is a number": bent(digest=5),
    "size below zero": bent(size=-1),
    "size as text": bent(size="2"),
    "size of a googol": bent(size=10**100),
    "size is true": bent(size=True),
    "no media type": bent(mediaType=None),
    "empty media type": bent(mediaType=""),
    "annotations as a list": image(annotations=["a"]),
    "annotations that are no text": image(annotations={"a": 1}),
    "type differs from the header": image(mediaType=media.DOCKER_MANIFEST),
    "type is a number": image(mediaType=7),
    "type with half a character": image(mediaType="a/\ud800"),
    "artifactType is a list": image(artifactType=[]),
    "artifactType with NUL": image(artifactType="a/b\0"),
    "artifactType with half a character": image(artifactType="a/\ud800"),
    "descriptor type with NUL": bent(mediaType="a/b\0"),
    "descriptor type with half a character": bent(mediaType="a/\ud800"),
    "schema 1": b'{"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": [], "signatures": []}',
    "a config that is not here": image(config=descriptor(b"not here")),
    "a layer that is not here": image(layers=[descriptor(b"nor is this")]),
    "20000 layers": image(layers=[descriptor(str(n).encode()) for n in range(20_000)]),
    "subject is text": image(subject="sha256:abc"),
}


@pytest.mark.parametrize("payload", MANIFESTS.values(), ids=MANIFESTS.keys())
async def test_a_bad_manifest_is_refused_with_a_sentence(small: str, payload: bytes) -> None:
    await exchange(small, "POST", f"/v2/app/blobs/uploads/?digest={Digest.of(b'{}')}", sent=b"{}")
    status, code = refusal(await exchange(small, "PUT", "/v2/app/manifests/v1", OCI, sent=payload))
    assert (status, code) in {(400, "MANIFEST_INVALID"), (404, "MANIFEST_BLOB_UNKNOWN")}
    assert (await exchange(small, "HEAD", "/v2/app/manifests/v1")).status == 404


@pytest.mark.parametrize(
    "payload",
    [
        image(artifactType="a/b\0"),
        image(artifactType="a/\ud800"),
        bent(mediaType="a/\ud800"),
        image(annotations={"k": "\ud800", "\0": "\0"}),
        image(layers=[descriptor(b"not here", "x/\ud800")]),
    ],
)
async def test_text_that_a_database_cannot_hold_is_no_failure(base: str, payload: bytes) -> None:
    await exchange(base, "POST", f"/v2/app/blobs/uploads/?digest={Digest.of(b'{}')}", sent=b"{}")
    answer = await exchange(base, "PUT", "/v2/app/manifests/v1", OCI, sent=payload)
    assert answer.status in (201, 400, 404)
    if answer.status == 201:
        got = await exchange(base, "GET", "/v2/app/manifests/v1")
        assert got.body == payload


async def test_referrers_show_annotations_that_are_no_text_for_a_database(base: str) -> None:
    subject = make({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": []})
    body = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [], "subject": subject.descriptor()}
    odd = make({**body, "annotations": {"half": "\ud800", "nul": "\0", "line": "a\r\nb"}})
    types = [("Content-Type", media.OCI_INDEX)]
    assert (await exchange(base, "PUT", "/v2/app/manifests/x", types, sent=odd.payload)).status == 201
    answer = await exchange(base, "GET", f"/v2/app/referrers/{subject.digest}")
    assert json.loads(answer.body)["manifests"][0]["annotations"] == json.loads(odd.payload)["annotations"]


NAMES = [
    "UPPER", "a//b", "/a", "a/", "..", "a/../b", "./a", "a/.", ".a", "a.", "-a", "a-", "a___b", "a..b", "a b", "a%2Fb",
    "a%2fb", "%61", "a%00", "%2e%2e/a", "a%0d%0ab", "%ff", "a\\b", "a:b", "a@b", "a~b", "é", "a" * 256,
    "a/" * 130 + "a", "a;b", "a%3Fb", "_a", "library/%2e%2e/%2e%2e/etc",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_a_bad_name_is_refused_everywhere(small: str, name: str) -> None:
    targets = [
        ("GET", f"/v2/{name}/tags/list"),
        ("PUT", f"/v2/{name}/manifests/v1"),
        ("GET", f"/v2/{name}/manifests/{ZERO}"),
        ("POST", f"/v2/{name}/blobs/uploads/"),
        ("PATCH", f"/v2/{name}/blobs/uploads/session"),
        ("DELETE", f"/v2/{name}/blobs/{ZERO}"),
        ("GET", f"/v2/{name}/referrers/{ZERO}"),
    ]
    for method, target in targets:
        if " " in name:
            target = target.replace(" ", "%20")
        status, code = refusal(await exchange(small, method, target, sent=b""))
        # Not ASCII: the parser may refuse it before anybody sees a name.
        assert (status, code) == (400, "NAME_INVALID") or (name == "é" and status == 400), target


REFERENCES = {
    "sha256:": (400, "DIGEST_INVALID"),
    "sha256:abc": (400, "DIGEST_INVALID"),
    f"sha256:{'0' * 65}": (400, "DIGEST_INVALID"),
    f"sha256:{'0' * 63}Z": (400, "DIGEST_INVALID"),
    f"sha256%3A{'0' * 63}": (400, "DIGEST_INVALID"),
    f"sha256%253A{'0' * 64}": (404, "MANIFEST_UNKNOWN"),
    f"SHA256:{'0' * 64}": (400, "DIGEST_INVALID"),
    f"md5:{'0' * 32}": (400, "DIGEST_INVALID"),
    f"blake3:{'0' * 64}": (400, "DIGEST_INVALID"),
    ":": (400, "DIGEST_INVALID"),
    "sha256:" + "0" * 5000: (400, "DIGEST_INVALID"),
    "-tag": (404, "MANIFEST_UNKNOWN"),
    ".tag": (404, "MANIFEST_UNKNOWN"),
    "a%00b": (404, "MANIFEST_UNKNOWN"),
    "a%2Fb": (404, "MANIFEST_UNKNOWN"),
    "..%2f..%2fetc": (404, "MANIFEST_UNKNOWN"),
    "%ff": (404, "MANIFEST_UNKNOWN"),
    "%zz": (404, "MANIFEST_UNKNOWN"),
    "a" * 129: (404, "MANIFEST_UNKNOWN"),
    "v1%0d%0aSet-Cookie:x": (400, "DIGEST_INVALID"),
}


@pytest.mark.parametrize(("reference", "wanted"), REFERENCES.items())
async def test_a_bad_reference_is_refused(small: str, reference: str, wanted: tuple[int, str]) -> None:
    made = await put_image(small, "app", "v1")
    for method in ("GET", "DELETE"):
        assert refusal(await exchange(small, method, f"/v2/app/manifests/{reference}")) == wanted
    status, code = refusal(await exchange(small, "PUT", f"/v2/app/manifests/{reference}", OCI, sent=made.payload))
    assert (status, code) in {(400, "TAG_INVALID"), (400, "DIGEST_INVALID")}
    if ":" in reference:
        assert refusal(await exchange(small, "GET", f"/v2/app/blobs/{reference}")) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize(
    "query",
    [
        "n=%00", "last=%00", "last=%ff%fe", "last=" + "x" * 10_000, "&&&&", "=", "%", "n", "last[]=1",
        "&".join(f"a{number}=1" for number in range(500)), "last=%F0%9F%90%B3", "last=%ED%A0%80", "n=5;last=a",
    ],
)  # fmt: skip
async def test_an_odd_query_is_no_failure(base: str, query: str) -> None:
    await put_image(base, "app", "v1")
    for target in ("/v2/app/tags/list", "/v2/_catalog", f"/v2/app/referrers/{ZERO}", f"/v2/app/blobs/{ZERO}"):
        answer = await exchange(base, "GET", f"{target}?{query}")
        assert answer.status in (200, 400, 404)
        if answer.status >= 400:
            refusal(answer)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("User-Agent", "\xff\xfe binary \xed\xa0\x80"),
        ("User-Agent", "x" * 60_000),
        ("X-Request-Id", "\xff"),
        ("Content-Type", "\xff/\xfe"),
        ("Content-Type", "application/json; charset=\xff"),
        ("If-Match", "\xff"),
        ("If-None-Match", '"unfinished'),
        ("Accept", ";;;,,,\xff"),
        ("Host", "evil.example.com:99999/\\"),
        ("X-Forwarded-For", "\xff, ::::, 999.1.1.1"),
        ("Forwarded", 'for="unfinished'),
        ("Range", "bytes=\xff"),
        ("Expect", "the unexpected"),
    ],
)
async def test_odd_headers_are_no_failure(base: str, name: str, value: str) -> None:
    made = await put_image(base, "app", "v1")
    headers = [(name, value), *([] if name == "Content-Type" else OCI)]
    put = await exchange(base, "PUT", "/v2/app/manifests/v2", headers, sent=made.payload)
    got = await exchange(base, "GET", "/v2/app/manifests/v1", headers)
    tag = await exchange(base, "DELETE", "/v2/app/manifests/v1", headers)
    assert {answer.status // 100 for answer in (put, got, tag)} <= {2, 4}


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 201), ("", 201), (media.OCI_MANIFEST, 201), (media.OCI_MANIFEST + "; charset=utf-8", 201),
        (media.OCI_MANIFEST.upper(), 201), ("application/json", 400), ("text/plain", 400),
        (media.DOCKER_MANIFEST, 400), ("application/vnd.docker.distribution.manifest.v1+prettyjws", 400),
        ("nonsense", 400), ("a/" + "b" * 1000, 400),
    ],
)  # fmt: skip
async def test_the_content_type_must_fit_the_manifest(small: str, content_type: str | None, status: int) -> None:
    made = await put_image(small, "app", "v1")
    headers = [] if content_type is None else [("Content-Type", content_type)]
    answer = await exchange(small, "PUT", "/v2/app/manifests/v2", headers, sent=made.payload)
    assert answer.status == status
    if status == 400:
        assert refusal(answer) == (400, "MANIFEST_INVALID")
