"""Databases that go away, come back, hang or are busy, and transactions that do what they may not."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa

from helpers.databases import NewDatabaseUrl, open_url
from helpers.postgres import PostgresServer
from tenure.core.errors import DatabaseUrlInvalid, StorageUnavailable
from tenure.storage.meta.database import ConstraintRefused, Database, Session
from tenure.storage.meta.migrate import migrate
from tenure.storage.meta.statements import insert
from tenure.storage.meta.tables import repos
from tenure.storage.settings import Duration, duration

ADD = insert(repos)
NAMES = sa.select(repos.c.name).order_by(repos.c.name)
END_MYSELF = sa.text("SELECT pg_terminate_backend(pg_backend_pid())")
END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
SLEEP = sa.text("SELECT pg_sleep(1)")
AT_ONCE = Duration(300_000)


async def names(db: Database) -> list[str]:
    return [row["name"] for row in await db.all(NAMES)]


async def add(db: Database, name: str) -> None:
    await db.transact(lambda session: session.run(ADD, {"name": name}))


@pytest.fixture
async def lite(new_database_url: NewDatabaseUrl) -> AsyncIterator[Database]:
    db = await open_url(await new_database_url("sqlite"), retry_for=AT_ONCE)
    yield db
    await db.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that these tests may kill."""
    server = PostgresServer(durable=True)
    yield server
    server.stop()


# SQLite


async def test_a_transaction_may_await_only_its_statements(lite: Database) -> None:
    async def yields(session: Session) -> None:
        await session.run(ADD, {"name": "a"})
        await asyncio.sleep(0)

    async def waits(session: Session) -> None:
        await session.run(ADD, {"name": "a"})
        await asyncio.sleep(0.01)

    for work in (yields, waits):
        with pytest.raises(RuntimeError, match="may await only its own statements"):
            await lite.transact(work)

    async def reads_outside(session: Session) -> None:
        await session.run(ADD, {"name": "a"})
        await names(lite)

    with pytest.raises(sqlite3.ProgrammingError, match="thread"):
        await lite.transact(reads_outside)
    assert await names(lite) == []
    await add(lite, "b")


async def test_sqlite_keeps_its_settings(lite: Database) -> None:
    pragmas = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    for name, wanted in pragmas.items():
        ask = sa.text(f"PRAGMA {name}")
        outside = await lite.one(ask)
        inside = await lite.transact(lambda session, ask=ask: session.one(ask))  # type: ignore[misc]
        assert outside is not None and inside is not None
        assert (outside[0], inside[0]) == (wanted, wanted)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await lite.one(insert(repos).returning(repos.c.id), {"name": "written by a read"})


async def test_sqlite_waits_for_a_writer_of_another_process_but_not_for_ever(lite: Database) -> None:
    path: Path = lite.path  # type: ignore[attr-defined]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await names(lite) == []
        with pytest.raises(StorageUnavailable):
            await add(lite, "a")
        asyncio.get_running_loop().call_later(0.1, other.execute, "COMMIT")
        await add(lite, "b")
    assert await names(lite) == ["b"]


async def test_reading_leaves_no_snapshot_behind(lite: Database) -> None:
    """A snapshot left open would keep the journal growing: a checkpoint must get all of it."""
    await add(lite, "a")
    await lite.one(NAMES)
    await lite.all(NAMES)
    path: Path = lite.path  # type: ignore[attr-defined]
    with contextlib.closing(sqlite3.connect(path)) as other:
        busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0


# Postgres


async def test_connections_cut_while_idle_are_not_noticed(pg: Database, pg_dsn: str) -> None:
    await asyncio.gather(*(names(pg) for _ in range(5)))
    admin = await asyncpg.connect(pg_dsn)
    await admin.execute(END_OTHERS)
    assert await names(pg) == []
    await admin.execute(END_OTHERS)
    await add(pg, "a")
    await admin.close()
    assert await names(pg) == ["a"]


async def test_work_is_done_again_when_its_connection_is_cut(pg: Database) -> None:
    attempts: list[int] = []

    async def work(session: Session) -> None:
        attempts.append(session.attempt)
        await session.run(ADD, {"name": "a"})
        if len(attempts) < 3:
            await session.run(END_MYSELF)

    await pg.transact(work)
    assert attempts == [0, 0, 0]
    assert await names(pg) == ["a"]


