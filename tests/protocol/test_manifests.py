"""Manifests over HTTP: bytes and types as they came, digests, tags, conditions, deletes."""

import json
from dataclasses import replace

import pytest

from helpers.images import Made, descriptor, index, make
from helpers.oci import put_blob, put_image, put_manifest, refusal
from helpers.serving import served
from helpers.wire import exchange
from tenure.core import media
from tenure.core.chain import chain_ids
from tenure.core.digest import Digest
from tenure.registry.plane import Plane
from tenure.registry.settings import PullSettings, PushSettings
from tenure.storage.meta.lineage import descendants

ZERO = f"sha256:{'0' * 64}"
OLD_DOCKER = [
    ("Accept", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ("Accept", media.DOCKER_MANIFEST),
    ("Accept", "application/json"),
]


def retyped(made: Made, media_type: str) -> Made:
    body = {**json.loads(made.payload), "mediaType": media_type}
    return make(body)


async def test_expectation_05_bytes_and_type_come_back_as_they_went_in(base: str) -> None:
    made = await put_image(base, "team/app", "v1")
    for reference in (
        "v1",
        str(made.digest),
        str(made.digest).replace(":", "%3A"),
        str(made.digest).replace(":", "%3a"),
    ):
        answer = await exchange(base, "GET", f"/v2/team/app/manifests/{reference}")
        assert answer.status == 200
        assert answer.body == made.payload
        assert answer["Content-Type"] == media.OCI_MANIFEST
        assert answer["ETag"] == f'"{made.digest}"'


@pytest.mark.parametrize(
    "media_type", [media.DOCKER_MANIFEST, media.OCI_MANIFEST, "application/vnd.custom.thing.v9+json"]
)
async def test_expectation_05_the_type_is_part_of_the_record(base: str, media_type: str) -> None:
    made = retyped(await put_image(base, "app", "first"), media_type)
    assert (await put_manifest(base, "app", "v1", made)).status == 201
    answer = await exchange(base, "GET", "/v2/app/manifests/v1")
    assert (answer["Content-Type"], answer.body) == (media_type, made.payload)


@pytest.mark.parametrize(
    "accept",
    [
        [],
        [("Accept", "*/*")],
        OLD_DOCKER,
        [*OLD_DOCKER[::-1], ("Accept", media.OCI_MANIFEST)],
        [("Accept", f"{media.OCI_INDEX}, {media.OCI_MANIFEST}, */*")],
        [("Accept", "text/html;q=0.9"), ("Accept", "image/png")],
        [("Accept", "")],
    ],
)
async def test_expectation_02_whatever_lines_accept_has_the_stored_manifest_is_served(
    base: str, accept: list[tuple[str, str]]
) -> None:
    made = await put_image(base, "app", "v1")
    for method in ("GET", "HEAD"):
        answer = await exchange(base, method, "/v2/app/manifests/v1", accept)
        assert (answer.status, answer["Content-Type"]) == (200, media.OCI_MANIFEST)
        assert answer["Docker-Content-Digest"] == str(made.digest)


async def test_expectation_03_the_digest_is_on_every_answer_about_content(base: str) -> None:
    made = await put_image(base, "app", "v1")
    digest = str(made.digest)
    put = await put_manifest(base, "app", "v2", made)
    assert (put.status, put["Docker-Content-Digest"]) == (201, digest)
    assert put["Location"] == f"/v2/app/manifests/{digest}"
    for reference in ("v1", digest):
        for method in ("GET", "HEAD"):
            answer = await exchange(base, method, f"/v2/app/manifests/{reference}")
            assert answer["Docker-Content-Digest"] == digest
    layer = json.loads(made.payload)["layers"][0]["digest"]
    for method in ("GET", "HEAD"):
        assert (await exchange(base, method, f"/v2/app/blobs/{layer}"))["Docker-Content-Digest"] == layer


async def test_expectation_04_head_has_the_exact_length_and_type(base: str) -> None:
    made = await put_image(base, "app", "v1")
    for reference in ("v1", str(made.digest)):
        seen = await exchange(base, "HEAD", f"/v2/app/manifests/{reference}")
        assert (seen.status, seen["Content-Length"]) == (200, str(len(made.payload)))
        assert seen["Content-Type"] == media.OCI_MANIFEST
        assert "transfer-encoding" not in seen.headers
        assert seen.body == b""


async def test_expectation_10_a_refusal_for_good_is_4xx_with_a_sentence(base: str) -> None:
    child = await put_image(base, "app", "child")
    parent = index([child])
    assert (await put_manifest(base, "app", "multi", parent)).status == 201
    for target in (f"manifests/{child.digest}", f"blobs/{json.loads(child.payload)['layers'][0]['digest']}"):
        answer = await exchange(base, "DELETE", f"/v2/app/{target}")
        assert refusal(answer) == (405, "DENIED")
        error = json.loads(answer.body)["errors"][0]
        assert error["detail"]["reasons"]
        assert "in use" in error["message"] or str(child.digest) in error["message"]
    missing = await put_manifest(base, "app", "v1", make({**json.loads(child.payload), "config": descriptor(b"gone")}))
    assert refusal(missing) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert str(Digest.of(b"gone")) in missing.body.decode()


async def test_expectation_13_untagged_is_not_unused(base: str) -> None:
    """Children of an index, an attestation, a BuildKit cache whose children are blobs: accepted and served."""
    child = await put_image(base, "app", "moving")
    attestation = make(
        {
            **json.loads(child.payload),
            "layers": [],
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        }
    )
    assert (await put_manifest(base, "app", str(attestation.digest), attestation)).status == 201
    layer = json.loads(child.payload)["layers"][0]
    cache_config = await put_blob(base, "app", b"{}")
    cache = index(
        [layer, {**descriptor(b"{}", "application/vnd.buildkit.cacheconfig.v0"), "digest": str(cache_config)}]
    )
    parent = index([child, attestation])
    assert (await put_manifest(base, "app", "multi", parent)).status == 201
    assert (await put_manifest(base, "app", "cache", cache)).status == 201
    assert (await exchange(base, "DELETE", "/v2/app/manifests/moving")).status == 202
    for reference in (child.digest, attestation.digest, parent.digest, "cache"):
        assert (await exchange(base, "GET", f"/v2/app/manifests/{reference}")).status == 200
    for digest in (layer["digest"], cache_config):
        assert (await exchange(base, "GET", f"/v2/app/blobs/{digest}")).status == 200
        assert refusal(await exchange(base, "DELETE", f"/v2/app/blobs/{digest}")) == (405, "DENIED")


async def test_expectation_14_children_then_index_then_tag_and_a_subject_that_is_not_there(base: str) -> None:
    child = await put_image(base, "app", "x")
    assert (await exchange(base, "DELETE", "/v2/app/manifests/x")).status == 202
    parent = index([child])
    assert (await put_manifest(base, "app", str(parent.digest), parent)).status == 201
    assert (await put_manifest(base, "app", "v1", parent)).status == 201
    signature = make({**json.loads(child.payload), "subject": {**descriptor(b"not here", media.OCI_MANIFEST)}})
    answer = await put_manifest(base, "app", str(signature.digest), signature)
    assert (answer.status, answer["OCI-Subject"]) == (201, str(Digest.of(b"not here")))


async def test_expectation_15_what_was_pushed_is_there_for_the_next_request(base: str) -> None:
    for number in range(5):
        name = f"repo-{number}"
        assert (await exchange(base, "HEAD", f"/v2/{name}/manifests/v1")).status == 404
        made = await put_image(base, name, "v1", seed=name)
        assert (await exchange(base, "HEAD", f"/v2/{name}/manifests/v1"))["Docker-Content-Digest"] == str(made.digest)
        assert (await exchange(base, "DELETE", f"/v2/{name}/manifests/{made.digest}")).status == 202
        assert (await exchange(base, "HEAD", f"/v2/{name}/manifests/v1")).status == 404
        await put_image(base, name, "v1", seed=name)
        assert (await exchange(base, "HEAD", f"/v2/{name}/manifests/v1")).status == 200


async def test_a_missing_manifest_says_whether_the_repository_is_known(base: str) -> None:
    await put_image(base, "app", "v1")
    for reference in ("v2", ZERO):
        assert refusal(await exchange(base, "GET", f"/v2/app/manifests/{reference}")) == (404, "MANIFEST_UNKNOWN")
        assert refusal(await exchange(base, "GET", f"/v2/no/manifests/{reference}")) == (404, "NAME_UNKNOWN")
        assert (await exchange(base, "DELETE", f"/v2/app/manifests/{reference}")).status == 404
        assert (await exchange(base, "DELETE", f"/v2/no/manifests/{reference}")).status == 404


async def test_a_known_etag_is_answered_304_on_tag_and_digest(base: str) -> None:
    made = await put_image(base, "app", "v1")
    for known in (f'"{made.digest}"', f'W/"{made.digest}"', "*", f'"{ZERO}", "{made.digest}"'):
        for method in ("GET", "HEAD"):
            answer = await exchange(base, method, "/v2/app/manifests/v1", [("If-None-Match", known)])
            assert (answer.status, answer["ETag"], answer.body) == (304, f'"{made.digest}"', b"")
    other = await exchange(base, "GET", "/v2/app/manifests/v1", [("If-None-Match", f'"{ZERO}"')])
    assert other.body == made.payload


async def test_a_digest_push_is_checked_against_its_digest(base: str) -> None:
    made = await put_image(base, "app", "v1")
    assert refusal(await put_manifest(base, "app", ZERO, made)) == (400, "DIGEST_INVALID")
    sha512 = Digest.of(made.payload, "sha512")
    answer = await put_manifest(base, "app", str(sha512), made)
    assert (answer.status, answer["Docker-Content-Digest"]) == (201, str(sha512))
    assert (await exchange(base, "GET", f"/v2/app/manifests/{sha512}"))["Docker-Content-Digest"] == str(sha512)
    wrong = f"sha512:{'0' * 128}"
    assert refusal(await put_manifest(base, "app", wrong, made)) == (400, "DIGEST_INVALID")


async def test_a_digest_push_may_name_tags(base: str) -> None:
    made = await put_image(base, "app", "v1")
    answer = await put_manifest(base, "app", f"{made.digest}?tag=v1.2.3&tag=v1.2&tag=latest&tag=latest", made)
    assert (answer.status, answer["OCI-Tag"]) == (201, "v1.2.3, v1.2, latest")
    for tag in ("v1.2.3", "v1.2", "latest"):
        assert (await exchange(base, "GET", f"/v2/app/manifests/{tag}")).body == made.payload
    for bad in ("-x", "a%2Fb", "", "a" * 129, "%00"):
        status, code = refusal(await put_manifest(base, "app", f"{made.digest}?tag=fine&tag={bad}", made))
        assert (status, code) == (400, "TAG_INVALID") or bad == "%00"
    assert (await exchange(base, "HEAD", "/v2/app/manifests/fine")).status == 404


async def test_a_tag_push_under_conditions(base: str) -> None:
    old, new = await put_image(base, "app", "v1"), await put_image(base, "app", "other", seed="b")
    only_new = [("If-None-Match", "*")]
    assert refusal(await put_manifest(base, "app", "v1", new, only_new))[0] == 412
    assert (await put_manifest(base, "app", "fresh", new, only_new)).status == 201
    assert refusal(await put_manifest(base, "app", "v1", new, [("If-Match", f'"{new.digest}"')]))[0] == 412
    assert (await exchange(base, "HEAD", "/v2/app/manifests/v1"))["Docker-Content-Digest"] == str(old.digest)
    assert (await put_manifest(base, "app", "v1", new, [("If-Match", f'"{old.digest}"')])).status == 201
    assert (await exchange(base, "HEAD", "/v2/app/manifests/v1"))["Docker-Content-Digest"] == str(new.digest)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_manifest_of_4_mib_is_taken_and_a_larger_one_refused(base: str, framing: str) -> None:
    def padded(size: int) -> Made:
        frame = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [], "annotations": {"a": ""}}
        pad = size - len(make(frame).payload)
        return make({**frame, "annotations": {"a": "x" * pad}})

    for size, status in ((4 << 20, 201), ((4 << 20) + 1, 413)):
        made = padded(size)
        assert len(made.payload) == size
        content = (
            {"sent": made.payload} if framing == "length" else {"chunks": [made.payload[:100], made.payload[100:]]}
        )
        types = [("Content-Type", made.media_type)]
        answer = await exchange(base, "PUT", "/v2/app/manifests/big", types, **content)
        assert answer.status == status
        if status == 413:
            assert refusal(answer) == (413, "MANIFEST_INVALID")


