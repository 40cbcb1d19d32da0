"""What both executors promise, on both databases."""

import asyncio
import random
import sqlite3
import time

import pytest
import sqlalchemy as sa
from sqlalchemy import bindparam

from helpers.databases import open_url
from tenure.core.errors import NameInvalid
from tenure.storage.meta.database import ConstraintRefused, Database, Session
from tenure.storage.meta.records import chain_nodes, jobs
from tenure.storage.meta.statements import any_of, database_time, insert
from tenure.storage.meta.tables import manifests, objects, repos, tags

HOUR = 3600 * 1_000_000
ADD = insert(repos).returning(repos.c.id)
ADD_IF_NEW = insert(repos).on_conflict_do_nothing()
RENAME = sa.update(repos).values(name=bindparam("new")).where(repos.c.name == bindparam("old"))
NAMES = sa.select(repos.c.name).order_by(repos.c.name)
FIND = sa.select(repos.c.id, repos.c.name, database_time().label("db_now")).where(repos.c.name == bindparam("named"))
SOME = sa.select(repos.c.name).where(any_of(repos.c.name, "names"), repos.c.live == bindparam("alive"))
SOME_IDS = sa.select(repos.c.id).where(any_of(repos.c.id, "ids"), any_of(repos.c.name, "names")).order_by(repos.c.id)
ADD_NODE = insert(chain_nodes)
NODE = sa.select(chain_nodes.c.chain_id).where(any_of(chain_nodes.c.chain_id, "ids"))
ADD_JOB = insert(jobs).returning(jobs.c.id)
JOB = sa.select(jobs).where(jobs.c.id == bindparam("job"))


async def names(db: Database) -> list[str]:
    return [row["name"] for row in await db.all(NAMES)]


async def add(db: Database, *new: str) -> None:
    await db.transact(lambda session: session.run_many(ADD_IF_NEW, [{"name": name} for name in new]))


async def test_a_row_is_read_by_name_and_by_position(db: Database) -> None:
    await add(db, "a", "b")
    row = await db.one(FIND, {"named": "b"})
    assert row is not None
    assert (row["name"], row[1]) == ("b", "b")
    assert await db.one(FIND, {"named": "c"}) is None
    assert await db.all(FIND, {"named": "c"}) == []
    assert await names(db) == ["a", "b"]


async def test_a_missing_parameter_is_an_error_of_the_program(db: Database) -> None:
    with pytest.raises((KeyError, sqlite3.ProgrammingError)):
        await db.one(FIND, {})


async def test_a_transaction_gives_its_value_and_is_seen_at_once(db: Database) -> None:
    async def work(session: Session) -> int:
        row = await session.one(ADD, {"name": "a"})
        assert row is not None
        assert [seen["name"] for seen in await session.all(NAMES)] == ["a"]
        return int(row["id"])

    number = await db.transact(work)
    found = await db.one(FIND, {"named": "a"})
    assert found is not None and found["id"] == number


async def test_whatever_work_raises_nothing_of_it_stays(db: Database) -> None:
    async def work(session: Session) -> None:
        await session.one(ADD, {"name": "a"})
        raise NameInvalid()

    with pytest.raises(NameInvalid):
        await db.transact(work)
    assert await names(db) == []
    await add(db, "b")
    assert await names(db) == ["b"]


async def test_run_tells_how_many_rows_it_changed(db: Database) -> None:
    await add(db, "a", "b")

    async def work(session: Session) -> list[int]:
        return [
            await session.run(RENAME, {"old": "a", "new": "c"}),
            await session.run(RENAME, {"old": "a", "new": "d"}),
            await session.run(sa.update(repos).values(created_at=7)),
            await session.run(ADD_IF_NEW, {"name": "b"}),
        ]

    assert await db.transact(work) == [1, 0, 2, 0]
    await db.transact(lambda session: session.run_many(ADD_IF_NEW, []))


async def test_a_savepoint_takes_back_only_itself(db: Database) -> None:
    async def refused(session: Session) -> None:
        await session.one(ADD, {"name": "inner"})
        await session.one(ADD, {"name": "outer"})

    async def outer(session: Session) -> str:
        await session.one(ADD, {"name": "outer"})
        with pytest.raises(ConstraintRefused):
            await session.savepoint(refused)

        async def nested(within: Session) -> None:
            await within.one(ADD, {"name": "kept"})
            with pytest.raises(ConstraintRefused):
                await within.savepoint(refused)

        await session.savepoint(nested)
        await session.one(ADD, {"name": "after"})
        return "done"

    assert await db.transact(outer) == "done"
    assert await names(db) == ["after", "kept", "outer"]