async def test_a_cut_inside_a_savepoint_is_no_refusal(pg: Database) -> None:
    tries = 0

    async def inner(session: Session) -> None:
        await session.run(ADD, {"name": "a"})
        if tries < 2:
            await session.run(END_MYSELF)

    async def work(session: Session) -> None:
        nonlocal tries
        tries += 1
        await session.savepoint(inner)

    await pg.transact(work)
    assert (tries, await names(pg)) == (2, ["a"])


async def test_a_lost_commit_is_told_to_the_next_try(own_server: PostgresServer) -> None:
    """The COMMIT happens and its answer is lost: the second try is told that it may be the second."""
    await migrate(own_server.url())
    relay = _Relay(own_server.socket_path)
    async with relay as port:
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"
        db = await open_url(url)
        attempts: list[int] = []

        async def work(session: Session) -> None:
            attempts.append(session.attempt)
            if "lost" not in [row["name"] for row in await session.all(NAMES)]:
                relay.lose_next_commit = True
                await session.run(ADD, {"name": "lost"})

        await db.transact(work)
        assert attempts == [0, 1]
        assert (await names(db)).count("lost") == 1
        await db.close()


async def test_a_server_killed_and_started_again_costs_time_only(own_server: PostgresServer) -> None:
    await migrate(own_server.url())
    db = await open_url(own_server.url(), pool_size=4)
    before = len(await names(db))
    done = 0

    async def write(number: int) -> None:
        nonlocal done

        async def work(session: Session) -> None:
            # A commit whose answer was lost has written the name already.
            if session.attempt == 0 or f"k{number}" not in [row["name"] for row in await session.all(NAMES)]:
                await session.run(ADD, {"name": f"k{number}"})

        await db.transact(work)
        done += 1

    async def steady() -> None:
        for number in range(60):
            await write(number)
            await asyncio.sleep(0.01)

    writers = asyncio.ensure_future(steady())
    readers = [asyncio.ensure_future(_read_on(db)) for _ in range(3)]
    await asyncio.sleep(0.1)
    own_server.kill()
    await asyncio.sleep(0.2)
    await asyncio.to_thread(own_server.start)
    await writers
    for reader in readers:
        await reader
    assert done == 60
    assert len(await names(db)) == before + 60
    await db.close()


async def _read_on(db: Database) -> None:
    for _ in range(60):
        await names(db)
        await asyncio.sleep(0.01)


async def test_a_server_that_stays_away_is_an_answer_in_time(own_server: PostgresServer) -> None:
    db = await open_url(own_server.url(), retry_for=AT_ONCE)
    own_server.shut_down()
    try:
        with pytest.raises(StorageUnavailable):
            await db.ping()
        with pytest.raises(StorageUnavailable):
            await db.transact(lambda session: session.now())
        with pytest.raises(StorageUnavailable, match="cannot reach the database"):
            await open_url(own_server.url(), retry_for=AT_ONCE)
    finally:
        await asyncio.to_thread(own_server.start)
    await db.ping()
    await db.close()


async def test_deadlocks_are_done_again(pg: Database) -> None:
    await add(pg, "a")
    await add(pg, "b")
    touch = sa.update(repos).values(created_at=repos.c.created_at + 1).where(repos.c.name == sa.bindparam("named"))
    both_hold_one = asyncio.Barrier(2)
    runs = 0

    async def cross(first: str, second: str) -> None:
        met = False

        async def work(session: Session) -> None:
            nonlocal runs, met
            runs += 1
            await session.run(touch, {"named": first})
            if not met:
                met = True
                await both_hold_one.wait()
            await session.run(touch, {"named": second})

        await pg.transact(work)

    await asyncio.gather(cross("a", "b"), cross("b", "a"))
    assert runs >= 3
    counts = await pg.all(sa.select(repos.c.created_at))
    assert [row["created_at"] for row in counts] == [2, 2]


