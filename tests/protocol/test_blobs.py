"""Blobs through their handlers, on both profiles: HEAD, GET with ranges and conditions, DELETE, mounts."""

import random
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa

from helpers.images import image, push
from helpers.planes import new_store
from helpers.requests import body, content_of, request
from helpers.s3 import S3Server
from helpers.wire import exchange
from tenure.core.clock import DAY
from tenure.core.digest import Digest
from tenure.core.errors import (
    BlobUnknown,
    DeleteDenied,
    DigestInvalid,
    NameUnknown,
    PreconditionFailed,
    RangeNotSatisfiable,
)
from tenure.registry.blobs import delete_blob, get_blob, head_blob
from tenure.registry.http import Answer, Elsewhere, File, Stream
from tenure.registry.plane import Plane
from tenure.registry.uploads import start_upload
from tenure.storage.blobs.opening import open_driver
from tenure.storage.meta.blobs import find_blob
from tenure.storage.meta.remembering import RememberingDatabase
from tenure.storage.meta.tables import repo_blobs
from tenure.storage.settings import BlobsSettings, S3Settings, Secret

CONTENT = random.Random(3).randbytes(2_500_000)
DIGEST = Digest.of(CONTENT)
SIZE = len(CONTENT)
FIXED = {
    "Docker-Content-Digest": str(DIGEST),
    "ETag": f'"{DIGEST}"',
    "Cache-Control": "max-age=31536000, immutable",
    "Accept-Ranges": "bytes",
}


async def pushed(plane: Plane, content: bytes = CONTENT, name: str = "app") -> Digest:
    digest = Digest.of(content)
    answer = await start_upload(plane, request("POST", name, query={"digest": str(digest)}, sent=body(content)))
    assert answer.status == 201
    return digest


def get(digest: Digest | str = DIGEST, name: str = "app", **headers: str):  # type: ignore[no-untyped-def]
    return request(
        "GET", name, headers={key.replace("_", "-"): value for key, value in headers.items()}, digest=str(digest)
    )


def head(digest: Digest | str = DIGEST, name: str = "app", **headers: str):  # type: ignore[no-untyped-def]
    return replace(get(digest, name, **headers), method="HEAD")


async def lease_of(plane: Plane) -> int:
    row = await plane.db.one(sa.select(repo_blobs.c.lease_until))
    assert row is not None
    return int(row["lease_until"])


async def test_get_sends_the_bytes_and_every_header(plane: Plane) -> None:
    await pushed(plane)
    result = await get_blob(plane, get(accept="application/vnd.oci.image.layer.v1.tar+gzip", accept_encoding="gzip"))
    assert isinstance(result, File if plane.driver.name == "folder" else Stream)
    assert result.status == 200
    assert result.length == SIZE
    assert result.headers == {**FIXED, "Content-Type": "application/octet-stream"}
    assert await content_of(result) == CONTENT


async def test_head_says_the_same_without_bytes(plane: Plane) -> None:
    await pushed(plane)
    answer = await head_blob(plane, head())
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers == {**FIXED, "Content-Type": "application/octet-stream", "Content-Length": str(SIZE)}


async def test_head_and_get_make_one_round_trip_at_most(plane: Plane) -> None:
    await pushed(plane)
    db = plane.db.inner if isinstance(plane.db, RememberingDatabase) else plane.db
    counts = []
    for handler in (head_blob, get_blob):
        before = db.round_trips
        await handler(plane, head() if handler is head_blob else get())
        counts.append(db.round_trips - before)
    # SQLite remembers for GET what HEAD has read.
    assert counts == ([1, 0] if db is not plane.db else [1, 1])


async def test_a_head_promises_a_lease_and_writes_only_when_half_of_it_is_gone(plane: Plane) -> None:
    await pushed(plane)
    fresh = await lease_of(plane)
    await head_blob(plane, head())
    assert await lease_of(plane) == fresh
    longer = replace(plane, push=type(plane.push)(lease=plane.push.lease * 4))
    await head_blob(longer, head())
    assert await lease_of(plane) >= fresh + 2 * DAY


async def test_get_makes_no_promise(plane: Plane) -> None:
    await pushed(plane)
    fresh = await lease_of(plane)
    await content_of(await get_blob(replace(plane, push=type(plane.push)(lease=plane.push.lease * 4)), get()))
    assert await lease_of(plane) == fresh


