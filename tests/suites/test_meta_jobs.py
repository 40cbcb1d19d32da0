"""Jobs as rows, on both databases."""

import asyncio

from tenure.core.clock import DAY, MINUTE
from tenure.storage.meta.database import Database, Session
from tenure.storage.meta.jobs import enqueue, ensure_job, fail_job, finish_job, renew_job, take_jobs


async def ask(db: Database, key: str = "1", *, due_at: int = 0, ensure: bool = False) -> None:
    async def work(session: Session) -> None:
        await (ensure_job if ensure else enqueue)(session, "kind", key, payload={"key": key}, due_at=due_at)

    await db.transact(work)


async def take(db: Database, owner: str = "me", limit: int = 10) -> list:  # type: ignore[type-arg]
    return await take_jobs(db, owner, kinds=["kind"], limit=limit, lease=MINUTE)


async def test_a_job_is_taken_once_and_finished(db: Database) -> None:
    await ask(db)
    taken = await asyncio.gather(*(take(db, f"owner {n}") for n in range(4)))
    jobs = [job for batch in taken for job in batch]
    assert [job.payload for job in jobs] == [{"key": "1"}]
    assert await renew_job(db, jobs[0], lease=MINUTE, progress="half")
    await finish_job(db, jobs[0])
    db.clock_offset = DAY  # type: ignore[attr-defined]
    assert await take(db) == []


async def test_asking_twice_is_asking_once_but_never_lost(db: Database) -> None:
    await ask(db)
    await ask(db)
    (job,) = await take(db)
    await ask(db)
    await finish_job(db, job)
    assert len(await take(db)) == 1


async def test_a_job_whose_owner_died_is_taken_by_another(db: Database) -> None:
    await ask(db)
    (dead,) = await take(db, "dead")
    assert await take(db, "alive") == []
    db.clock_offset = 2 * MINUTE  # type: ignore[attr-defined]
    (job,) = await take(db, "alive")
    assert job.attempts == 2
    assert not await renew_job(db, dead, lease=MINUTE)
    await finish_job(db, dead)
    await finish_job(db, job)


async def test_a_failed_job_comes_back_later(db: Database) -> None:
    await ask(db)
    (job,) = await take(db)
    await fail_job(db, job, "no luck")
    assert await take(db) == []
    db.clock_offset = MINUTE  # type: ignore[attr-defined]
    assert len(await take(db)) == 1


async def test_a_recurring_job_keeps_its_row(db: Database) -> None:
    await ask(db, ensure=True)
    await ask(db, ensure=True)
    (job,) = await take(db)
    await finish_job(db, job, next_due=1)
    assert len(await take(db)) == 1
