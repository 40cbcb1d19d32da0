"""Condemned bytes, abandoned uploads, expired keys and late lineage, on both databases and a real folder."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from helpers.admin import store
from helpers.images import SOMEBODY, config_of, image, push, put_blob, put_image
from tenure.core.clock import DAY, HOUR, MINUTE, SECOND
from tenure.core.digest import Digest
from tenure.core.errors import BlobUnknown, UploadUnknown
from tenure.gc.deleter import delete_job, delete_round
from tenure.gc.housekeeping import expire_keys, expire_uploads
from tenure.gc.lineage import index_job
from tenure.gc.settings import GcSettings
from tenure.gc.worker import Task
from tenure.storage.blobs.budget import MemoryBudget
from tenure.storage.blobs.folder import FolderDriver
from tenure.storage.meta.commit import close_upload
from tenure.storage.meta.database import Database, Row, Session
from tenure.storage.meta.garbage import claim_condemned, close_condemned, reap_orphans, reap_uploads
from tenure.storage.meta.idempotency import reserve_key
from tenure.storage.meta.jobs import Job, take_jobs
from tenure.storage.meta.lineage import ancestors
from tenure.storage.meta.records import idempotency_keys, image_chains
from tenure.storage.meta.tables import blobs, manifests, objects, uploads
from tenure.storage.meta.uploads import Upload, begin_upload, new_tail_key, save_progress

SETTINGS = GcSettings(delete_batch=3)


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[FolderDriver]:
    opened = FolderDriver(tmp_path / "blobs", MemoryBudget(64 << 20))
    yield opened
    await opened.close()


def task(db: Database, driver: FolderDriver, **payload: object) -> Task:
    return Task(db, driver, SETTINGS, Job(1, "kind", "", payload, 1, 1, "me", None))


async def condemn(db: Database, driver: FolderDriver, *, state: int = 4, size: int = 5) -> str:
    """An object in `state`, with its bytes."""
    key = await store(driver, b"x" * size)

    async def work(session: Session) -> None:
        now = await session.now()
        row = {"key": key, "kind": 1, "size": size, "state": state, "next_try": now, "created_at": now}
        await session.run(sa.insert(objects), row)

    await db.transact(work)
    return key


async def find(db: Database, key: str) -> Row:
    row = await db.one(sa.select(objects).where(objects.c.key == sa.bindparam("wanted")), {"wanted": key})
    assert row is not None
    return row


async def one_round(db: Database, driver: FolderDriver, limit: int = 100) -> int:
    return await delete_round(db, driver, limit=limit, parallel=4, claim_for=MINUTE)


async def test_condemned_bytes_are_removed_and_the_row_is_closed(db: Database, driver: FolderDriver) -> None:
    keys = [await condemn(db, driver) for _ in range(5)]
    assert await one_round(db, driver) == 5
    for key in keys:
        row = await find(db, key)
        assert (row["state"], row["next_try"], row["last_error"]) == (5, None, None)
        assert await driver.stat(key) is None
    assert await one_round(db, driver) == 0


async def test_absent_bytes_are_success(db: Database, driver: FolderDriver) -> None:
    key = await condemn(db, driver)
    driver.path(key).unlink()
    assert await one_round(db, driver) == 1
    assert (await find(db, key))["state"] == 5


async def test_no_other_state_is_touched(db: Database, driver: FolderDriver) -> None:
    keys = {state: await condemn(db, driver, state=state) for state in (1, 2, 3, 5)}
    assert await one_round(db, driver) == 0
    for state, key in keys.items():
        assert (await find(db, key))["state"] == state
        assert await driver.stat(key) is not None
    assert await close_condemned(db, [(await find(db, key))["id"] for key in keys.values()]) == 0


async def test_one_that_cannot_be_removed_waits_longer_and_holds_nobody_up(db: Database, driver: FolderDriver) -> None:
    stubborn, easy = await condemn(db, driver), await condemn(db, driver)
    driver.path(stubborn).unlink()
    driver.path(stubborn).mkdir()  # what a file system refuses to unlink
    (driver.path(stubborn) / "file").touch()
    assert await one_round(db, driver) == 2
    assert (await find(db, easy))["state"] == 5
    row = await find(db, stubborn)
    assert (row["state"], row["attempts"]) == (4, 1)
    assert row["last_error"]
    assert await one_round(db, driver) == 0
    waits = []
    for attempt in range(2, 18):
        db.clock_offset += 7 * HOUR  # type: ignore[attr-defined]
        assert await one_round(db, driver) == 1
        row = await find(db, stubborn)
        assert row["attempts"] == attempt
        waits.append(row["next_try"] - await _now(db))
    assert 2 * SECOND < waits[0] < 5 * SECOND and 5 * HOUR < waits[-1] <= 6 * HOUR
    (driver.path(stubborn) / "file").unlink()
    driver.path(stubborn).rmdir()
    db.clock_offset += 7 * HOUR  # type: ignore[attr-defined]
    await one_round(db, driver)
    assert (await find(db, stubborn))["state"] == 5


async def test_a_claim_keeps_others_away_for_its_time(db: Database, driver: FolderDriver) -> None:
    await condemn(db, driver)
    claims = await asyncio.gather(*(claim_condemned(db, limit=10, claim_for=MINUTE) for _ in range(4)))
    assert sorted(len(claim) for claim in claims) == [0, 0, 0, 1]
    db.clock_offset += 2 * MINUTE  # type: ignore[attr-defined]
    (again,) = await claim_condemned(db, limit=10, claim_for=MINUTE)
    assert again.attempts == 2


async def test_the_job_works_until_nothing_is_due(db: Database, driver: FolderDriver) -> None:
    keys = [await condemn(db, driver) for _ in range(8)]
    due = await delete_job(task(db, driver))
    assert {(await find(db, key))["state"] for key in keys} == {5}
    assert due > await _now(db)


async def test_an_unfinished_object_is_removed_too(db: Database, driver: FolderDriver) -> None:
    upload = await _begin(db)
    driver.unfinished(upload.key).parent.mkdir(parents=True, exist_ok=True)
    driver.unfinished(upload.key).write_bytes(b"half")
    db.clock_offset += 2 * DAY  # type: ignore[attr-defined]
    await expire_uploads(task(db, driver))
    await one_round(db, driver)
    assert (await find(db, upload.key))["state"] == 5
    assert not driver.unfinished(upload.key).exists()


async def test_abandoned_uploads_end_and_running_ones_do_not(db: Database, driver: FolderDriver) -> None:
    left, claimed = await _begin(db), await _begin(db, claim_for=3 * DAY)
    tail = await new_tail_key(db, claimed)
    assert await reap_uploads(db, limit=10) == 0
    db.clock_offset += 2 * DAY  # type: ignore[attr-defined]
    fresh = await _begin(db)
    await expire_uploads(task(db, driver))
    assert (await find(db, left.key))["state"] == 4
    assert [(await find(db, key))["state"] for key in (claimed.key, fresh.key)] == [1, 1]
    assert len(await db.all(sa.select(uploads.c.id))) == 2
    # The tail that its writer never saved goes a day later still; the session's own key never this way.
    assert (await find(db, tail))["state"] == 4
    with pytest.raises(UploadUnknown):
        await close_upload(
            db, left, digest=Digest.of(b"x"), size=1, stored_key=left.key, version_id=None, lease=DAY, origin=SOMEBODY
        )


async def test_a_saved_tail_goes_with_its_session_only(db: Database, driver: FolderDriver) -> None:
    upload = await _begin(db)
    tail = await new_tail_key(db, upload)
    await save_progress(db, upload, offset=3, parts=(), tail=b"", tail_key=tail, hash_state=None, expiry=9 * DAY)
    db.clock_offset += 5 * DAY  # type: ignore[attr-defined]
    assert await reap_orphans(db, limit=10) == 0
    assert await reap_uploads(db, limit=10) == 0
    db.clock_offset += 5 * DAY  # type: ignore[attr-defined]
    assert await reap_uploads(db, limit=10) == 1
    assert [(await find(db, key))["state"] for key in (upload.key, tail)] == [4, 4]


async def test_of_commit_and_reaper_one_wins_whole(pg: Database, driver: FolderDriver) -> None:
    """R11: either the session was reaped and the commit is refused, or the blob lives and its object with it."""
    outcomes = set()
    # The first two are decided beforehand, one each way; the others start as close together as may be.
    delays = [(0.2, 0.0), (0.0, 0.2), *((0.0004 * (number % 8), 0.0) for number in range(40))]
    for number, (commit_after, reap_after) in enumerate(delays):
        upload = await _begin(pg, claim_for=0)
        pg.clock_offset += 2 * DAY  # type: ignore[attr-defined]
        content = Digest.of(str(number).encode())

        async def commit(upload: Upload = upload, content: Digest = content, after: float = commit_after) -> bool:
            await asyncio.sleep(after)
            try:
                await close_upload(
                    pg, upload, digest=content, size=1, stored_key=upload.key, version_id=None, lease=DAY,
                    origin=SOMEBODY,
                )  # fmt: skip
            except UploadUnknown:
                return False
            return True

        async def reap(after: float = reap_after) -> int:
            await asyncio.sleep(after)
            return await reap_uploads(pg, limit=10)

        won, reaped = await asyncio.gather(commit(), reap())
        outcomes.add(won)
        state = (await find(pg, upload.key))["state"]
        blob = await pg.one(sa.select(blobs.c.id).where(blobs.c.digest == sa.bindparam("d")), {"d": content.packed})
        assert (state, blob is not None) == ((2, True) if won else (4, False))
        assert reaped == (0 if won else 1)
        assert await pg.all(sa.select(uploads.c.id)) == []
    assert outcomes == {True, False}


async def test_the_reaper_waits_for_a_commit_that_has_the_session(pg: Database) -> None:
    """The ordering made certain: the commit holds the session's row, the reaper passes by, the blob lives."""
    upload = await _begin(pg, claim_for=0)
    pg.clock_offset += 2 * DAY  # type: ignore[attr-defined]
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def holding(session: Session) -> None:
        await session.run(sa.delete(uploads).where(uploads.c.id == sa.bindparam("u")), {"u": upload.id})
        reached.set()
        await go_on.wait()
        await session.run(sa.update(objects).values(state=2).where(objects.c.id == sa.bindparam("o")),
                          {"o": upload.object_id})  # fmt: skip

    committing = asyncio.create_task(pg.transact(holding))
    await reached.wait()
    assert await asyncio.wait_for(reap_uploads(pg, limit=10), 5) == 0
    go_on.set()
    await committing
    assert await reap_uploads(pg, limit=10) == 0
    assert (await find(pg, upload.key))["state"] == 2


