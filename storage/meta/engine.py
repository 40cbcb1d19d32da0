"""From `database.url` to an open Database."""

from pathlib import Path

from tenure.core.errors import DatabaseUrlInvalid
from tenure.storage.meta.database import Database
from tenure.storage.meta.postgres import PostgresDatabase
from tenure.storage.meta.sqlite import SqliteDatabase
from tenure.storage.settings import DatabaseSettings

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


def sqlite_path(url: str) -> Path | None:
    """The file that `sqlite:///relative` or `sqlite:////absolute` names; None for a Postgres URL.

    DatabaseUrlInvalid for anything else.
    """
    if url.startswith(_SQLITE):
        path = url.removeprefix(_SQLITE)
        if not path or path == ":memory:":
            raise DatabaseUrlInvalid("database.url must name a file, for example sqlite:////data/tenure.db")
        return Path(path)
    if url.startswith(_POSTGRES):
        return None
    scheme = url.partition(":")[0] if ":" in url else url
    raise DatabaseUrlInvalid(
        f"database.url begins with {scheme!r}; it must be sqlite:///path or postgresql://user:password@host/name"
    )


def database_url(settings: DatabaseSettings, default_path: Path) -> str:
    """`database.url`, or the one of the file that stands in for it."""
    return settings.url or f"{_SQLITE}{default_path}"


async def open_database(settings: DatabaseSettings, default_path: Path) -> Database:
    """Open the database that the settings name, `default_path` on SQLite when they name none.

    It may be empty: `migrate` fills it. DatabaseUrlInvalid, StorageUnavailable.
    """
    url = database_url(settings, default_path)
    path = sqlite_path(url)
    database: SqliteDatabase | PostgresDatabase
    if path is not None:
        database = SqliteDatabase(path, retry_for=settings.retry_for)
    else:
        database = PostgresDatabase(
            url,
            pool_size=settings.pool_size,
            retry_for=settings.retry_for,
            statement_timeout=settings.statement_timeout,
        )
    await database.open()
    return database
