"""Proving by doing that a database lets us do what the program needs, for `tenure check`."""

from dataclasses import dataclass

import asyncpg
import sqlalchemy as sa

from tenure.core.errors import StorageUnavailable
from tenure.storage.meta.database import Database, Session
from tenure.storage.meta.statements import Statement

#: the oldest Postgres that the constraints and the tests are made for
OLDEST_POSTGRES = 150000

_WHO: Statement = sa.text(
    "SELECT current_user AS name, current_database() AS base, current_schema() AS space,"
    " current_setting('server_version_num')::int AS version, current_setting('server_version') AS spoken,"
    " pg_is_in_recovery() AS standby"
)
_SQLITE_VERSION: Statement = sa.text("SELECT sqlite_version() AS spoken")
_CREATE: Statement = sa.text("CREATE TABLE tenure_rights_probe (n integer)")
_WRITE: Statement = sa.text("INSERT INTO tenure_rights_probe VALUES (1)")
_DROP: Statement = sa.text("DROP TABLE tenure_rights_probe")


@dataclass(frozen=True, slots=True)
class Rights:
    """What was found: the database's own name and version, in words."""

    product: str


async def prove_rights(db: Database) -> Rights:
    """Makes, fills and drops a table in one transaction; StorageUnavailable says what is missing and how to get it."""
    if db.dialect != "postgresql":
        await db.transact(_make_and_drop)
        row = await db.one(_SQLITE_VERSION)
        return Rights(f"SQLite {row['spoken'] if row else '?'}")
    who = await db.one(_WHO)
    assert who is not None
    if who["version"] < OLDEST_POSTGRES:
        raise StorageUnavailable(f"Postgres {who['spoken']} is too old; 15 is the oldest that works")
    if who["standby"]:
        raise StorageUnavailable("this Postgres is a standby; database.url must name the primary")
    if who["space"] is None:
        raise StorageUnavailable(f'no schema to work in; run: CREATE SCHEMA AUTHORIZATION "{who["name"]}"')
    try:
        await db.transact(_make_and_drop)
    except asyncpg.InsufficientPrivilegeError as error:
        raise StorageUnavailable(
            f"{error}; run as the owner of the database {who['base']!r}: "
            f'GRANT CREATE, USAGE ON SCHEMA "{who["space"]}" TO "{who["name"]}"'
        ) from error
    except asyncpg.ReadOnlySQLTransactionError as error:
        raise StorageUnavailable(f"{error}; database.url must name a primary that takes writes") from error
    return Rights(f"Postgres {who['spoken']}")


async def _make_and_drop(session: Session) -> None:
    await session.run(_CREATE)
    await session.run(_WRITE)
    await session.run(_DROP)
