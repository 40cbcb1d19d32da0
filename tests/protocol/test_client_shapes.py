"""What docker, containerd, skopeo, crane and regclient send, line by line, without the clients."""

import json
import random

import pytest

from helpers.wire import Heard, connect, exchange, head, hear
from tenure.core.digest import Digest

LAYER = random.Random(5).randbytes(1_500_000)
CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
SCHEMA2 = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
#: six lines in an order that changes from request to request
DOCKER_ACCEPT = [
    ("Accept", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ("Accept", "application/json"),
    ("Accept", "application/vnd.oci.image.index.v1+json"),
    ("Accept", SCHEMA2),
    ("Accept", "application/vnd.docker.distribution.manifest.list.v2+json"),
    ("Accept", OCI),
]


def manifest(media_type: str) -> bytes:
    def descriptor(content: bytes, of: str) -> dict[str, object]:
        return {"mediaType": of, "digest": str(Digest.of(content)), "size": len(content)}

    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": descriptor(CONFIG, "application/vnd.docker.container.image.v1+json"),
            "layers": [descriptor(LAYER, "application/vnd.docker.image.rootfs.diff.tar.gzip")],
        }
    ).encode()


async def opened(base: str, target: str, **more: bytes) -> str:
    answer = await exchange(base, "POST", target, **more)
    assert answer.status == 202
    assert answer["Range"] == "0-0"
    return answer["Location"]


def close_address(location: str, digest: Digest) -> str:
    """Clients add their query to whatever Location says."""
    return f"{location}{'&' if '?' in location else '?'}digest={str(digest).replace(':', '%3A')}"


def check_stored(answer: Heard, digest: Digest) -> None:
    assert answer.status == 201
    assert answer["Docker-Content-Digest"] == str(digest)
    assert answer["Location"]
    assert answer["Content-Length"] == "0"


async def check_blob(base: str, name: str, content: bytes) -> None:
    """docker's HEAD right after the PUT, then the bytes."""
    digest = Digest.of(content)
    seen = await exchange(base, "HEAD", f"/v2/{name}/blobs/{digest}")
    assert (seen.status, seen["Content-Length"], seen["Docker-Content-Digest"]) == (200, str(len(content)), str(digest))
    got = await exchange(base, "GET", f"/v2/{name}/blobs/{digest}", [("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8")])
    assert got.body == content
    assert "content-encoding" not in got.headers


async def test_expectation_06_docker_streams_a_patch_without_length_range_or_type(base: str) -> None:
    assert (await exchange(base, "GET", "/v2/")).status == 200
    for content in (LAYER, CONFIG):
        digest = Digest.of(content)
        assert (await exchange(base, "HEAD", f"/v2/by/docker/blobs/{digest}")).status == 404
        location = await opened(base, f"/v2/by/docker/blobs/uploads/?from=library%2Fother&mount={digest}", sent=b"")
        pieces = [content[at : at + 32768] for at in range(0, len(content), 32768)]
        patched = await exchange(base, "PATCH", location, chunks=pieces)
        assert (patched.status, patched["Range"]) == (202, f"0-{len(content) - 1}")
        check_stored(await exchange(base, "PUT", close_address(patched["Location"], digest), sent=b""), digest)
        await check_blob(base, "by/docker", content)
    payload = manifest(SCHEMA2)
    digest = Digest.of(payload)
    put = await exchange(base, "PUT", "/v2/by/docker/manifests/v1", [("Content-Type", SCHEMA2)], sent=payload)
    check_stored(put, digest)
    seen = await exchange(base, "HEAD", "/v2/by/docker/manifests/v1", DOCKER_ACCEPT)
    assert (seen.status, seen["Content-Type"], seen["Content-Length"]) == (200, SCHEMA2, str(len(payload)))
    got = await exchange(base, "GET", f"/v2/by/docker/manifests/{seen['Docker-Content-Digest']}", DOCKER_ACCEPT[::-1])
    assert got.body == payload


