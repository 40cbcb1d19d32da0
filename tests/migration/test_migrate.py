"""The schema that the migrations make is the schema of the tables, and migrating is safe at any time."""

import asyncio
import contextlib
import importlib.resources
import re
import sqlite3
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from helpers.databases import KINDS, NewDatabaseUrl, open_url
from helpers.introspection import dump_postgres, dump_sqlite
from tenure.core.errors import SchemaMismatch, StorageUnavailable
from tenure.storage.meta.migrate import VERSION_TABLE, check_current, migrate, pending
from tenure.storage.meta.records import gc_control
from tenure.storage.meta.tables import metadata

CONTROL = sa.select(gc_control)


async def dump(url: str) -> list[str]:
    if url.startswith("sqlite:///"):
        lines = dump_sqlite(url.removeprefix("sqlite:///"))
    else:
        lines = await dump_postgres(url)
    assert len(lines) > 100
    return [line for line in lines if VERSION_TABLE not in line]


async def create_from_tables(url: str) -> None:
    if url.startswith("sqlite:///"):
        engine = sa.create_engine(url, poolclass=NullPool)
        metadata.create_all(engine)
        return
    asynchronous = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=NullPool
    )
    async with asynchronous.begin() as connection:
        await connection.run_sync(metadata.create_all)


async def execute(url: str, statement: str) -> None:
    if url.startswith("sqlite:///"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as lite:
            lite.execute(statement)
        return
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_migrations_make_what_the_tables_say(kind: str, new_database_url: NewDatabaseUrl) -> None:
    migrated = await new_database_url(kind)
    created = await new_database_url(kind, migrated=False)
    await create_from_tables(created)
    assert await dump(migrated) == await dump(created)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_comparison_sees_a_difference(kind: str, new_database_url: NewDatabaseUrl) -> None:
    """The test above can fail: an index without its condition, a key without its action."""
    first, second = await new_database_url(kind), await new_database_url(kind)
    await execute(second, "DROP INDEX repos_name_live")
    await execute(second, "CREATE UNIQUE INDEX repos_name_live ON repos (name)")
    assert await dump(first) != await dump(second)


async def test_every_foreign_key_has_an_index_to_be_checked_by() -> None:
    """Deleting or changing what is referenced looks for referencing rows; without an index that is a scan."""
    bare = []
    for table in metadata.tables.values():
        indexed = [list(table.primary_key.columns), *(list(index.columns) for index in table.indexes)]
        indexed += [list(u.columns) for u in table.constraints if isinstance(u, sa.UniqueConstraint)]
        for key in table.foreign_key_constraints:
            whole = [columns for columns in indexed if columns[0] in list(key.columns)]
            if not whole:
                bare.append(f"{table.name}: {key.column_keys}")
    assert bare == []


async def test_every_constraint_has_a_name_and_none_is_cut_off() -> None:
    """Refusals are told apart by name; Postgres cuts names after 63 bytes."""
    for table in metadata.tables.values():
        for part in (*table.constraints, *table.indexes):
            formatted = postgresql.dialect().identifier_preparer.format_constraint(part)  # type: ignore[no-untyped-call]
            assert formatted and len(formatted) < 60, f"{table.name}: {part}"


@pytest.mark.parametrize("kind", KINDS)
async def test_migrating_twice_changes_nothing(kind: str, new_database_url: NewDatabaseUrl) -> None:
    url = await new_database_url(kind, migrated=False)
    applied = await migrate(url)
    assert applied[0] == "0001"
    before = await dump(url)
    db = await open_url(url)
    control = tuple((await db.all(CONTROL))[0])
    assert await migrate(url) == []
    assert await dump(url) == before
    assert [tuple(row) for row in await db.all(CONTROL)] == [control]
    await db.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_eight_replicas_migrate_at_once(kind: str, new_database_url: NewDatabaseUrl) -> None:
    url = await new_database_url(kind, migrated=False)
    applied = await asyncio.gather(*(migrate(url) for _ in range(8)))
    assert sorted(len(one) for one in applied)[:7] == [0] * 7
    assert sum(len(one) for one in applied) > 0
    db = await open_url(url)
    await check_current(db)
    (row,) = await db.all(CONTROL)
    assert row["id"] == 1 and row["paused"] == 0
    await db.close()


async def test_each_installation_has_a_name_of_its_own(new_database_url: NewDatabaseUrl) -> None:
    installations = set()
    for kind in KINDS:
        for _ in range(2):
            # Not a copy of the template, which is one installation.
            url = await new_database_url(kind, migrated=False)
            await migrate(url)
            db = await open_url(url)
            row = await db.one(CONTROL)
            assert row is not None and row["created_at"] > 0
            assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", row["installation"])
            installations.add(row["installation"])
            await db.close()
    assert len(installations) == 4


@pytest.mark.parametrize("kind", KINDS)
async def test_an_empty_database_is_refused_until_migrated(kind: str, new_database_url: NewDatabaseUrl) -> None:
    url = await new_database_url(kind, migrated=False)
    db = await open_url(url)
    missing = await pending(db)
    assert missing[0] == "0001"
    with pytest.raises(SchemaMismatch, match="tenure migrate"):
        await check_current(db)
    await migrate(url)
    assert await pending(db) == []
    await check_current(db)
    await db.close()


async def test_a_database_of_a_newer_program_is_left_alone(db_url: str) -> None:
    await execute(db_url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    before = await dump(db_url)
    db = await open_url(db_url)
    for refused in (pending(db), check_current(db), migrate(db_url)):
        with pytest.raises(SchemaMismatch, match=r"9999.*newer"):
            await refused
    await db.close()
    assert await dump(db_url) == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_migration_that_fails_leaves_nothing(kind: str, new_database_url: NewDatabaseUrl) -> None:
    url = await new_database_url(kind, migrated=False)
    await execute(url, "CREATE TABLE tags (mine INTEGER)")
    with pytest.raises((sa.exc.DBAPIError, StorageUnavailable), match="tags"):
        await migrate(url)
    db = await open_url(url)
    assert len(await pending(db)) > 0
    tables = "pg_tables WHERE schemaname = 'public'" if kind == "postgresql" else "sqlite_master WHERE type = 'table'"
    assert len(await db.all(sa.text(f"SELECT 1 FROM {tables}"))) == 1
    await db.close()
    await execute(url, "DROP TABLE tags")
    assert await migrate(url) != []


async def test_a_server_that_is_away_is_an_answer_in_time() -> None:
    with pytest.raises(StorageUnavailable):
        await migrate("postgresql://postgres@127.0.0.1:1/none", retry_for=200_000)


async def test_a_database_that_is_not_there_says_so(pg_dsn: str) -> None:
    with pytest.raises(StorageUnavailable, match="does not exist"):
        await migrate(pg_dsn.replace("/tenure_test_", "/no_such_"))


async def test_the_revisions_are_part_of_the_package() -> None:
    versions = importlib.resources.files("tenure.storage.meta.migrations.versions")
    assert "0001_base.py" in {entry.name for entry in versions.iterdir()}


async def test_a_file_that_is_no_database_is_said_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "tenure.db"
    path.write_bytes(b"something else entirely" * 300)
    with pytest.raises(StorageUnavailable, match="file is not a database") as refused:
        await migrate(f"sqlite:///{path}")
    assert "sqlalche" not in refused.value.message


async def test_a_postgres_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StorageUnavailable) as refusal:
        await migrate("postgresql://someone:hush@127.0.0.1:1/tenure?application_name=x", retry_for=1)
    said = str(refusal.value)
    assert said.startswith("cannot reach the database at 127.0.0.1:1/tenure: ") and "hush" not in said
