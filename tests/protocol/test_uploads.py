"""Upload sessions through their handlers, on both profiles: states, offsets, refusals and what a crash leaves."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from helpers.requests import Sent, body, content_of, request
from helpers.wire import exchange
from tenure.core.digest import Digest
from tenure.core.errors import (
    BlobUnknown,
    DigestInvalid,
    SizeInvalid,
    StorageUnavailable,
    TenureError,
    UploadBusy,
    UploadInvalid,
    UploadRangeInvalid,
    UploadUnknown,
)
from tenure.registry.blobs import get_blob, head_blob
from tenure.registry.http import Answer, ClientGone, Request
from tenure.registry.plane import Plane
from tenure.registry.uploads import cancel_upload, finish_upload, patch_upload, start_upload, upload_status
from tenure.storage import ingest
from tenure.storage.meta.tables import blobs, objects, uploads
from tenure.storage.meta.uploads import claim_upload
from tenure.storage.settings import Duration

CONTENT = random.Random(7).randbytes(300_000)
DIGEST = Digest.of(CONTENT)
MEBI = 1 << 20


async def start(plane: Plane, **query: str) -> str:
    """A session, by POST."""
    answer = await start_upload(plane, request("POST", query=query))
    assert answer.status == 202
    assert answer.headers["Range"] == "0-0"
    session = answer.headers["Docker-Upload-UUID"]
    assert answer.headers["Location"] == f"/v2/app/blobs/uploads/{session}"
    return session


def patch(session: str, sent: Sent, content_range: str | None = None) -> Request:
    headers = {"Content-Range": content_range} if content_range else {}
    return request("PATCH", sent=sent, headers=headers, session=session)


def put(session: str, digest: Digest | str, sent: Sent | None = None, content_range: str | None = None) -> Request:
    headers = {"Content-Range": content_range} if content_range else {}
    return request("PUT", sent=sent, query={"digest": str(digest)}, headers=headers, session=session)


async def range_of(plane: Plane, session: str) -> str:
    answer = await upload_status(plane, request("GET", session=session))
    assert answer.status == 204
    assert answer.headers["Docker-Upload-UUID"] == session
    return answer.headers["Range"]


async def fetched(plane: Plane, digest: Digest, name: str = "app") -> bytes:
    return await content_of(await get_blob(plane, request("GET", name, digest=str(digest))))


def check_created(answer: Answer, digest: Digest) -> None:
    assert answer.status == 201
    assert answer.headers == {"Location": f"/v2/app/blobs/{digest}", "Docker-Content-Digest": str(digest)}


async def object_states(plane: Plane) -> list[int]:
    return [row["state"] for row in await plane.db.all(sa.select(objects.c.state).order_by(objects.c.id))]


async def test_streamed_patch_then_empty_put(plane: Plane) -> None:
    session = await start(plane)
    answer = await patch_upload(plane, patch(session, body(CONTENT, chunked=True)))
    assert (answer.status, answer.headers["Range"]) == (202, f"0-{len(CONTENT) - 1}")
    check_created(await finish_upload(plane, put(session, DIGEST)), DIGEST)
    assert await fetched(plane, DIGEST) == CONTENT
    with pytest.raises(UploadUnknown):
        await range_of(plane, session)


async def test_several_patches_go_to_the_end_of_what_is_there(plane: Plane) -> None:
    session = await start(plane)
    for at in range(0, len(CONTENT), 70_000):
        await patch_upload(plane, patch(session, body(CONTENT[at : at + 70_000])))
        assert await range_of(plane, session) == f"0-{min(at + 70_000, len(CONTENT)) - 1}"
    check_created(await finish_upload(plane, put(session, DIGEST)), DIGEST)
    assert await fetched(plane, DIGEST) == CONTENT


async def test_chunks_with_a_range_and_the_last_one_in_the_put(plane: Plane) -> None:
    session = await start(plane)
    await patch_upload(plane, patch(session, body(CONTENT[:100_000]), "0-99999"))
    await patch_upload(plane, patch(session, body(CONTENT[100_000:200_000]), "100000-199999"))
    check_created(await finish_upload(plane, put(session, DIGEST, body(CONTENT[200_000:]), "200000-299999")), DIGEST)
    assert await fetched(plane, DIGEST) == CONTENT


@pytest.mark.parametrize("content", [CONTENT, b""])
async def test_put_with_the_whole_body(plane: Plane, content: bytes) -> None:
    digest = Digest.of(content)
    check_created(await finish_upload(plane, put(await start(plane), digest, body(content))), digest)
    assert await fetched(plane, digest) == content


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("content", [CONTENT, b""])
async def test_post_with_the_whole_body(plane: Plane, content: bytes, algorithm: str) -> None:
    digest = Digest.of(content, algorithm)
    answer = await start_upload(plane, request("POST", query={"digest": str(digest)}, sent=body(content)))
    check_created(answer, digest)
    assert await fetched(plane, digest) == content


async def test_a_large_upload_in_uneven_chunks_comes_back_whole(plane: Plane) -> None:
    content = random.Random(11).randbytes(21 * MEBI + 17)
    digest = Digest.of(content)
    session = await start(plane)
    at = 0
    for size in (6 * MEBI, 1, 300_000, 9 * MEBI + 5):
        await patch_upload(plane, patch(session, body(content[at : at + size])))
        at += size
    check_created(await finish_upload(plane, put(session, digest, body(content[at:]))), digest)
    assert Digest.of(await fetched(plane, digest)) == digest


async def test_sha512_named_only_at_the_end_is_read_back(plane: Plane) -> None:
    session = await start(plane)
    await patch_upload(plane, patch(session, body(CONTENT)))
    digest = Digest.of(CONTENT, "sha512")
    check_created(await finish_upload(plane, put(session, digest)), digest)
    assert await fetched(plane, digest) == CONTENT


async def test_a_wrong_digest_of_an_algorithm_named_at_the_end_is_found_out(plane: Plane) -> None:
    session = await start(plane)
    await patch_upload(plane, patch(session, body(CONTENT)))
    with pytest.raises(DigestInvalid):
        await finish_upload(plane, put(session, Digest.of(b"other", "sha512")))
    assert set(await object_states(plane)) == {4}


async def test_digest_algorithm_says_what_to_hash(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await start(plane, **{"digest-algorithm": "sha512"})
    await patch_upload(plane, patch(session, body(CONTENT)))
    monkeypatch.setattr(ingest.Ingest, "_read_back", None)  # nothing is read twice
    digest = Digest.of(CONTENT, "sha512")
    check_created(await finish_upload(plane, put(session, digest)), digest)


async def test_a_hash_that_cannot_be_carried_over_is_computed_from_the_bytes(plane: Plane) -> None:
    session = await start(plane)
    await patch_upload(plane, patch(session, body(CONTENT[:1000])))

    async def forget(tx) -> None:  # type: ignore[no-untyped-def]
        await tx.run(sa.update(uploads).values(hash_state=b"of another build"))

    await plane.db.transact(forget)
    await patch_upload(plane, patch(session, body(CONTENT[1000:2000])))
    check_created(await finish_upload(plane, put(session, DIGEST, body(CONTENT[2000:]))), DIGEST)
    assert await fetched(plane, DIGEST) == CONTENT


@pytest.mark.parametrize("split", [0, 1, 100_000])
async def test_a_wrong_digest_is_400_and_leaves_nothing_visible(plane: Plane, split: int) -> None:
    session = await start(plane)
    if split:
        await patch_upload(plane, patch(session, body(CONTENT[:split])))
    wrong = Digest.of(b"something else")
    with pytest.raises(DigestInvalid) as refusal:
        await finish_upload(plane, put(session, wrong, body(CONTENT[split:])))
    assert refusal.value.status == 400
    assert str(DIGEST) in refusal.value.message
    for digest in (wrong, DIGEST):
        with pytest.raises(BlobUnknown):
            await head_blob(plane, request("HEAD", digest=str(digest)))
    with pytest.raises(UploadUnknown):
        await range_of(plane, session)
    assert await object_states(plane) == [4]
    assert await plane.db.all(sa.select(blobs.c.id)) == []


async def test_a_failed_post_with_the_body_leaves_no_session(plane: Plane) -> None:
    with pytest.raises(DigestInvalid):
        await start_upload(plane, request("POST", query={"digest": str(Digest.of(b"x"))}, sent=body(CONTENT)))
    with pytest.raises(ClientGone):
        await start_upload(
            plane, request("POST", query={"digest": str(DIGEST)}, sent=Sent([CONTENT[:9]], 300_000, gone=True))
        )
    assert await plane.db.all(sa.select(uploads.c.id)) == []
    assert await object_states(plane) == [4, 4]


@pytest.mark.parametrize(
    "digest", ["", "sha256", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", f"sha256:{'A' * 64}", "\0"]
)
async def test_a_digest_that_is_none_is_refused_before_the_body_and_the_session_lives(
    small_plane: Plane, digest: str
) -> None:
    session = await start(small_plane)
    sent = body(CONTENT)
    with pytest.raises(DigestInvalid):
        await finish_upload(small_plane, put(session, digest, sent))
    with pytest.raises(DigestInvalid):
        await start_upload(small_plane, request("POST", query={"digest": digest}, sent=sent))
    assert sent.read_pieces == 0
    assert await range_of(small_plane, session) == "0-0"


async def test_a_put_without_digest_says_what_is_missing(small_plane: Plane) -> None:
    session = await start(small_plane)
    with pytest.raises(DigestInvalid, match=r"\?digest="):
        await finish_upload(small_plane, request("PUT", session=session))
    check_created(await finish_upload(small_plane, put(session, DIGEST, body(CONTENT))), DIGEST)


@pytest.mark.parametrize("algorithm", ["md5", "", "sha256 ", "SHA256"])
async def test_an_unknown_digest_algorithm_is_400(small_plane: Plane, algorithm: str) -> None:
    with pytest.raises(DigestInvalid, match="not supported"):
        await start_upload(small_plane, request("POST", query={"digest-algorithm": algorithm}))


@pytest.mark.parametrize("session", ["", "x", "..", "a" * 65, "a\0b", "%2e%2e", "\ud800", "a b", "é"])
async def test_what_cannot_be_a_session_is_unknown(small_plane: Plane, session: str) -> None:
    for ask in (
        upload_status(small_plane, request("GET", session=session)),
        patch_upload(small_plane, patch(session, body(b"x"))),
        finish_upload(small_plane, put(session, DIGEST, body(CONTENT))),
        cancel_upload(small_plane, request("DELETE", session=session)),
    ):
        with pytest.raises(UploadUnknown):
            await ask


async def test_a_session_belongs_to_its_repository(plane: Plane) -> None:
    session = await start(plane)
    await start_upload(plane, request("POST", "other"))
    for ask in (
        upload_status(plane, request("GET", "other", session=session)),
        patch_upload(plane, request("PATCH", "other", sent=body(b"x"), session=session)),
        cancel_upload(plane, request("DELETE", "other", session=session)),
    ):
        with pytest.raises(UploadUnknown):
            await ask
    assert await range_of(plane, session) == "0-0"


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("content_range", ["0-9", "200-209", "99-108", "101-110"])
async def test_a_chunk_out_of_order_is_416_and_the_session_lives_on(
    plane: Plane, method: str, content_range: str
) -> None:
    session = await start(plane)
    await patch_upload(plane, patch(session, body(CONTENT[:100])))
    sent = body(bytes(10))
    with pytest.raises(UploadRangeInvalid) as refusal:
        if method == "PATCH":
            await patch_upload(plane, patch(session, sent, content_range))
        else:
            await finish_upload(plane, put(session, DIGEST, sent, content_range))
    assert refusal.value.status == 416
    assert refusal.value.headers["Range"] == "0-99"
    assert refusal.value.headers["Location"].endswith(session)
    assert sent.read_pieces == 0
    assert await range_of(plane, session) == "0-99"
    check_created(await finish_upload(plane, put(session, DIGEST, body(CONTENT[100:]), "100-299999")), DIGEST)


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        "-",
        "0-",
        "-9",
        "9-0",
        "a-b",
        "0-9, 10-19",
        "0--9",
        "0-9x",
        "bytes 0-9/x",
        "bytes 0-9/3",
        "bytes 0-9/9",
        "1" * 30 + "-2",
    ],
)
async def test_a_content_range_that_cannot_be_read_is_400(small_plane: Plane, content_range: str) -> None:
    session = await start(small_plane)
    with pytest.raises(UploadInvalid) as refusal:
        await patch_upload(
            small_plane,
            request("PATCH", sent=body(bytes(10)), headers={"Content-Range": content_range}, session=session),
        )
    assert refusal.value.status == 400
    assert await range_of(small_plane, session) == "0-0"


@pytest.mark.parametrize("content_range", ["0-9", "bytes 0-9/*", "bytes 0-9/300000", "bytes 0-9/10", "bytes=0-9"])
async def test_content_range_may_be_spelt_as_http_does(small_plane: Plane, content_range: str) -> None:
    session = await start(small_plane)
    await patch_upload(small_plane, patch(session, body(CONTENT[:10]), content_range))
    assert await range_of(small_plane, session) == "0-9"


@pytest.mark.parametrize(
    "sent",
    [body(bytes(11)), body(bytes(9)), body(bytes(11), chunked=True), body(bytes(9), chunked=True), body(chunked=True)],
)
async def test_a_chunk_that_is_not_as_long_as_it_says_is_not_kept(plane: Plane, sent: Sent) -> None:
    session = await start(plane)
    with pytest.raises(SizeInvalid):
        await patch_upload(plane, patch(session, sent, "0-9"))
    assert await range_of(plane, session) == "0-0"
    check_created(await finish_upload(plane, put(session, DIGEST, body(CONTENT))), DIGEST)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_what_arrived_before_the_client_went_away_is_kept(plane: Plane, method: str) -> None:
    session = await start(plane)
    sent = Sent([CONTENT[:50_000], CONTENT[50_000:90_000]], len(CONTENT), gone=True)
    with pytest.raises(ClientGone):
        if method == "PATCH":
            await patch_upload(plane, patch(session, sent))
        else:
            await finish_upload(plane, put(session, DIGEST, sent))
    assert await range_of(plane, session) == "0-89999"
    await patch_upload(plane, patch(session, body(CONTENT[90_000:]), "90000-299999"))
    check_created(await finish_upload(plane, put(session, DIGEST)), DIGEST)


async def test_cancelled_sessions_are_gone_and_their_bytes_condemned(plane: Plane) -> None:
    session = await start(plane)
    await patch_upload(plane, patch(session, body(CONTENT)))
    assert (await cancel_upload(plane, request("DELETE", session=session))).status == 204
    for ask in (
        upload_status(plane, request("GET", session=session)),
        patch_upload(plane, patch(session, body(b"x"))),
        finish_upload(plane, put(session, DIGEST)),
        cancel_upload(plane, request("DELETE", session=session)),
    ):
        with pytest.raises(UploadUnknown):
            await ask
    assert set(await object_states(plane)) == {4}


async def test_a_session_cancelled_under_its_writer_ends_that_writer(plane: Plane) -> None:
    session = await start(plane)

    async def cancel(number: int) -> None:
        if number == 1:
            await cancel_upload(plane, request("DELETE", session=session))

    sent = Sent([CONTENT[:1000], CONTENT[1000:]], len(CONTENT), before=cancel)
    with pytest.raises(UploadUnknown):
        await finish_upload(plane, put(session, DIGEST, sent))
    with pytest.raises(BlobUnknown):
        await head_blob(plane, request("HEAD", digest=str(DIGEST)))


async def test_one_writer_at_a_time_and_the_next_one_waits_its_turn(plane: Plane) -> None:
    session = await start(plane)
    writing = asyncio.Event()

    async def first(number: int) -> None:
        if number == 1:
            writing.set()
            await asyncio.sleep(0.3)

    slow = asyncio.create_task(
        patch_upload(plane, patch(session, Sent([CONTENT[:10], CONTENT[10:20]], 20, before=first)))
    )
    await writing.wait()
    await patch_upload(plane, patch(session, body(CONTENT[20:])))
    assert slow.done()
    await slow
    check_created(await finish_upload(plane, put(session, DIGEST)), DIGEST)


async def test_a_writer_that_never_lets_go_makes_others_busy(plane: Plane) -> None:
    plane = short_claims(plane)
    session = await start(plane)
    claimed = await claim_upload(plane.db, "app", session, "a greedy one", claim_for=10**9)
    with pytest.raises(UploadBusy):
        await patch_upload(plane, patch(session, body(b"x")))
    assert claimed.offset == 0


async def test_the_claim_is_kept_for_as_long_as_the_request_runs(plane: Plane) -> None:
    plane = short_claims(plane)
    session = await start(plane)

    async def dawdle(number: int) -> None:
        await asyncio.sleep(0.25)

    sent = Sent([CONTENT[at : at + 50_000] for at in range(0, 300_000, 50_000)], 300_000, before=dawdle)
    slow = asyncio.create_task(finish_upload(plane, put(session, DIGEST, sent)))
    await asyncio.sleep(0.6)
    with pytest.raises(UploadBusy):
        await claim_upload(plane.db, "app", session, "another", claim_for=10**6)
    check_created(await slow, DIGEST)


async def test_a_writer_that_lost_its_claim_acknowledges_nothing(plane: Plane) -> None:
    session = await start(plane)

    async def steal(number: int) -> None:
        if number == 1:

            async def work(tx) -> None:  # type: ignore[no-untyped-def]
                await tx.run(sa.update(uploads).values(owner="thief", version=uploads.c.version + 1))

            await plane.db.transact(work)

    with pytest.raises(UploadUnknown):
        await patch_upload(plane, patch(session, Sent([CONTENT[:10], CONTENT[10:]], 300_000, before=steal)))
    assert await range_of(plane, session) == "0-0"


async def test_a_store_that_fails_leaves_the_session_where_it_was(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await start(plane)
    await patch_upload(plane, patch(session, body(CONTENT[:1000])))

    async def fail() -> AsyncIterator[bytes]:
        yield CONTENT[1000:2000]
        raise StorageUnavailable()

    sent = body(CONTENT[1000:])
    monkeypatch.setattr(Sent, "chunks", lambda self: fail())
    with pytest.raises(StorageUnavailable):
        await patch_upload(plane, patch(session, sent))
    monkeypatch.undo()
    assert await range_of(plane, session) == "0-999"
    check_created(await finish_upload(plane, put(session, DIGEST, body(CONTENT[1000:]))), DIGEST)


async def test_content_that_exists_still_has_to_be_sent_whole(plane: Plane) -> None:
    await finish_upload(plane, put(await start(plane), DIGEST, body(CONTENT)))
    with pytest.raises(DigestInvalid):
        await finish_upload(plane, put(await start(plane), DIGEST))
    check_created(await finish_upload(plane, put(await start(plane), DIGEST, body(CONTENT))), DIGEST)
    assert sorted(await object_states(plane)) == [2, 4, 4]


async def test_two_at_once_push_the_same_content(plane: Plane) -> None:
    sessions = [await start(plane) for _ in range(3)]
    answers = await asyncio.gather(*(finish_upload(plane, put(session, DIGEST, body(CONTENT))) for session in sessions))
    for answer in answers:
        check_created(answer, DIGEST)
    assert sorted(await object_states(plane)) == [2, 4, 4]
    assert await fetched(plane, DIGEST) == CONTENT


async def test_locations_are_absolute_where_that_is_asked_for(small_plane: Plane) -> None:
    plane = replace(small_plane, pull=type(small_plane.pull)(absolute_urls=True))
    answer = await start_upload(plane, request("POST"))
    assert answer.headers["Location"].startswith("http://registry.test/v2/app/blobs/uploads/")
    with pytest.raises(TenureError):
        await finish_upload(plane, put(answer.headers["Docker-Upload-UUID"], DIGEST, body(b"x")))


def short_claims(plane: Plane) -> Plane:
    """The same registry with claims of 0.3 s, so that those of the dead run out within the test."""
    settings = type(plane.push)(upload_claim=Duration(300_000))
    return replace(plane, push=settings)


async def test_two_digests_for_one_blob_are_refused(small: str) -> None:
    two = f"digest={DIGEST}&digest=sha256:{'0' * 64}"
    answer = await exchange(small, "POST", f"/v2/app/blobs/uploads/?{two}", sent=CONTENT)
    assert answer.status == 400 and b"DIGEST_INVALID" in answer.body
    same = await exchange(small, "POST", f"/v2/app/blobs/uploads/?digest={DIGEST}&digest={DIGEST}", sent=CONTENT)
    assert same.status == 201
