"""Remembered rows are never older than the last commit: every way in which one could be, tried."""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from helpers.databases import NewDatabaseUrl, open_url
from tenure.storage.meta.database import Session
from tenure.storage.meta.remembering import RememberingDatabase
from tenure.storage.meta.sqlite import SqliteDatabase
from tenure.storage.meta.statements import any_of, database_time

NOTES = sa.Table("notes", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text))
READ = sa.select(NOTES.c.text).where(NOTES.c.id == sa.bindparam("note"))
TIMED = sa.select(NOTES.c.text, database_time().label("db_now")).where(NOTES.c.id == sa.bindparam("note"))
LISTED = sa.select(NOTES.c.text).where(any_of(NOTES.c.id, "notes")).order_by(NOTES.c.id)
WRITE = sa.update(NOTES).values(text=sa.bindparam("to")).where(NOTES.c.id == sa.bindparam("note"))


class Clock:
    now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
async def inner(new_database_url: NewDatabaseUrl) -> Any:
    db = await open_url(await new_database_url("sqlite"))
    assert isinstance(db, SqliteDatabase)

    async def fill(session: Session) -> None:
        await session.run(sa.text("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)"))
        for note in range(6):
            await session.run(sa.insert(NOTES), {"id": note, "text": "0"})

    await db.transact(fill)
    yield db
    await db.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def db(inner: SqliteDatabase, clock: Clock) -> RememberingDatabase:
    return RememberingDatabase(inner, clock)


def writing(note: int, text: str, then: Callable[[], None] = lambda: None) -> Callable[[Session], Awaitable[None]]:
    async def work(session: Session) -> None:
        await session.run(WRITE, {"note": note, "to": text})
        then()

    return work


async def read(db: RememberingDatabase, note: int = 1) -> str:
    row = await db.one(READ, {"note": note})
    assert row is not None
    return str(row["text"])


async def test_what_was_read_is_not_read_again(db: RememberingDatabase, inner: SqliteDatabase) -> None:
    await read(db)
    before = inner.round_trips
    assert [await read(db), await read(db)] == ["0", "0"]
    assert await db.one(READ, {"note": 77}) is None and await db.one(READ, {"note": 77}) is None
    assert inner.round_trips - before == 1
    assert await read(db, 2) == "0"


async def test_a_commit_is_seen_at_once(db: RememberingDatabase) -> None:
    for text in ("a", "b", "c"):
        await read(db)
        await db.transact(writing(1, text))
        assert await read(db) == text


async def test_a_transaction_that_rolls_back_changes_nothing(db: RememberingDatabase) -> None:
    def fail() -> None:
        raise KeyError("no")

    await read(db)
    with pytest.raises(KeyError):
        await db.transact(writing(1, "lost", then=fail))
    assert await read(db) == "0"


async def test_nothing_is_remembered_while_a_transaction_runs(db: RememberingDatabase, inner: SqliteDatabase) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert go_on.wait(10)

    running = asyncio.create_task(db.transact(writing(1, "new", then=wait)))
    await asyncio.to_thread(inside.wait, 10)
    before = inner.round_trips
    assert [await read(db), await read(db)] == ["0", "0"]
    assert inner.round_trips - before == 2
    go_on.set()
    await running
    assert await read(db) == "new"