async def test_a_changed_table_does_not_break_prepared_statements(pg: Database, pg_dsn: str) -> None:
    everything = sa.text("SELECT * FROM repos")
    await add(pg, "a")

    async def look(session: Session) -> int:
        row = await session.one(everything)
        assert row is not None
        return len(row)  # type: ignore[arg-type]

    columns = await pg.transact(look)
    admin = await asyncpg.connect(pg_dsn)
    await admin.execute("ALTER TABLE repos ADD COLUMN more INTEGER")
    await admin.close()
    assert await pg.transact(look) == columns + 1
    (row,) = await pg.all(everything)
    assert len(row) == columns + 1


async def test_slow_statements_end(pg_dsn: str) -> None:
    db = await open_url(pg_dsn, statement_timeout=AT_ONCE)
    with pytest.raises(StorageUnavailable, match="too long"):
        await db.one(SLEEP)
    with pytest.raises(StorageUnavailable, match="too long"):
        await db.transact(lambda session: session.one(SLEEP))
    await add(db, "a")
    await db.close()


async def test_more_requests_than_connections_wait_their_turn_or_fail(pg_dsn: str) -> None:
    db = await open_url(pg_dsn, pool_size=1, retry_for=AT_ONCE)
    nap = sa.text("SELECT pg_sleep(0.05)")
    await asyncio.gather(*(db.one(nap) for _ in range(3)))
    with pytest.raises(StorageUnavailable, match="busy"):
        await asyncio.gather(db.one(SLEEP), db.ping())
    # Closing waits for what is running.
    await db.close()


async def test_a_full_server_is_waited_for(pg_dsn: str) -> None:
    admin = await asyncpg.connect(pg_dsn)
    await admin.execute("CREATE ROLE tenure_narrow LOGIN CONNECTION LIMIT 1")
    narrow_url = pg_dsn.replace("postgres@", "tenure_narrow@")
    taken = await asyncpg.connect(narrow_url)
    try:
        with pytest.raises(StorageUnavailable, match="too many connections"):
            await open_url(narrow_url, retry_for=AT_ONCE)
        opening = asyncio.ensure_future(open_url(narrow_url, retry_for=duration("20s")))
        await asyncio.sleep(0.1)
        await taken.close()
        db = await opening
        await db.close()
    finally:
        await admin.execute("DROP ROLE tenure_narrow")
        await admin.close()


async def test_a_refusal_at_commit_is_a_refusal(pg: Database) -> None:
    rule = sa.text("ALTER TABLE repos ADD CONSTRAINT late_rule UNIQUE (created_at) DEFERRABLE INITIALLY DEFERRED")
    await pg.transact(lambda session: session.run(rule))
    await add(pg, "a")
    with pytest.raises(ConstraintRefused) as refusal:
        await add(pg, "b")
    assert (refusal.value.kind, refusal.value.constraint) == ("unique", "late_rule")
    assert await names(pg) == ["a"]


# Opening


@pytest.mark.parametrize("url", ["mysql://host/db", "sqlite:///", "sqlite:///:memory:", "tenure.db", "postgresql:"])
async def test_other_urls_are_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(DatabaseUrlInvalid, match="sqlite:///"):
        await open_url(url)


async def test_what_cannot_be_opened_says_why(tmp_path: Path, pg_dsn: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StorageUnavailable, match="cannot open the database"):
        await open_url(f"sqlite:///{folder}")
    with pytest.raises(StorageUnavailable, match="does not exist"):
        await open_url(pg_dsn.replace("/tenure_test_", "/no_such_"))


class _Relay:
    """A TCP door to a server's socket that can cut the connection just after a COMMIT was carried out."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.lose_next_commit = False
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_exc: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(str(self._target))
        losing = False

        async def up() -> None:
            nonlocal losing
            while data := await reader.read(65536):
                if self.lose_next_commit and b"COMMIT" in data:
                    losing, self.lose_next_commit = True, False
                up_writer.write(data)

        async def down() -> None:
            while (data := await up_reader.read(65536)) and not losing:
                writer.write(data)

        directions = {asyncio.ensure_future(up()), asyncio.ensure_future(down())}
        with contextlib.suppress(ConnectionError):
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
        up_writer.close()
        writer.close()