async def test_an_accepted_gap_is_told_in_a_warning(base: str) -> None:
    absent = descriptor(b"absent", media.OCI_MANIFEST)
    sparse = index([absent])
    answer = await put_manifest(base, "app", "sparse", sparse)
    assert answer.status == 201
    assert answer["Warning"].startswith('299 - "')
    assert absent["digest"] in answer["Warning"]
    complete = await put_manifest(base, "app", "empty", index([]))
    assert "warning" not in complete.headers


@pytest.mark.parametrize(
    ("allowed", "sparse_index", "sparse_image"),
    [("none", 404, 404), ("index", 201, 404), ("all", 201, 201)],
)
async def test_what_may_be_missing_is_a_setting(
    plane: Plane, allowed: str, sparse_index: int, sparse_image: int
) -> None:
    async with served(replace(plane, push=PushSettings(allow_missing=allowed))) as running:  # type: ignore[arg-type]
        image = make(
            {
                "schemaVersion": 2,
                "mediaType": media.OCI_MANIFEST,
                "config": descriptor(b"absent config", media.OCI_CONFIG),
                "layers": [],
            }
        )
        assert (await put_manifest(running.address, "app", "i", index([image]))).status == sparse_index
        assert (await put_manifest(running.address, "app", "v1", image)).status == sparse_image