async def test_expectation_06_containerd_puts_the_whole_body_without_a_patch(base: str) -> None:
    accept = [("Accept", f"{OCI}, */*")]
    assert (await exchange(base, "HEAD", "/v2/by/containerd/manifests/v1?ns=docker.io", accept)).status == 404
    for content in (LAYER, CONFIG):
        digest = Digest.of(content)
        # Colon and slash stand in the query as they are.
        location = await opened(
            base, f"/v2/by/containerd/blobs/uploads/?mount={digest}&from=library/base&ns=docker.io", sent=b""
        )
        put = await exchange(
            base, "PUT", f"{location}?digest={digest}", [("Content-Type", "application/octet-stream")], sent=content
        )
        check_stored(put, digest)
        await check_blob(base, "by/containerd", content)
    resumed = await exchange(base, "GET", f"/v2/by/containerd/blobs/{Digest.of(LAYER)}", [("Range", "bytes=1000000-")])
    assert (resumed.status, resumed["Content-Range"]) == (206, f"bytes 1000000-{len(LAYER) - 1}/{len(LAYER)}")
    assert resumed.body == LAYER[1_000_000:]
    payload = manifest(OCI)
    put = await exchange(base, "PUT", "/v2/by/containerd/manifests/v1", [("Content-Type", OCI)], sent=payload)
    check_stored(put, Digest.of(payload))


@pytest.mark.parametrize("streamed", [False, True])
async def test_expectation_06_skopeo_patches_once_with_or_without_a_length(base: str, streamed: bool) -> None:
    name = f"by/skopeo{streamed}".lower()
    hello = [("Docker-Distribution-Api-Version", "registry/2.0")]
    digest = Digest.of(LAYER)
    location = await opened(base, f"/v2/{name}/blobs/uploads/", sent=b"")
    kind = [*hello, ("Content-Type", "application/octet-stream")]
    if streamed:
        patched = await exchange(base, "PATCH", location, kind, chunks=[LAYER[:7], LAYER[7:]])
    else:
        patched = await exchange(base, "PATCH", location, kind, sent=LAYER)
    assert patched.status == 202
    put = await exchange(base, "PUT", close_address(patched["Location"], digest), kind, sent=b"")
    check_stored(put, digest)
    await check_blob(base, name, LAYER)


async def test_expectation_06_crane_posts_json_without_a_body_and_names_its_origin(base: str) -> None:
    digest = Digest.of(LAYER)
    answer = await exchange(
        base,
        "POST",
        f"/v2/by/crane/blobs/uploads/?from=library%2Fbase&mount={digest}&origin=registry.example",
        [("Content-Type", "application/json")],
        sent=b"",
    )
    assert answer.status == 202
    patched = await exchange(base, "PATCH", answer["Location"], sent=LAYER)
    check_stored(await exchange(base, "PUT", close_address(patched["Location"], digest), sent=b""), digest)
    await check_blob(base, "by/crane", LAYER)


async def test_expectation_06_regclient_sends_chunks_with_ranges_and_recovers_from_416(base: str) -> None:
    digest = Digest.of(LAYER)
    location = await opened(base, "/v2/by/regclient/blobs/uploads/", sent=b"")

    def chunk(first: int, last: int) -> list[tuple[str, str]]:
        return [("Content-Type", "application/octet-stream"), ("Content-Range", f"{first}-{last}")]

    first = await exchange(base, "PATCH", location, chunk(0, 499_999), sent=LAYER[:500_000])
    assert (first.status, first["Range"]) == (202, "0-499999")
    refused = await exchange(base, "PATCH", first["Location"], chunk(900_000, 999_999), sent=LAYER[900_000:1_000_000])
    assert (refused.status, refused["Range"]) == (416, "0-499999")
    assert json.loads(refused.body)["errors"][0]["code"] == "BLOB_UPLOAD_INVALID"
    status = await exchange(base, "GET", refused["Location"])
    assert (status.status, status["Range"]) == (204, "0-499999")
    second = await exchange(base, "PATCH", status["Location"], chunk(500_000, 999_999), sent=LAYER[500_000:1_000_000])
    assert second.status == 202
    last = chunk(1_000_000, len(LAYER) - 1)
    put = await exchange(base, "PUT", close_address(second["Location"], digest), last, sent=LAYER[1_000_000:])
    check_stored(put, digest)
    await check_blob(base, "by/regclient", LAYER)


async def test_expectation_06_a_post_may_carry_everything(base: str) -> None:
    for content in (LAYER, b""):
        digest = Digest.of(content)
        kind = [("Content-Type", "application/octet-stream")]
        answer = await exchange(base, "POST", f"/v2/by/post/blobs/uploads/?digest={digest}", kind, sent=content)
        check_stored(answer, digest)
        await check_blob(base, "by/post", content)


