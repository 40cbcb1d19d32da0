"""Upload sessions and their commit, on both databases."""

import asyncio

import pytest
import sqlalchemy as sa

from helpers.images import SOMEBODY, put_blob
from tenure.core.clock import DAY, MINUTE
from tenure.core.digest import Digest
from tenure.core.errors import UploadBusy, UploadUnknown
from tenure.storage.meta.blobs import find_blob, keep_promise
from tenure.storage.meta.commit import close_upload
from tenure.storage.meta.database import Database, Session
from tenure.storage.meta.tables import blobs, objects, repo_blobs, uploads
from tenure.storage.meta.uploads import (
    Upload,
    begin_upload,
    cancel_upload,
    claim_upload,
    get_upload,
    new_tail_key,
    record_multipart,
    release_all_claims,
    release_claim,
    renew_claim,
    reserve_parts,
    save_progress,
)

CONTENT = b"content"
DIGEST = Digest.of(CONTENT)


async def begin(db: Database, owner: str | None = "me") -> Upload:
    return await begin_upload(db, "app", SOMEBODY, algorithms=("sha256",), expiry=DAY, owner=owner, claim_for=MINUTE)


async def close(db: Database, upload: Upload, key: str | None = None) -> None:
    await close_upload(
        db, upload, digest=DIGEST, size=len(CONTENT), stored_key=key or upload.key, version_id=None, lease=DAY,
        origin=SOMEBODY,
    )  # fmt: skip


async def states(db: Database) -> list[int]:
    return [row["state"] for row in await db.all(sa.select(objects.c.state).order_by(objects.c.id))]


async def save(db: Database, upload: Upload, **more: object) -> None:
    values = {"offset": 7, "parts": (), "tail": b"", "tail_key": None, "hash_state": None, "expiry": DAY, **more}
    await save_progress(db, upload, **values)  # type: ignore[arg-type]


async def test_the_key_is_journalled_before_anybody_can_write(db: Database) -> None:
    upload = await begin(db)
    row = await db.one(sa.select(objects.c.key, objects.c.state, objects.c.write_deadline))
    assert row is not None and (row["key"], row["state"]) == (upload.key, 1)


async def test_one_writer_at_a_time(db: Database) -> None:
    upload = await begin(db, owner=None)
    mine = await claim_upload(db, "app", upload.session, "me", claim_for=MINUTE)
    with pytest.raises(UploadBusy):
        await claim_upload(db, "app", upload.session, "you", claim_for=MINUTE)
    await renew_claim(db, mine, claim_for=MINUTE)
    await release_claim(db, mine)
    yours = await claim_upload(db, "app", upload.session, "you", claim_for=MINUTE)
    for step in (
        lambda: renew_claim(db, mine, claim_for=MINUTE),
        lambda: reserve_parts(db, mine, 1),
        lambda: record_multipart(db, mine, "x"),
        lambda: new_tail_key(db, mine),
        lambda: save(db, mine),
        lambda: close(db, mine),
    ):
        with pytest.raises(UploadUnknown):
            await step()
    await close(db, yours)


async def test_a_stalled_writers_claim_ends(db: Database) -> None:
    upload = await begin(db)
    db.clock_offset = 2 * MINUTE  # type: ignore[attr-defined]
    taken = await claim_upload(db, "app", upload.session, "other", claim_for=MINUTE)
    assert taken.version == upload.version + 1


async def test_the_only_process_frees_the_claims_of_the_one_before_it(db: Database) -> None:
    upload = await begin(db)
    await release_all_claims(db)
    await claim_upload(db, "app", upload.session, "next", claim_for=MINUTE)
    with pytest.raises(UploadUnknown):
        await close(db, upload)


async def test_part_numbers_are_given_once(db: Database) -> None:
    upload = await begin(db)
    assert [await reserve_parts(db, upload, count) for count in (16, 16, 1)] == [1, 17, 33]
    await save(db, upload, parts=((1, "etag", 5),))
    again = await claim_upload(db, "app", upload.session, "next", claim_for=MINUTE)
    assert (again.parts, again.next_part, again.offset) == (((1, "etag", 5),), 34, 7)


