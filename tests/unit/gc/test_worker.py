"""The worker loop: each due job once, failures apart, leases kept, an end that is prompt and clean."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from helpers.databases import open_url
from tenure.core.clock import DAY, HOUR, SECOND
from tenure.gc.duties import DUTIES
from tenure.gc.settings import GcSettings
from tenure.gc.worker import Duty, Handler, Task, Worker
from tenure.storage.blobs.budget import MemoryBudget
from tenure.storage.blobs.folder import FolderDriver
from tenure.storage.meta.database import Database, Row, Session
from tenure.storage.meta.jobs import enqueue
from tenure.storage.meta.records import jobs
from tenure.storage.settings import Duration

QUICK = GcSettings(poll=Duration(SECOND // 50), lease=Duration(5 * SECOND))


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[FolderDriver]:
    opened = FolderDriver(tmp_path / "blobs", MemoryBudget(64 << 20))
    yield opened
    await opened.close()


@contextlib.asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    running = asyncio.create_task(worker.run())
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def duties(**handlers: Handler) -> Mapping[str, Duty]:
    return {kind: Duty(kind, handler) for kind, handler in handlers.items()}


async def ask(db: Database, kind: str, *keys: object, due_in: int = 0) -> None:
    async def work(session: Session) -> None:
        now = await session.now()
        for key in keys:
            await enqueue(session, kind, str(key), payload={"key": key}, due_at=now + due_in)

    await db.transact(work)


async def rows(db: Database) -> list[Row]:
    return list(await db.all(sa.select(jobs).order_by(jobs.c.key)))


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.01)


async def test_due_jobs_are_done_and_gone(db: Database, driver: FolderDriver) -> None:
    done = []

    async def note(task: Task) -> None:
        done.append(task.job.payload["key"])

    await ask(db, "note", 1, 2, 3, 4, 5, 6)
    await ask(db, "note", "later", due_in=HOUR)
    await ask(db, "unknown", 7)
    async with working(Worker(db, driver, QUICK, duties(note=note))):
        await until(lambda: len(done) == 6)

        async def settled() -> bool:
            return len(await rows(db)) == 2

        await until(settled)
    assert sorted(done) == [1, 2, 3, 4, 5, 6]
    assert [(row["kind"], row["key"]) for row in await rows(db)] == [("unknown", "7"), ("note", "later")]


async def test_several_replicas_never_run_one_job_twice(pg_dsn: str, driver: FolderDriver) -> None:
    ran: list[int] = []

    async def note(task: Task) -> None:
        ran.append(task.job.payload["key"])
        await asyncio.sleep(0.002)

    replicas = [await open_url(pg_dsn) for _ in range(2)]
    try:
        await ask(replicas[0], "note", *range(150))
        async with contextlib.AsyncExitStack() as stack:
            for db in replicas:
                await stack.enter_async_context(working(Worker(db, driver, QUICK, duties(note=note))))

            async def empty() -> bool:
                return not await rows(replicas[0])

            await until(empty, 30)
        assert sorted(ran) == list(range(150))
    finally:
        for db in replicas:
            await db.close()


async def test_a_failing_job_disturbs_no_other_and_comes_later(db: Database, driver: FolderDriver) -> None:
    done = []

    async def bad(task: Task) -> None:
        raise RuntimeError("no luck today")

    async def good(task: Task) -> None:
        done.append(task.job.key)

    await ask(db, "bad", 1)
    await ask(db, "good", 1, 2, 3)
    async with working(Worker(db, driver, QUICK, duties(bad=bad, good=good))):

        async def failed() -> bool:
            return len(done) == 3 and [row["last_error"] for row in await rows(db)] == ["RuntimeError: no luck today"]

        await until(failed)
    (row,) = await rows(db)
    assert (row["attempts"], row["owner"]) == (1, None)
    assert row["due_at"] > await _now(db)


async def test_back_off_grows_to_six_hours_and_no_further(db: Database, driver: FolderDriver) -> None:
    async def bad(task: Task) -> None:
        raise RuntimeError

    await ask(db, "bad", 1)

    async def many_attempts(session: Session) -> None:
        await session.run(sa.update(jobs).values(attempts=60))

    await db.transact(many_attempts)
    async with working(Worker(db, driver, QUICK, duties(bad=bad))):

        async def failed() -> bool:
            return (await rows(db))[0]["attempts"] == 61 and (await rows(db))[0]["owner"] is None

        await until(failed)
    assert 5 * HOUR < (await rows(db))[0]["due_at"] - await _now(db) <= 6 * HOUR


async def test_a_recurring_job_comes_again_when_it_said(db: Database, driver: FolderDriver) -> None:
    times: list[tuple[int, int]] = []  # when it ran and when it asked to run again, both by the database

    async def tick(task: Task) -> int:
        ran, due = await task.due_in(0), await task.due_in(SECOND // 20)
        times.append((ran, due))
        return due

    recurring = {"tick": Duty("tick", tick, recurring=True)}
    async with working(Worker(db, driver, QUICK, recurring)), working(Worker(db, driver, QUICK, recurring)):
        await until(lambda: len(times) >= 4)
    assert all(ran >= due for (_, due), (ran, _) in pairwise(times))
    assert [row["key"] for row in await rows(db)] == [""]


async def test_waking_takes_a_job_long_before_the_next_look(db: Database, driver: FolderDriver) -> None:
    done = asyncio.Event()

    async def note(task: Task) -> None:
        done.set()

    slow = msgspec.structs.replace(QUICK, poll=Duration(HOUR))
    worker = Worker(db, driver, slow, duties(note=note))
    async with working(worker):
        await asyncio.sleep(0.1)
        await ask(db, "note", 1)
        worker.wake()
        await asyncio.wait_for(done.wait(), 5)


async def test_a_long_job_keeps_its_lease(db: Database, driver: FolderDriver) -> None:
    starts = []

    async def long(task: Task) -> None:
        starts.append(task.job.key)
        await asyncio.sleep(1)

    short = msgspec.structs.replace(QUICK, lease=Duration(SECOND * 3 // 10))
    await ask(db, "long", 1)
    async with (
        working(Worker(db, driver, short, duties(long=long))),
        working(Worker(db, driver, short, duties(long=long))),
    ):

        async def done() -> bool:
            return not await rows(db)

        await until(done)
    assert starts == ["1"]


async def test_a_job_that_lost_its_lease_is_stopped_and_writes_nothing(db: Database, driver: FolderDriver) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def long(task: Task) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    async def take_over(session: Session) -> None:
        await session.run(sa.update(jobs).values(owner="another"))

    short = msgspec.structs.replace(QUICK, lease=Duration(SECOND * 3 // 10))
    await ask(db, "long", 1)
    async with working(Worker(db, driver, short, duties(long=long))):
        await asyncio.wait_for(started.wait(), 5)
        await db.transact(take_over)
        await asyncio.wait_for(stopped.wait(), 5)
        (row,) = await rows(db)
        assert row["owner"] == "another" and row["last_error"] is None


@pytest.mark.parametrize("turns", range(5))
async def test_a_worker_that_is_woken_as_it_is_cancelled_ends(db: Database, driver: FolderDriver, turns: int) -> None:
    worker = Worker(db, driver, msgspec.structs.replace(QUICK, poll=Duration(60 * SECOND)), duties())
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0.1)
    worker.wake()
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=5)
    running.cancel()
    assert done and running.cancelled()


async def test_a_cancelled_worker_ends_at_once_and_gives_its_jobs_back(db: Database, driver: FolderDriver) -> None:
    started, cleaned = asyncio.Event(), []

    async def long(task: Task) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(task.job.key)

    await ask(db, "long", 1)
    running = asyncio.create_task(Worker(db, driver, QUICK, duties(long=long)).run())
    await asyncio.wait_for(started.wait(), 5)
    before = time.monotonic()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert time.monotonic() - before < 3
    assert running.cancelled() and cleaned == ["1"]
    (row,) = await rows(db)
    assert (row["owner"], row["lease_until"], row["last_error"]) == (None, None, None)
    assert row["due_at"] <= await _now(db)


async def test_asking_again_while_it_runs_runs_it_again(db: Database, driver: FolderDriver) -> None:
    runs = []

    async def note(task: Task) -> None:
        runs.append(task.job.seq)
        if len(runs) == 1:
            await ask(db, "note", 1)

    await ask(db, "note", 1)
    async with working(Worker(db, driver, QUICK, duties(note=note))):

        async def done() -> bool:
            return not await rows(db)

        await until(done)
    assert len(runs) == 2


async def test_every_duty_is_registered_under_its_kind(db: Database, driver: FolderDriver) -> None:
    assert all(kind == duty.kind for kind, duty in DUTIES.items())
    assert {"lineage.index", "objects.delete", "uploads.expire", "idempotency.expire"} <= set(DUTIES)
    async with working(Worker(db, driver, QUICK, DUTIES)):

        async def ran() -> bool:
            now = await _now(db)
            return [row["kind"] for row in await rows(db) if row["due_at"] > now and row["owner"] is None] != []

        await until(ran)
        assert {row["kind"] for row in await rows(db)} == {kind for kind, duty in DUTIES.items() if duty.recurring}
    latest = await _now(db) + DAY
    assert all(row["due_at"] < latest for row in await rows(db))


async def _now(db: Database) -> int:
    async def work(session: Session) -> int:
        return await session.now()

    return await db.transact(work)