@pytest.mark.parametrize("handler", [head_blob, get_blob])
async def test_what_is_not_in_the_repository_is_404_wherever_else_it_is(plane: Plane, handler) -> None:  # type: ignore[no-untyped-def]
    await pushed(plane, name="other")
    for ask in (get(), get(name="other", digest=Digest.of(b"nothing"))):
        with pytest.raises(BlobUnknown) as refusal:
            await handler(plane, ask)
        assert refusal.value.status == 404


@pytest.mark.parametrize("handler", [head_blob, get_blob, delete_blob])
@pytest.mark.parametrize("digest", ["sha256:abc", "latest", "sha256:" + "A" * 64, "md5:0", "sha256:\0", ""])
async def test_what_is_no_digest_is_400(small_plane: Plane, handler, digest: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DigestInvalid):
        await handler(small_plane, get(digest))


async def test_an_empty_blob(plane: Plane) -> None:
    digest = await pushed(plane, b"")
    result = await get_blob(plane, get(digest))
    assert isinstance(result, Answer)
    assert (result.status, result.body) == (200, b"")
    assert (await head_blob(plane, head(digest))).headers["Content-Length"] == "0"
    with pytest.raises(RangeNotSatisfiable):
        await get_blob(plane, get(digest, range="bytes=0-"))


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=1000-1999", 1000, 1999),
        ("bytes=2499999-", SIZE - 1, SIZE - 1),
        ("bytes=1048575-2097153", 1048575, 2097153),
        ("bytes=-100", SIZE - 100, SIZE - 1),
        ("bytes=0-", 0, SIZE - 1),
        ("bytes=0-99999999", 0, SIZE - 1),
    ],
)
async def test_a_single_range(plane: Plane, wanted: str, start: int, end: int) -> None:
    await pushed(plane)
    result = await get_blob(plane, get(range=wanted))
    assert isinstance(result, File | Stream)
    assert result.status == 206
    assert result.headers["Content-Range"] == f"bytes {start}-{end}/{SIZE}"
    assert result.length == end - start + 1
    assert await content_of(result) == CONTENT[start : end + 1]


async def test_several_ranges_come_as_multipart(plane: Plane) -> None:
    await pushed(plane)
    result = await get_blob(plane, get(range="bytes=5-9,2000000-2100000,-3"))
    assert isinstance(result, Stream)
    assert result.status == 206
    assert "Content-Range" not in result.headers
    boundary = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", result.headers["Content-Type"])
    assert boundary is not None
    parts = (await content_of(result)).split(b"\r\n--" + boundary[1].encode())
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    for part, (start, end) in zip(parts[1:-1], [(5, 9), (2000000, 2100000), (SIZE - 3, SIZE - 1)], strict=True):
        headers, _, content = part.partition(b"\r\n\r\n")
        assert f"Content-Range: bytes {start}-{end}/{SIZE}".encode() in headers
        assert content == CONTENT[start : end + 1]