async def test_a_caller_that_is_cancelled_does_not_hide_the_commit(
    db: RememberingDatabase, inner: SqliteDatabase
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert go_on.wait(10)

    running = asyncio.create_task(db.transact(writing(1, "new", then=wait)))
    await asyncio.to_thread(inside.wait, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    # The thread goes on and will commit. What is read meanwhile must not be kept.
    assert await read(db) == "0"
    go_on.set()
    while (await inner.one(READ, {"note": 1}))["text"] != "new":  # type: ignore[index]  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert await read(db) == "new"


async def test_a_read_that_was_under_way_when_a_transaction_ended_is_not_kept(
    db: RememberingDatabase, inner: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on, answer = threading.Event(), threading.Event(), asyncio.Event()
    one = inner.one

    async def slow(*question: Any) -> Any:
        row = await one(*question)
        await answer.wait()
        return row

    def wait() -> None:
        inside.set()
        assert go_on.wait(10)

    running = asyncio.create_task(db.transact(writing(1, "new", then=wait)))
    await asyncio.to_thread(inside.wait, 10)
    monkeypatch.setattr(inner, "one", slow)
    reading = asyncio.create_task(read(db))
    await asyncio.sleep(0)
    monkeypatch.setattr(inner, "one", one)
    go_on.set()
    await running
    answer.set()
    assert await reading == "0"
    assert await read(db) == "new"


async def test_the_clock_in_a_remembered_row_goes_on(db: RememberingDatabase, clock: Clock) -> None:
    first = await db.one(TIMED, {"note": 1})
    clock.now += 250_000
    second = await db.one(TIMED, {"note": 1})
    clock.now += 250_000
    third = await db.one(TIMED, {"note": 1})
    assert first is not None and second is not None and third is not None
    assert second["db_now"] - first["db_now"] == third["db_now"] - second["db_now"] == 250_000
    assert (second[0], second["text"], tuple(second)) == ("0", "0", ("0", second["db_now"]))


async def test_a_writer_from_outside_is_believed_within_a_second(
    db: RememberingDatabase, inner: SqliteDatabase, clock: Clock
) -> None:
    await read(db)
    await inner.transact(writing(1, "by hand"))
    clock.now += 1_000_000
    assert await read(db) == "by hand"


async def test_lists_and_many_rows_are_read_each_time(db: RememberingDatabase, inner: SqliteDatabase) -> None:
    for _ in range(2):
        before = inner.round_trips
        row = await db.one(LISTED, {"notes": [1, 2]})
        assert row is not None and len(await db.all(LISTED, {"notes": [1, 2]})) == 2
        assert inner.round_trips - before == 2


async def test_memory_is_bounded(db: RememberingDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.storage.meta.remembering._MAX_ROWS", 10)
    monkeypatch.setattr("tenure.storage.meta.remembering._MAX_BYTES", 1000)
    for note in range(100):
        await db.one(READ, {"note": note})
        assert len(db._rows) <= 10
    for note in range(5):
        await db.transact(writing(note, "x" * (300 if note == 4 else 240)))
    for note in (0, 1, 2, 3, 0, 1, 2, 3):
        await read(db, note)
        assert db._bytes <= 1000
    kept = db._bytes
    await read(db, 4)  # more than a quarter of the room: never kept
    assert db._bytes <= kept


async def test_no_reader_sees_less_than_was_committed_before_it_asked(inner: SqliteDatabase) -> None:
    """Counters that only grow, many writers, some cancelled, many readers: every answer is judged."""
    db = RememberingDatabase(inner)
    random_ = random.Random(20261123)
    committed = dict.fromkeys(range(6), 0)
    asked = 0

    async def write(note: int, upto: int) -> None:
        for value in range(1, upto):
            await db.transact(writing(note, str(value)))
            committed[note] = value
            await asyncio.sleep(0)

    async def cancelled() -> None:
        for _ in range(30):
            task = asyncio.create_task(db.transact(_grow))
            await asyncio.sleep(random_.random() / 1000)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def watch(writers: "list[asyncio.Task[None]]") -> None:
        nonlocal asked
        while not all(writer.done() for writer in writers):
            note = random_.randrange(6)
            least = committed[note]
            found = int(await read(db, note))
            assert found >= least
            committed[note] = max(committed[note], found)
            asked += 1
            await asyncio.sleep(0)

    writers = [asyncio.create_task(write(note, 40)) for note in range(5)]
    others = asyncio.create_task(cancelled())
    await asyncio.gather(*(watch(writers) for _ in range(4)))
    await asyncio.gather(*writers, others)
    assert asked > 200 and [await read(db, note) for note in range(5)] == ["39"] * 5


async def _grow(session: Session) -> None:
    """One more: what commits or does not, nobody can tell, and readers must never see it become less."""
    row = await session.one(READ, {"note": 5})
    assert row is not None
    await session.run(WRITE, {"note": 5, "to": str(int(row["text"]) + 1)})
