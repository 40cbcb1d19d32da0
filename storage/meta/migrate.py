"""Bring a database to the schema of this program, and refuse one that is not there.

Alembic without a project around it: the revisions lie in `migrations/versions` of the package, one chain for
both databases, applied in one transaction under a lock, so that any number of replicas may start at once.
"""

import asyncio
import contextlib
import sqlite3
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tenure.core.errors import SchemaMismatch, StorageUnavailable
from tenure.storage.meta.backoff import Backoff
from tenure.storage.meta.database import Database
from tenure.storage.meta.engine import open_database, sqlite_path
from tenure.storage.meta.sqlite import connect
from tenure.storage.meta.statements import Statement
from tenure.storage.settings import DatabaseSettings

VERSION_TABLE = "schema_version"

#: any number that no other program uses for an advisory lock in this database
_LOCK = 0x7E_4E_52_45
_SQLITE_WAIT = 60.0
_CONNECT_WITHIN = 10.0
_version = sa.table(VERSION_TABLE, sa.column("version_num"))
_VERSION: Statement = sa.select(_version.c.version_num)
_TABLE_ON_POSTGRES: Statement = sa.select(sa.func.to_regclass(sa.literal(VERSION_TABLE)).is_not(None).label("there"))
_master = sa.table("sqlite_master", sa.column("name"))
_TABLE_ON_SQLITE: Statement = sa.select(_master.c.name.label("there")).where(_master.c.name == VERSION_TABLE)


async def migrate(url: str, *, retry_for: int = 20_000_000) -> list[str]:
    """Apply what is missing to the database that `url` names; the revisions applied, oldest first.

    All or nothing. Several at once wait for one another, microseconds in `retry_for` for a server that is not
    up yet. DatabaseUrlInvalid; SchemaMismatch for a database made by a newer program; StorageUnavailable.
    """
    path = sqlite_path(url)
    if path is not None:
        return await asyncio.to_thread(_migrate_sqlite, path)
    return await _migrate_postgres(await _connect(url, retry_for))


async def planned(settings: DatabaseSettings) -> list[str]:
    """The revisions that `migrate` would apply. Changes nothing: a SQLite file that is not there is not made.

    Raises as `migrate` does.
    """
    path = sqlite_path(settings.url)
    if path is not None:
        return _missing(await asyncio.to_thread(_version_in, path))
    database = await open_database(settings, Path())
    try:
        return await pending(database)
    finally:
        await database.close()


async def pending(db: Database) -> list[str]:
    """The revisions that `migrate` would apply; SchemaMismatch when the database is newer than the program."""
    there = await db.one(_TABLE_ON_POSTGRES if db.dialect == "postgresql" else _TABLE_ON_SQLITE)
    row = await db.one(_VERSION) if there is not None and there["there"] else None
    return _missing(None if row is None else str(row["version_num"]))


async def check_current(db: Database) -> None:
    """SchemaMismatch, with what to do, unless the database has exactly the schema of this program."""
    missing = await pending(db)
    if missing:
        raise SchemaMismatch(
            f"the database lacks the schema changes {', '.join(missing)}; run `tenure migrate`, then start again"
        )


@cache
def _revisions() -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent / "migrations"))


def _missing(current: str | None) -> list[str]:
    chain = [script.revision for script in reversed(list(_revisions().walk_revisions()))]
    if current is None:
        return chain
    if current not in chain:
        raise SchemaMismatch(
            f"the database has the schema {current}, this program only knows {chain[-1]}: it was migrated by a newer "
            "version; start that one, or restore the backup from before the upgrade"
        )
    return chain[chain.index(current) + 1 :]


def _upgrade(connection: sa.Connection) -> list[str]:
    """Inside a transaction and under the lock."""
    script = _revisions()
    looked = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    missing = _missing(looked.get_current_revision())
    if missing:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "fn": lambda current, _context: script._upgrade_revs("head", current),
                "render_as_batch": True,
            },
        )
        with Operations.context(context):
            context.run_migrations()
    return missing


def _version_in(path: Path) -> str | None:
    """The schema of a SQLite file; None where there is no file, or nothing in it."""
    try:
        if not path.exists():
            return None
        # Where no log lies beside it nobody has the file open: then it can be read without making one.
        mode = "ro" if Path(f"{path}-wal").exists() else "ro&immutable=1"
        uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_SQLITE_WAIT)) as connection:
            there = connection.execute("SELECT name FROM sqlite_master WHERE name = ?", (VERSION_TABLE,)).fetchone()
            row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() if there else None
    except (OSError, sqlite3.Error) as error:
        raise StorageUnavailable(f"cannot read the database {path}: {error}") from error
    return None if row is None else str(row[0])


def _migrate_sqlite(path: Path) -> list[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine("sqlite://", creator=lambda: connect(path, wait=_SQLITE_WAIT), poolclass=NullPool)
        with engine.connect() as connection:
            # Rebuilding a table must not cascade; what it broke is found below, before the commit.
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            applied = _upgrade(connection)
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
            if broken:
                raise SchemaMismatch(f"the migration would break {len(broken)} references, first {tuple(broken[0])}")
            connection.exec_driver_sql("COMMIT")
    except (OSError, sqlite3.Error, sa.exc.DatabaseError) as error:
        cause = getattr(error, "orig", None) or error
        raise StorageUnavailable(f"cannot migrate the database {path}: {cause}") from error
    return applied


async def _connect(url: str, retry_for: int) -> Any:
    backoff = Backoff(retry_for)
    while True:
        try:
            return await asyncpg.connect(url, timeout=_CONNECT_WITHIN)
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError) as error:
            last = error
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StorageUnavailable(f"cannot use the database: {error}") from error
        try:
            await backoff.wait(last)
        except StorageUnavailable:
            raise StorageUnavailable(f"cannot reach the database at {_where(url)}: {last}") from last


def _where(url: str) -> str:
    """Host, port and name, without what opens the door."""
    return url.partition("://")[2].rpartition("@")[2].partition("?")[0]


async def _migrate_postgres(driver: Any) -> list[str]:
    async def use() -> Any:
        return driver

    engine = create_async_engine("postgresql+asyncpg://", async_creator=use, poolclass=NullPool)
    async with engine.connect() as connection:
        # On the session and before the transaction: what the others did while we waited must be seen.
        await driver.execute("SELECT pg_advisory_lock($1)", _LOCK)
        async with connection.begin():
            return await connection.run_sync(_upgrade)