async def test_a_swallowed_refusal_is_never_committed(db: Database) -> None:
    async def work(session: Session) -> None:
        await session.one(ADD, {"name": "a"})
        with pytest.raises(ConstraintRefused):
            await session.one(ADD, {"name": "a"})

    async def go_on(session: Session) -> None:
        await work(session)
        await session.one(ADD, {"name": "b"})

    for swallow in (work, go_on):
        with pytest.raises(RuntimeError, match="savepoint"):
            await db.transact(swallow)
    assert await names(db) == []


async def test_refusals_say_their_kind(db: Database) -> None:
    await add(db, "a")
    cases = [
        ("unique", ADD, {"name": "a"}, "repos_name_live"),
        ("check", ADD, {"name": "b", "live": 7}, "repos_live_ck"),
        ("not_null", ADD, {"name": None}, None),
        (
            "foreign_key",
            insert(tags),
            {"repo_id": 1, "name": "t", "manifest_id": 9},
            "tags_manifest_id_repo_id_m_live_fk",
        ),
    ]
    for kind, statement, params, constraint in cases:
        with pytest.raises(ConstraintRefused) as refusal:
            await db.transact(lambda session, s=statement, p=params: session.run(s, p))  # type: ignore[misc]
        assert refusal.value.kind == kind
        if db.dialect == "postgresql" or kind == "check":
            assert refusal.value.constraint == constraint


async def test_a_list_may_be_empty_short_or_long(db: Database) -> None:
    everything = [f"n{number:04}" for number in range(1000)]
    await add(db, *everything)
    for count in (0, 1, 2, 3, 1000):
        wanted = everything[:count]
        found = await db.all(SOME, {"names": wanted, "alive": 1})
        assert sorted(row["name"] for row in found) == wanted
    assert await db.all(SOME, {"names": everything, "alive": 0}) == []
    ids = [row["id"] for row in await db.all(sa.select(repos.c.id).order_by(repos.c.id))]
    both = await db.all(SOME_IDS, {"ids": ids[:5], "names": everything[3:9]})
    assert [row["id"] for row in both] == ids[3:5]


async def test_values_come_back_as_they_went(db: Database) -> None:
    every_byte, nothing, zeros = bytes(range(256)), b"", b"\x00" * 33
    await db.transact(lambda s: s.run_many(ADD_NODE, [{"chain_id": value} for value in (every_byte, nothing, zeros)]))
    for value in (every_byte, nothing, zeros):
        row = await db.one(NODE, {"ids": [value]})
        assert row is not None and row["chain_id"] == value and type(row["chain_id"]) is bytes
    text = "ключ\n'\";--\U0001f980"
    job = {"kind": "k", "key": text, "payload": "", "due_at": (1 << 63) - 1, "created_at": -1}
    made = await db.transact(lambda session: session.one(ADD_JOB, job))
    assert made is not None
    found = await db.one(JOB, {"job": made["id"]})
    assert found is not None
    assert {name: found[name] for name in job} == job
    assert found["owner"] is None


async def test_names_sort_by_byte(db: Database) -> None:
    await add(db, "b", "a", "a-b", "a/b", "a_b", "A", "ab", "a.b")
    assert await names(db) == sorted(await names(db))


async def test_the_clock_stands_still_in_a_transaction_and_tests_can_move_it(db: Database) -> None:
    async def twice(session: Session) -> tuple[int, int]:
        first = await session.now()
        await session.all(sa.select(sa.func.count()).select_from(repos))
        return first, await session.now()

    await add(db, "a")
    first, second = await db.transact(twice)
    assert first == second
    assert abs(first - time.time() * 1_000_000) < HOUR
    db.clock_offset = 48 * HOUR  # type: ignore[attr-defined]
    moved, _ = await db.transact(twice)
    assert 48 * HOUR <= moved - first < 49 * HOUR
    for reader in (db.one, lambda s, p: db.transact(lambda session: session.one(s, p))):
        row = await reader(FIND, {"named": "a"})
        assert row["name"] == row[1] == "a"
        assert 48 * HOUR <= row["db_now"] - first < 49 * HOUR
    (row,) = await db.all(FIND, {"named": "a"})
    assert 48 * HOUR <= row["db_now"] - first < 49 * HOUR


