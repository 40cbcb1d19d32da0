"""The admin API on a real socket over a real database, and what tests ask of it."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from aiohttp import web

from helpers.wire import Heard, exchange
from tenure.api.app import make_admin_app
from tenure.api.context import AdminContext
from tenure.auth.access import OpenAccess
from tenure.core.clock import DAY
from tenure.core.errors import Denied
from tenure.core.ids import new_object_key
from tenure.core.origin import Origin
from tenure.storage.blobs.budget import MemoryBudget
from tenure.storage.blobs.driver import BlobDriver, Journal, Progress
from tenure.storage.blobs.folder import FolderDriver
from tenure.storage.meta import records, tables
from tenure.storage.meta.database import Database

#: the repository team/app
APP = "/repositories/team%2Fapp"
TESTER = Origin(actor="tester", address="127.0.0.1", request_id="request-1", user_agent="tests")


@dataclass
class Gate:
    """An access check that refuses what a test put into `closed`, as (action, repository)."""

    closed: set[tuple[str, str | None]] = field(default_factory=set)

    def check(self, origin: Origin, action: str, repository: str | None) -> None:
        OpenAccess().check(origin, action, repository)
        if (action, repository) in self.closed:
            raise Denied(f"no right to {action} in {repository}")


@dataclass
class Admin:
    """A running admin API. `ready` is what /readyz says."""

    db: Database
    driver: BlobDriver
    gate: Gate
    address: str = ""
    context: AdminContext | None = None
    ready: dict[str, Any] = field(default_factory=lambda: {"ready": True})

    async def ask(
        self, method: str, path: str, json_body: Any = None, headers: Mapping[str, str] | None = None
    ) -> "Told":
        """One request; `path` below /api/v1, unless it begins with //."""
        target = path[1:] if path.startswith("//") else "/api/v1" + path
        said = list((headers or {}).items())
        content = None
        if json_body is not None:
            said.append(("Content-Type", "application/json"))
            content = json.dumps(json_body).encode()
        return Told(await exchange(self.address, method, target, said, sent=content))

    async def send(
        self, method: str, path: str, content: bytes, headers: Mapping[str, str], *, chunked: bool = False
    ) -> "Told":
        """One request with exactly this body."""
        target, said = "/api/v1" + path, list(headers.items())
        if chunked:
            pieces = [content[at : at + 65536] for at in range(0, len(content), 65536)]
            return Told(await exchange(self.address, method, target, said, chunks=pieces))
        return Told(await exchange(self.address, method, target, said, sent=content))


@dataclass(frozen=True)
class Told:
    """An answer."""

    heard: Heard

    @property
    def status(self) -> int:
        return self.heard.status

    @property
    def headers(self) -> dict[str, str]:
        return self.heard.headers

    @property
    def body(self) -> Any:
        return json.loads(self.heard.body)


@pytest.fixture
async def admin(db: Database, tmp_path: Path) -> AsyncIterator[Admin]:
    """The admin API over a folder and a fresh database of each kind."""
    driver = FolderDriver(tmp_path / "blobs", MemoryBudget(64 << 20))
    served = Admin(db, driver, Gate())

    async def identify(request: web.BaseRequest) -> Origin:
        return TESTER._replace(actor=request.headers.get("X-Test-Actor", TESTER.actor))

    served.context = AdminContext(
        db=db,
        driver=driver,
        access=served.gate,
        identify=identify,
        trash=7 * DAY,
        ready=lambda: served.ready,
        metrics=lambda: (b"up 1\n", "text/plain; version=0.0.4"),
    )
    async with serving(make_admin_app(served.context)) as address:
        served.address = address
        yield served
    await driver.close()


class serving:
    """An application on a free port of 127.0.0.1; its address."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, auto_decompress=False)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def __aexit__(self, *failure: object) -> None:
        await self._runner.cleanup()


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


async def dump(db: Database) -> dict[str, list[str]]:
    """Every row of every table."""
    assert records.metadata is tables.metadata
    found = {}
    for table in tables.metadata.sorted_tables:
        rows = await db.all(sa.select(table))
        found[table.name] = sorted(repr([row[column.name] for column in table.columns]) for row in rows)
    return found


def changed(before: dict[str, list[str]], after: dict[str, list[str]]) -> set[str]:
    """The tables that differ."""
    return {name for name in before if before[name] != after[name]}


async def store(driver: BlobDriver, content: bytes, key: str | None = None) -> str:
    """Write an object, as an upload of one piece would; its key."""
    key = key or new_object_key()

    async def unused(*_: Any) -> Any:
        raise AssertionError("one small piece needs no journal")

    writer = driver.writer(Progress(key), Journal(unused, unused, unused))
    await writer.write(content)
    stored = await writer.complete()
    return stored.key