async def test_delete_by_tag_takes_the_tag_and_by_digest_the_manifest_with_its_tags(base: str) -> None:
    made = await put_image(base, "app", "v1")
    await put_manifest(base, "app", "v2", made)
    assert (await exchange(base, "DELETE", "/v2/app/manifests/v1")).status == 202
    assert (await exchange(base, "GET", "/v2/app/manifests/v1")).status == 404
    assert (await exchange(base, "GET", f"/v2/app/manifests/{made.digest}")).status == 200
    assert (await exchange(base, "DELETE", f"/v2/app/manifests/{made.digest}")).status == 202
    for reference in ("v2", made.digest):
        assert (await exchange(base, "GET", f"/v2/app/manifests/{reference}")).status == 404
        assert (await exchange(base, "DELETE", f"/v2/app/manifests/{reference}")).status == 404


async def test_full_addresses_follow_the_name_that_the_client_used(small_plane: Plane) -> None:
    plane = replace(small_plane, pull=PullSettings(absolute_urls=True))
    forwarded = [("Forwarded", 'for=203.0.113.9;proto=https;host="registry.example.com"')]
    for options, wanted in (
        ({}, None),
        ({"trusted_proxies": ("127.0.0.0/8",)}, "https://registry.example.com"),
        ({"external_url": "https://outside.example.com/"}, "https://outside.example.com"),
    ):
        async with served(plane, **options) as running:
            made = index([])
            answer = await put_manifest(running.address, "app", "v1", made, forwarded)
            assert answer["Location"] == f"{wanted or running.address}/v2/app/manifests/{made.digest}"


