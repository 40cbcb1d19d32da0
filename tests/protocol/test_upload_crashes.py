"""Uploads whose process dies or is told to end at the worst moment, and many uploads on little memory."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.images import SOMEBODY
from helpers.planes import new_store
from helpers.requests import Sent, body, content_of, request
from helpers.s3 import S3Server
from tenure.core.clock import DAY
from tenure.core.digest import Digest
from tenure.core.errors import DigestInvalid, StorageUnavailable, UploadUnknown
from tenure.registry.blobs import get_blob
from tenure.registry.http import Answer
from tenure.registry.plane import Plane
from tenure.registry.uploads import finish_upload, patch_upload, start_upload, upload_status
from tenure.storage import ingest
from tenure.storage.blobs.opening import open_driver
from tenure.storage.settings import BlobsSettings, Duration, Size

CONTENT = random.Random(23).randbytes(14_000_000)
DIGEST = Digest.of(CONTENT)
SIZE = len(CONTENT)


async def begun(plane: Plane, upto: int) -> str:
    """A session that holds the first bytes of CONTENT."""
    session = (await start_upload(plane, request("POST"))).headers["Docker-Upload-UUID"]
    if upto:
        await patch_upload(plane, request("PATCH", sent=body(CONTENT[:upto]), session=session))
    return session


async def close(plane: Plane, session: str, sent: bytes, digest: Digest = DIGEST) -> Answer:
    return await finish_upload(plane, request("PUT", sent=body(sent), query={"digest": str(digest)}, session=session))


async def fetched(plane: Plane, digest: Digest = DIGEST) -> Digest:
    return Digest.of(await content_of(await get_blob(plane, request("GET", digest=str(digest)))))


def short_claims(plane: Plane) -> Plane:
    """The same registry with claims of 0.3 s, so that those of the dead run out within the test."""
    return replace(plane, push=type(plane.push)(upload_claim=Duration(300_000)))


@contextmanager
def dying_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """From the finished object on nothing reaches the database any more, not even the end of the claim."""

    async def die(*_: object, **__: object) -> None:
        raise StorageUnavailable()

    with monkeypatch.context() as patched:
        patched.setattr(ingest, "close_upload", die)
        patched.setattr(ingest.uploads, "release_claim", die)
        with pytest.raises(StorageUnavailable):
            yield


@pytest.mark.parametrize("before", [0, 200_000, 8_500_000, SIZE - 1000, SIZE])
async def test_the_closing_put_can_be_sent_again(plane: Plane, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    plane = short_claims(plane)
    session = await begun(plane, before)
    with dying_before_the_commit(monkeypatch):
        await close(plane, session, CONTENT[before:])
    status = await upload_status(plane, request("GET", session=session))
    assert status.headers["Range"] == f"0-{max(before - 1, 0)}"
    assert (await close(plane, session, CONTENT[before:])).status == 201
    assert await fetched(plane) == DIGEST


async def test_the_closing_put_of_more_parts_than_are_in_flight_can_be_sent_again(
    large_plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = short_claims(large_plane)
    content = random.Random(31).randbytes(70_000_000)
    digest, before = Digest.of(content), 8_500_000
    session = (await start_upload(plane, request("POST"))).headers["Docker-Upload-UUID"]
    await patch_upload(plane, request("PATCH", sent=body(content[:before]), session=session))
    with dying_before_the_commit(monkeypatch):
        await close(plane, session, content[before:], digest)
    assert (await close(plane, session, content[before:], digest)).status == 201
    assert await fetched(plane, digest) == digest
    assert plane.driver.budget.held == 0  # type: ignore[attr-defined]


async def test_another_end_in_the_second_try_is_never_taken_for_the_first(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a store kept the object of the first try, its bytes are not those that were hashed now."""
    plane = short_claims(plane)
    before = 8_500_000
    session = await begun(plane, before)
    with dying_before_the_commit(monkeypatch):
        await close(plane, session, CONTENT[before:])
    other = CONTENT[before:][::-1]
    digest = Digest.of(CONTENT[:before] + other)
    try:
        await close(plane, session, other, digest)
    except DigestInvalid:
        assert plane.driver.name == "s3"
    else:
        assert await fetched(plane, digest) == digest