async def test_progress_survives_and_a_new_tail_condemns_the_old(db: Database) -> None:
    upload = await begin(db)
    first = await new_tail_key(db, upload)
    await save(db, upload, tail_key=first, hash_state=b"state")
    again = await claim_upload(db, "app", upload.session, "me", claim_for=MINUTE)
    assert (again.tail_key, again.hash_state, again.owner) == (first, b"state", "me")
    second = await new_tail_key(db, again)
    await save(db, again, tail_key=second)
    assert await states(db) == [1, 4, 1]
    assert (await get_upload(db, "app", upload.session)).tail_key == second


async def test_close_makes_a_blob_and_a_promise(db: Database) -> None:
    await close(db, await begin(db))
    blob = await find_blob(db, "app", DIGEST)
    assert blob is not None and blob.size == len(CONTENT)
    assert blob.lease_until - blob.db_now > DAY // 2
    assert await states(db) == [2]
    assert await db.one(sa.select(uploads.c.id)) is None


async def test_a_tail_that_was_everything_becomes_the_blob(db: Database) -> None:
    upload = await begin(db)
    key = await new_tail_key(db, upload)
    await save(db, upload, tail_key=key)
    again = await claim_upload(db, "app", upload.session, "me", claim_for=MINUTE)
    await close(db, again, key)
    blob = await find_blob(db, "app", DIGEST)
    assert blob is not None and blob.key == key
    assert await states(db) == [4, 2]


async def test_the_later_of_two_pushes_of_one_digest_is_condemned(db: Database) -> None:
    first, second = await begin(db), await begin(db)
    await asyncio.gather(close(db, first), close(db, second))
    assert sorted(await states(db)) == [2, 4]
    assert len(await db.all(sa.select(blobs.c.id))) == 1


async def test_a_damaged_blob_is_repaired_by_the_next_push(db: Database) -> None:
    await close(db, await begin(db))

    async def damage(session: Session) -> None:
        await session.run(sa.update(blobs).values(damaged=1))

    await db.transact(damage)
    upload = await begin(db)
    await close(db, upload)
    blob = await find_blob(db, "app", DIGEST)
    assert blob is not None and blob.key == upload.key
    assert await states(db) == [4, 2]


async def test_cancel_condemns_what_was_written_and_ends_the_session(db: Database) -> None:
    upload = await begin(db)
    await cancel_upload(db, "app", upload.session)
    assert await states(db) == [4]
    for step in (
        lambda: get_upload(db, "app", upload.session),
        lambda: cancel_upload(db, "app", upload.session),
        lambda: close(db, upload),
    ):
        with pytest.raises(UploadUnknown):
            await step()


async def test_a_session_is_known_only_in_its_repository(db: Database) -> None:
    upload = await begin(db, owner=None)
    await put_blob(db, "other", b"x")
    for step in (
        lambda: get_upload(db, "other", upload.session),
        lambda: claim_upload(db, "other", upload.session, "me", claim_for=MINUTE),
        lambda: cancel_upload(db, "other", upload.session),
    ):
        with pytest.raises(UploadUnknown):
            await step()
    assert (await get_upload(db, "app", upload.session)).owner is None


async def test_a_promise_is_written_only_below_half_a_lease(db: Database) -> None:
    await put_blob(db, "app", CONTENT)
    blob = await find_blob(db, "app", DIGEST)
    assert blob is not None
    assert await keep_promise(db, blob, DAY)
    assert (await find_blob(db, "app", DIGEST)).lease_until == blob.lease_until  # type: ignore[union-attr]
    db.clock_offset = DAY // 2 + MINUTE  # type: ignore[attr-defined]
    late = await find_blob(db, "app", DIGEST)
    assert late is not None and await keep_promise(db, late, DAY)
    renewed = await find_blob(db, "app", DIGEST)
    assert renewed is not None and renewed.lease_until > blob.lease_until

    async def sweep(session: Session) -> None:
        await session.run(sa.delete(repo_blobs))

    db.clock_offset = 3 * DAY  # type: ignore[attr-defined]
    swept = await find_blob(db, "app", DIGEST)
    await db.transact(sweep)
    assert swept is not None and not await keep_promise(db, swept, DAY)