async def test_expectation_07_a_body_of_any_length_is_streamed(base: str) -> None:
    """Far beyond every body limit that frameworks set."""
    content = random.Random(9).randbytes(40 << 20)
    digest = Digest.of(content)
    location = await opened(base, "/v2/by/size/blobs/uploads/", sent=b"")
    check_stored(await exchange(base, "PUT", f"{location}?digest={digest}", sent=content), digest)
    got = await exchange(base, "GET", f"/v2/by/size/blobs/{digest}", [("Range", "bytes=41943000-")])
    assert got.body == content[41_943_000:]


async def test_a_body_that_ends_early_acknowledges_only_what_came(base: str) -> None:
    location = await opened(base, "/v2/by/short/blobs/uploads/", sent=b"")
    reader, writer = await connect(base)
    writer.write(head(base, "PATCH", location, [("Content-Length", "1000000")]) + LAYER[:600_000])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    # Waits for the session until the first request has noticed.
    status = await exchange(base, "PATCH", location, sent=b"")
    end = int(status["Range"].removeprefix("0-"))
    assert end < 600_000
    digest = Digest.of(LAYER)
    rest = LAYER[end + 1 :] if end else LAYER
    put = await exchange(base, "PUT", close_address(location, digest), sent=rest)
    check_stored(put, digest)
    await check_blob(base, "by/short", LAYER)
    assert reader is not None


async def test_a_body_is_asked_for_only_when_it_will_be_taken(base: str) -> None:
    """Expect: 100-continue (curl, some Java clients): the refusal comes instead of the invitation."""
    location = await opened(base, "/v2/by/expect/blobs/uploads/", sent=b"")
    digest = Digest.of(LAYER)
    expects = [("Expect", "100-continue"), ("Content-Length", str(len(LAYER))), ("Connection", "close")]
    reader, writer = await connect(base)
    writer.write(head(base, "PUT", f"{location}?digest=md5:abc", expects))
    assert (await hear(reader, "PUT")).status == 400
    writer.close()
    reader, writer = await connect(base)
    writer.write(head(base, "PUT", close_address(location, digest), expects))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(LAYER)
    check_stored(await hear(reader, "PUT"), digest)
    writer.close()


@pytest.mark.parametrize(
    ("method", "target", "headers", "status", "code"),
    [
        ("PUT", "?digest=sha256:abc", [], 400, "DIGEST_INVALID"),
        ("PUT", "", [], 400, "DIGEST_INVALID"),
        ("PUT", "?digest=md5:d41d8cd98f00b204e9800998ecf8427e", [], 400, "DIGEST_INVALID"),
        ("PUT", f"?digest=sha256:{'0' * 64}", [("Content-Range", "5-9")], 416, "BLOB_UPLOAD_INVALID"),
        ("PUT", f"?digest=sha256:{'0' * 64}", [("Content-Range", "x")], 400, "BLOB_UPLOAD_INVALID"),
        ("PATCH", "", [("Content-Range", "1-5")], 416, "BLOB_UPLOAD_INVALID"),
        ("PATCH", "", [("Content-Range", "0-9")], 400, "SIZE_INVALID"),
        ("PATCH", "", [("Content-Range", "five")], 400, "BLOB_UPLOAD_INVALID"),
        ("PUT", f"?digest=sha256:{'0' * 64}", [], 400, "DIGEST_INVALID"),
    ],
)
async def test_bad_input_is_refused_with_a_code_and_a_sentence(
    small: str, method: str, target: str, headers: list[tuple[str, str]], status: int, code: str
) -> None:
    location = await opened(small, "/v2/by/mistake/blobs/uploads/", sent=b"")
    answer = await exchange(small, method, location + target, headers, sent=b"hello")
    assert answer.status == status
    error = json.loads(answer.body)["errors"][0]
    assert error["code"] == code
    assert " " in error["message"]


@pytest.mark.parametrize("session", ["x", "%00", "%2e%2e", "a%2Fb", "a" * 2000, "%ff", "unknown-session-here"])
async def test_weird_sessions_are_unknown(small: str, session: str) -> None:
    await opened(small, "/v2/by/mistake/blobs/uploads/", sent=b"")
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = await exchange(
            small, method, f"/v2/by/mistake/blobs/uploads/{session}?digest={Digest.of(b'')}", sent=b""
        )
        assert answer.status == 404, (method, session)
        assert json.loads(answer.body)["errors"][0]["message"]