async def stopped_after_its_claim(plane: Plane, session: str) -> ingest.Ingest:
    """A request whose process was stopped right after its claim, which runs out and is not renewed."""
    upload = await ingest.claim(plane.db, request("PUT").name, session, claim_for=plane.push.upload_claim)
    writing = ingest.Ingest(plane.db, plane.driver, upload, claim_for=plane.push.upload_claim)
    await asyncio.sleep(0.4)
    return writing


async def wakes(writing: ingest.Ingest, content: bytes, digest: Digest | None) -> None:
    """It goes on as if nothing had happened, to the end of its request."""
    with pytest.raises(UploadUnknown):
        async with writing:
            await writing.feed(body(content).chunks())
            if digest is None:
                await writing.suspend(expiry=DAY)
            else:
                await writing.finish(digest, SOMEBODY, lease=DAY)


@pytest.mark.parametrize("before", [0, 200_000, 8_500_000])
async def test_a_late_writer_takes_nothing_from_who_finished_meanwhile(plane: Plane, before: int) -> None:
    plane = short_claims(plane)
    session = await begun(plane, before)
    late = await stopped_after_its_claim(plane, session)
    assert (await close(plane, session, CONTENT[before:])).status == 201
    await wakes(late, CONTENT[before:], DIGEST)
    assert await fetched(plane) == DIGEST


@pytest.mark.parametrize("before", [0, 200_000])
async def test_a_late_writer_takes_nothing_from_who_went_on_meanwhile(plane: Plane, before: int) -> None:
    plane = short_claims(plane)
    session = await begun(plane, before)
    late = await stopped_after_its_claim(plane, session)
    await patch_upload(plane, request("PATCH", sent=body(CONTENT[before:700_000]), session=session))
    # Other bytes than those that were acknowledged: in their place they would be found by nobody.
    await wakes(late, bytes(900_000), None)
    assert (await close(plane, session, CONTENT[700_000:])).status == 201
    assert await fetched(plane) == DIGEST


async def test_a_request_that_is_told_to_end_gives_its_claim_back(plane: Plane) -> None:
    """The end of a drain: another replica goes on at once, from what was acknowledged."""
    session = await begun(plane, 100)
    arrived = asyncio.Event()

    async def dawdle(number: int) -> None:
        if number == 2:
            arrived.set()
            await asyncio.sleep(60)

    sent = Sent([CONTENT[100:200], CONTENT[200:300], CONTENT[300:]], before=dawdle)
    task = asyncio.create_task(patch_upload(plane, request("PATCH", sent=sent, session=session)))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(20):
        assert (await close(plane, session, CONTENT[100:])).status == 201
    assert await fetched(plane) == DIGEST


@pytest.mark.parametrize("store", ["folder", "s3"])
async def test_expectation_07_memory_is_bounded_by_its_setting(
    small_plane: Plane, s3_server: S3Server, tmp_path: Path, store: str
) -> None:
    """Ten uploads of 14 MB at once on 16 MiB: all arrive, and no more was ever lent."""
    url = f"file://{tmp_path}/little" if store == "folder" else await new_store(s3_server)
    settings = BlobsSettings(url=url, memory_budget=Size(16 << 20))
    driver = await open_driver(settings, s3_server.settings, tmp_path)
    plane = replace(small_plane, driver=driver)
    try:
        sessions = [await begun(plane, 0) for _ in range(10)]
        answers = await asyncio.gather(*(close(plane, session, CONTENT) for session in sessions))
        assert [answer.status for answer in answers] == [201] * 10
        assert await fetched(plane) == DIGEST
        assert driver.budget.peak <= 16 << 20  # type: ignore[attr-defined]
        assert driver.budget.held == 0  # type: ignore[attr-defined]
    finally:
        await driver.close()