async def test_constants_are_part_of_the_text(db: Database) -> None:
    """Else a prepared plan could not use the indexes that hold only live rows."""
    statement = sa.select(repos.c.id).where(repos.c.live == 1, repos.c.id > -5, repos.c.name == "a").limit(3)
    compiled = db.compile(statement, {})  # type: ignore[attr-defined]
    assert "live = 1" in compiled.text and "> (-5)" in compiled.text and "LIMIT 3" in compiled.text
    assert len(compiled.names) == 1
    await add(db, "a")
    assert len(await db.all(statement)) == 1


async def test_round_trips_are_counted(db: Database) -> None:
    async def work(session: Session) -> None:
        await session.one(ADD, {"name": "a"})
        await session.all(NAMES)

    before = db.round_trips  # type: ignore[attr-defined]
    await db.one(FIND, {"named": "a"})
    await db.all(NAMES)
    assert db.round_trips - before == 2  # type: ignore[attr-defined]
    await db.transact(work)
    assert db.round_trips - before == 2 + 4  # type: ignore[attr-defined]


async def test_reads_see_commits_of_others_and_nothing_before(db: Database, db_url: str) -> None:
    other = await open_url(db_url)
    seen: list[list[str]] = []
    try:
        await add(other, "a")
        assert await names(db) == ["a"]
        if db.dialect == "postgresql":

            async def look_meanwhile(session: Session) -> None:
                await session.one(ADD, {"name": "b"})
                seen.append(await names(db))

            await other.transact(look_meanwhile)
            assert seen == [["a"]]
        await add(other, "c")
        assert "c" in await names(db)
    finally:
        await other.close()


async def test_concurrent_transactions_lose_no_update(db: Database) -> None:
    await add(db, "counter")
    lock = sa.select(repos.c.created_at).where(repos.c.name == "counter").with_for_update()
    store = sa.update(repos).values(created_at=bindparam("value")).where(repos.c.name == "counter")

    async def count(session: Session) -> None:
        row = await session.one(lock)
        assert row is not None
        await session.run(store, {"value": row["created_at"] + 1})

    await asyncio.gather(*(db.transact(count) for _ in range(40)))
    row = await db.one(lock if db.dialect == "sqlite" else sa.select(repos.c.created_at))
    assert row is not None and row["created_at"] == 40


async def test_cancelled_tasks_leave_nothing_open(db_url: str) -> None:
    db = await open_url(db_url, pool_size=5)
    dice = random.Random(7)

    async def write(number: int) -> None:
        async def work(session: Session) -> None:
            await session.one(ADD, {"name": f"n{number}"})
            await session.all(NAMES)
            await session.run(RENAME, {"old": f"n{number}", "new": f"m{number}"})

        await db.transact(work)

    async def read() -> None:
        await db.all(NAMES)

    tasks = []
    for number in range(400):
        tasks.append(asyncio.ensure_future(write(number) if number % 4 else read()))
        if number % 5 == 0:
            await asyncio.sleep(dice.uniform(0, 0.003))
            for victim in dice.sample(tasks, min(len(tasks), 8)):
                victim.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    failed = [t.exception() for t in tasks if not t.cancelled() and t.exception() is not None]
    assert failed == []
    # No half of a transaction was kept, every connection is back, none of them is inside a transaction.
    assert not [name for name in await names(db) if name.startswith("n")]
    await asyncio.gather(*(asyncio.wait_for(write(1000 + number), 10) for number in range(10)))
    if db.dialect == "postgresql":
        states = await db.all(
            sa.text("SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
        )
        assert len(states) <= 4
        assert {row["state"] for row in states} <= {"idle"}
    await db.close()


async def test_numbers_are_never_given_twice(db: Database) -> None:
    """An id of a row that is gone must not name another (on SQLite only AUTOINCREMENT promises that)."""
    add_object = insert(objects).returning(objects.c.id)
    drop = sa.delete(objects).where(objects.c.id == bindparam("gone"))
    seen = set()
    for number in range(3):

        async def work(session: Session, key: str = f"k{number}") -> int:
            row = await session.one(add_object, {"key": key, "state": 1})
            assert row is not None
            await session.run(drop, {"gone": row["id"]})
            return int(row["id"])

        seen.add(await db.transact(work))
    assert len(seen) == 3


async def test_a_closed_database_says_so(db_url: str) -> None:
    db = await open_url(db_url)
    await db.close()
    with pytest.raises(RuntimeError, match="closed"):
        await db.one(sa.select(manifests.c.id))
    with pytest.raises(RuntimeError):
        await db.transact(lambda session: session.now())
    await db.close()