async def test_expired_keys_are_forgotten(db: Database, driver: FolderDriver) -> None:
    await reserve_key(db, "ann", "k", b"1")
    await reserve_key(db, "bob", "k", b"1")
    await expire_keys(task(db, driver))
    assert len(await db.all(sa.select(idempotency_keys.c.key))) == 2
    db.clock_offset += 2 * DAY  # type: ignore[attr-defined]
    await expire_keys(task(db, driver))
    assert await db.all(sa.select(idempotency_keys.c.key)) == []


async def test_lineage_is_indexed_from_the_config_later(db: Database, driver: FolderDriver) -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    made = {}
    for name, diffs in (("app", (one, two)), ("base", (one,))):
        config = config_of(*diffs)
        await put_blob(db, name, config)
        row = await db.one(
            sa.select(objects.c.key).join(blobs, blobs.c.object_id == objects.c.id).where(
                blobs.c.digest == sa.bindparam("d")),
            {"d": Digest.of(config).packed},
        )  # fmt: skip
        assert row is not None
        await store(driver, config, row["key"])
        made[name] = image(config)
        await push(db, name, made[name], "v1", chain_later=True)
    waiting = await take_jobs(db, "me", kinds=["lineage.index"], limit=10, lease=MINUTE)
    assert len(waiting) == 2
    for job in waiting:
        await index_job(Task(db, driver, SETTINGS, job))
        await index_job(Task(db, driver, SETTINGS, job))
    assert [kin.repository for kin in await ancestors(db, "app", made["app"].digest)] == ["base"]


async def test_lineage_of_what_is_gone_or_lost(db: Database, driver: FolderDriver) -> None:
    await index_job(task(db, driver, manifest_id=12345))
    made = await put_image(db, "app", "v1")
    row = await db.one(
        sa.select(manifests.c.id).where(manifests.c.digest == sa.bindparam("d")), {"d": made.digest.packed}
    )
    assert row is not None
    with pytest.raises(BlobUnknown):
        await index_job(task(db, driver, manifest_id=row["id"]))
    assert await db.all(sa.select(image_chains.c.depth)) == []


async def _begin(db: Database, *, claim_for: int = 0) -> Upload:
    return await begin_upload(
        db, "app", SOMEBODY, algorithms=("sha256",), expiry=DAY, owner="writer", claim_for=claim_for
    )


async def _now(db: Database) -> int:
    async def work(session: Session) -> int:
        return await session.now()

    return await db.transact(work)
