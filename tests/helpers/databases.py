"""Fixtures: real databases with the schema in them, a fresh one for each test.

`db` is open and runs a test on both kinds, `pg` only on Postgres. Tests that start a whole registry ask
`new_database_url` for the value of `database.url`.
"""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from helpers.postgres import PostgresServer
from tenure.storage.meta.database import Database
from tenure.storage.meta.engine import open_database
from tenure.storage.meta.migrate import migrate
from tenure.storage.settings import DatabaseSettings

KINDS = ["sqlite", "postgresql"]

#: `await new_database_url("sqlite" | "postgresql")`; `migrated=False` for an empty database
NewDatabaseUrl = Callable[..., Awaitable[str]]


class Databases:
    """Makes databases by copying a migrated template of each kind, and drops them again.

    The Postgres server starts with the first database that is asked of it.
    """

    def __init__(self, folder: Path) -> None:
        self._server: PostgresServer | None = None
        self._server_url = os.environ.get("TENURE_TEST_PG_DSN", "")
        self._folder = folder
        self._numbers = count()
        self._prefix = f"tenure_test_{os.getpid()}_"
        self._admin: Any = None
        self._template: dict[str, str] = {}

    async def new(self, kind: str, *, migrated: bool = True) -> str:
        if migrated and kind not in self._template:
            url = await self.new(kind, migrated=False)
            await migrate(url)
            self._template[kind] = url
        template = self._template[kind] if migrated else None
        if kind == "sqlite":
            return self._new_file(template)
        return await self._new_on_postgres(template)

    async def drop(self, url: str) -> None:
        if url.startswith("sqlite:///"):
            _remove_file(url.removeprefix("sqlite:///"))
        else:
            await self._admin.execute(f'DROP DATABASE IF EXISTS "{_name_of(url)}" WITH (FORCE)')

    async def close(self) -> None:
        for url in self._template.values():
            await self.drop(url)
        if self._admin is not None:
            await self._admin.close()
        if self._server is not None:
            self._server.stop()

    def _new_file(self, template: str | None) -> str:
        path = self._folder / f"{next(self._numbers)}.db"
        if template is not None:
            shutil.copyfile(template.removeprefix("sqlite:///"), path)
        return f"sqlite:///{path}"

    async def _new_on_postgres(self, template: str | None) -> str:
        if not self._server_url:
            self._server = PostgresServer()
            self._server_url = self._server.url()
        if self._admin is None or self._admin.is_closed():
            self._admin = await asyncpg.connect(self._server_url)
        name = f"{self._prefix}{next(self._numbers)}"
        source = "template0" if template is None else f'"{_name_of(template)}"'
        await self._admin.execute(f'CREATE DATABASE "{name}" TEMPLATE {source}')
        return urlunsplit(urlsplit(self._server_url)._replace(path=f"/{name}"))


def _remove_file(path: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(path + suffix).unlink(missing_ok=True)


def _name_of(url: str) -> str:
    return urlsplit(url).path.lstrip("/")


async def open_url(url: str, **settings: Any) -> Database:
    """The database behind a URL, with other settings than the defaults where a test wants that."""
    return await open_database(DatabaseSettings(url=url, **settings), Path("unused"))


@pytest.fixture(scope="session")
async def databases(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Databases]:
    """One server for all tests of this process; nobody may kill it."""
    made = Databases(tmp_path_factory.mktemp("databases"))
    yield made
    await made.close()


@pytest.fixture
async def new_database_url(databases: Databases) -> AsyncIterator[NewDatabaseUrl]:
    """A factory of fresh migrated databases, which are dropped after the test."""
    urls: list[str] = []

    async def new(kind: str, *, migrated: bool = True) -> str:
        urls.append(await databases.new(kind, migrated=migrated))
        return urls[-1]

    yield new
    for url in urls:
        await databases.drop(url)


@pytest.fixture(params=KINDS)
async def db_url(request: pytest.FixtureRequest, new_database_url: NewDatabaseUrl) -> str:
    """A fresh migrated database of each kind."""
    return await new_database_url(request.param)


@pytest.fixture
async def db(db_url: str) -> AsyncIterator[Database]:
    """The same, open."""
    opened = await open_url(db_url)
    yield opened
    await opened.close()


@pytest.fixture
async def pg_dsn(new_database_url: NewDatabaseUrl) -> str:
    """A fresh migrated database on Postgres, for connections of the test's own."""
    return await new_database_url("postgresql")


@pytest.fixture
async def pg(pg_dsn: str) -> AsyncIterator[Database]:
    """The same, open."""
    opened = await open_url(pg_dsn)
    yield opened
    await opened.close()