async def test_a_push_indexes_the_chain_of_its_layers(plane: Plane) -> None:
    """The config is read before the push: a base pushed first finds the image built on it."""
    layers = [f"sha256:{digit * 64}" for digit in "12"]
    async with served(plane) as running:
        base, made = running.address, []
        for depth in (1, 2):
            config = json.dumps({"depth": depth, "rootfs": {"type": "layers", "diff_ids": layers[:depth]}}).encode()
            assert len(chain_ids(config)) == depth
            await put_blob(base, "app", config)
            image = make(
                {
                    "schemaVersion": 2,
                    "mediaType": media.OCI_MANIFEST,
                    "config": descriptor(config, media.OCI_CONFIG),
                    "layers": [],
                }
            )
            assert (await put_manifest(base, "app", f"depth-{depth}", image)).status == 201
            made.append(image)
    kin = await descendants(plane.db, "app", made[0].digest)
    assert [one.digest for one in kin] == [made[1].digest]


async def test_a_type_that_a_browser_could_run_is_fenced_in(small: str) -> None:
    made = make({"mediaType": "text/html", "x": "<script>"})
    assert (await put_manifest(small, "app", "v1", made)).status == 201
    answer = await exchange(small, "GET", "/v2/app/manifests/v1")
    assert "sandbox" in answer["Content-Security-Policy"]
    assert answer["X-Content-Type-Options"] == "nosniff"