class CountingReads:
    """A driver that counts its readings."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.reads = 0

    def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        self.reads += 1
        reading: AsyncIterator[bytes] = self._driver.read(key, start, length)
        return reading


def spans_at_random(dice: random.Random) -> list[tuple[int, int]]:
    """First and last byte of each; near and far, rising and not, overlapping, neighbouring."""
    spans, at = [], 0
    for _ in range(dice.randrange(2, 30)):
        at = max(0, at + dice.choice([0, 1, 100, 65_536, 300_000, -1, -5000]))
        length = dice.choice([1, 2, 999, 70_000])
        if at + length > SIZE:
            at = dice.randrange(1000)
        spans.append((at, at + length - 1))
        at += length
    return spans


async def test_any_ranges_come_as_they_were_asked_for(plane: Plane) -> None:
    await pushed(plane)
    dice = random.Random(20261123)
    for _ in range(40):
        spans = spans_at_random(dice)
        if sum(end - start + 1 for start, end in spans) > SIZE:
            continue
        wanted = ", ".join(f"{start}-{end}" for start, end in spans)
        result = await get_blob(plane, get(range=f"bytes={wanted}"))
        assert isinstance(result, Stream)
        boundary = result.headers["Content-Type"].partition("=")[2]
        parts = (await content_of(result)).split(b"\r\n--" + boundary.encode())[1:-1]
        assert [part.partition(b"\r\n\r\n")[2] for part in parts] == [CONTENT[s : e + 1] for s, e in spans], wanted


async def test_many_small_ranges_are_few_readings(plane: Plane) -> None:
    await pushed(plane)
    counting = CountingReads(plane.driver)
    near = ",".join(f"{at}-{at}" for at in range(0, 100_000, 100))
    far = ",".join(f"{at}-{at + 5}" for at in range(2_400_000, 0, -600_000))
    for wanted, reads in ((near, 1), (far, 4), (f"{near},{far}", 5)):
        counting.reads = 0
        result = await get_blob(replace(plane, driver=counting), get(range=f"bytes={wanted}"))  # type: ignore[arg-type]
        await content_of(result)
        assert counting.reads == reads


async def test_a_stream_that_is_given_up_gives_back_what_it_held(plane: Plane) -> None:
    await pushed(plane)
    for wanted in ("bytes=0-2000000", "bytes=0-1000000,1100000-2000000"):
        result = await get_blob(plane, get(range=wanted))
        if isinstance(result, Stream):
            await anext(result.chunks)
            await anext(result.chunks)
            await result.chunks.aclose()  # type: ignore[attr-defined]
    assert plane.driver.budget.held == 0  # type: ignore[attr-defined]


async def test_a_range_outside_is_416_with_the_size(plane: Plane) -> None:
    await pushed(plane)
    with pytest.raises(RangeNotSatisfiable) as refusal:
        await get_blob(plane, get(range=f"bytes={SIZE}-"))
    assert refusal.value.headers["Content-Range"] == f"bytes */{SIZE}"


async def test_if_range_decides_whether_the_range_counts(plane: Plane) -> None:
    await pushed(plane)
    for if_range, status in ((f'"{DIGEST}"', 206), ('"sha256:other"', 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)):
        result = await get_blob(plane, get(range="bytes=0-9", if_range=if_range))
        assert isinstance(result, File | Stream)
        assert result.status == status
        await content_of(result)


@pytest.mark.parametrize("etags", [f'"{DIGEST}"', f'"x", W/"{DIGEST}"', "*"])
async def test_if_none_match_is_304(small_plane: Plane, etags: str) -> None:
    await pushed(small_plane)
    for answer in (
        await head_blob(small_plane, head(if_none_match=etags)),
        await get_blob(small_plane, get(if_none_match=etags, range="bytes=0-9")),
    ):
        assert isinstance(answer, Answer)
        assert (answer.status, answer.headers, answer.body) == (304, FIXED, b"")


async def test_if_match_is_412_for_another_etag(small_plane: Plane) -> None:
    await pushed(small_plane)
    assert (await head_blob(small_plane, head(if_match=f'"{DIGEST}"'))).status == 200
    with pytest.raises(PreconditionFailed):
        await get_blob(small_plane, get(if_match='"sha256:other"'))


async def test_bytes_that_the_store_lost_are_404_with_a_sentence(plane: Plane) -> None:
    """Chosen over a 5xx: no retry can bring them back."""
    await pushed(plane)
    blob = await find_blob(plane.db, "app", DIGEST)
    assert blob is not None
    await plane.driver.delete(blob.key)
    with pytest.raises(BlobUnknown, match="missing from the store"):
        await get_blob(plane, get())


async def test_a_deleted_blob_is_404_at_once_and_only_there(plane: Plane) -> None:
    await pushed(plane)
    await pushed(plane, name="other")
    answer = await delete_blob(plane, replace(get(), method="DELETE"))
    assert answer.status == 202
    for handler in (head_blob, get_blob, delete_blob):
        with pytest.raises(BlobUnknown):
            await handler(plane, get())
    assert await content_of(await get_blob(plane, get(name="other"))) == CONTENT
    with pytest.raises(NameUnknown):
        await delete_blob(plane, get(name="never/heard/of"))


async def test_a_blob_that_a_manifest_names_is_not_deleted(plane: Plane) -> None:
    config = b"{}"
    await pushed(plane)
    await pushed(plane, config)
    made = image(config, [CONTENT])
    await push(plane.db, "app", made, "v1")
    with pytest.raises(DeleteDenied) as refusal:
        await delete_blob(plane, get())
    assert refusal.value.status == 405
    assert str(made.digest) in refusal.value.message
    assert await content_of(await get_blob(plane, get())) == CONTENT


async def mount(plane: Plane, digest: str, source: str | None, name: str = "target", **more: str) -> Answer:
    query = {"mount": digest, **({} if source is None else {"from": source}), **more}
    return await start_upload(plane, request("POST", name, query=query))


@pytest.mark.parametrize("source", ["app", None, ""])
async def test_a_mount_is_201_with_the_blob_of_the_target(plane: Plane, source: str | None) -> None:
    await pushed(plane)
    answer = await mount(plane, str(DIGEST), source, origin="registry.example")
    assert answer.status == 201
    assert answer.headers == {"Location": f"/v2/target/blobs/{DIGEST}", "Docker-Content-Digest": str(DIGEST)}
    await delete_blob(plane, get())
    assert await content_of(await get_blob(plane, get(name="target"))) == CONTENT


@pytest.mark.parametrize(
    ("digest", "source"),
    [
        (str(DIGEST), "nowhere"),
        (str(DIGEST), "empty"),
        (str(DIGEST), "../etc"),
        (str(DIGEST), "a\0b"),
        (str(DIGEST), "UPPER"),
        (str(Digest.of(b"unknown")), "app"),
        (str(Digest.of(b"unknown")), None),
        ("sha256:abc", "app"),
        ("md5:d41d8cd98f00b204e9800998ecf8427e", None),
        ("", None),
    ],
)
async def test_expectation_08_a_mount_that_cannot_be_is_a_session(
    plane: Plane, digest: str, source: str | None
) -> None:
    await pushed(plane)
    await start_upload(plane, request("POST", "empty"))
    answer = await mount(plane, digest, source)
    assert answer.status == 202
    assert set(answer.headers) == {"Location", "Range", "Docker-Upload-UUID"}
    with pytest.raises(BlobUnknown):
        await head_blob(plane, head(name="target"))


async def test_a_mount_of_what_is_there_already_is_201(plane: Plane) -> None:
    await pushed(plane)
    assert (await mount(plane, str(DIGEST), "app", name="app")).status == 201
    assert (await mount(plane, str(DIGEST), "app", name="app")).status == 201


async def test_a_refused_mount_with_a_digest_takes_the_body(plane: Plane) -> None:
    answer = await start_upload(
        plane,
        request("POST", query={"mount": str(DIGEST), "from": "nowhere", "digest": str(DIGEST)}, sent=body(CONTENT)),
    )
    assert answer.status == 201


class Presigning:
    """The driver of the test, with redirects on."""

    def __init__(self, driver: object, url: str | None) -> None:
        self._driver = driver
        self._url = url

    def presign(self, key: str, media_type: str | None = None) -> str | None:
        assert media_type == "application/octet-stream"
        return self._url and f"{self._url}/{key}"

    def __getattr__(self, name: str) -> object:
        return getattr(self._driver, name)


async def test_expectation_16_only_whole_and_single_ranges_are_redirected(plane: Plane) -> None:
    """HEAD is answered here; several ranges are sent from here, because stores ignore lists of ranges."""
    await pushed(plane)
    plane = replace(plane, driver=Presigning(plane.driver, "https://store.test"))  # type: ignore[arg-type]
    blob = await find_blob(plane.db, "app", DIGEST)
    assert blob is not None
    for ask in (get(), get(range="bytes=5-")):
        result = await get_blob(plane, ask)
        assert isinstance(result, Elsewhere)
        assert result.url == f"https://store.test/{blob.key}"
        assert "Cache-Control" not in result.headers
    several = await get_blob(plane, get(range="bytes=0-4,10-14"))
    assert isinstance(several, Stream)
    assert CONTENT[10:15] in await content_of(several)
    assert (await head_blob(plane, head())).status == 200
    assert isinstance(await get_blob(plane, get(if_none_match=f'"{DIGEST}"')), Answer)
    with pytest.raises(RangeNotSatisfiable):
        await get_blob(plane, get(range=f"bytes={SIZE}-"))


async def test_expectation_16_the_store_takes_a_signed_url_with_a_range(
    small_plane: Plane, s3_server: S3Server
) -> None:
    settings = S3Settings(
        endpoint=s3_server.endpoint,
        public_endpoint=s3_server.endpoint,
        access_key=s3_server.access_key,
        secret_key=Secret(s3_server.secret_key),
    )
    driver = await open_driver(BlobsSettings(url=await new_store(s3_server)), settings, Path("unused"))
    plane = replace(small_plane, driver=driver)
    await pushed(plane)
    result = await get_blob(plane, get(range="bytes=5-9"))
    assert isinstance(result, Elsewhere)
    assert int(parse_qs(urlsplit(result.url).query)["X-Amz-Expires"][0]) >= 20 * 60
    part = await exchange(s3_server.endpoint, "GET", result.url, [("Range", "bytes=5-9")])
    assert (part.status, part.body) == (206, CONTENT[5:10])
    assert part["Content-Type"] == "application/octet-stream"
    await driver.close()


async def test_expectation_16_bytes_are_sent_from_here_where_no_url_can_be_signed(plane: Plane) -> None:
    await pushed(plane)
    plane = replace(plane, driver=Presigning(plane.driver, None))  # type: ignore[arg-type]
    result = await get_blob(plane, get())
    assert not isinstance(result, Elsewhere)
