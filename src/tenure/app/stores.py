"""Opening what a process works on: the database at this program's schema, and a store that has proven its rights."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tenure.app.metered import MeteredDatabase
from tenure.config.places import prove_blobs
from tenure.config.rules import sqlite_path
from tenure.config.tree import Settings
from tenure.core.errors import SchemaMismatch
from tenure.obs.metrics import Metrics
from tenure.storage.blobs.driver import BlobDriver
from tenure.storage.blobs.folder import FolderDriver
from tenure.storage.blobs.opening import open_driver
from tenure.storage.meta.database import Database
from tenure.storage.meta.engine import open_database
from tenure.storage.meta.migrate import migrate, pending
from tenure.storage.meta.remembering import RememberingDatabase
from tenure.storage.meta.uploads import release_all_claims
from tenure.storage.room import Room

#: the form of a key that is never given out: asking for it shows that the store answers
_NO_OBJECT = "b/00/" + "0" * 26


@dataclass(frozen=True, slots=True)
class Stores:
    """Facts and bytes, open."""

    db: Database
    driver: BlobDriver
    room: Room

    async def probe_store(self) -> None:
        await self.driver.stat(_NO_OBJECT)

    async def probe_schema(self) -> None:
        """SchemaMismatch when the schema is older than the program.

        A newer one is what every replica but one sees during a rolling upgrade: migrations leave the version
        before theirs working, so it goes on serving; only starting on it is refused.
        """
        try:
            missing = await pending(self.db)
        except SchemaMismatch:
            return
        if missing:
            raise SchemaMismatch(f"the database lacks the schema changes {', '.join(missing)}")


@asynccontextmanager
async def open_stores(settings: Settings, metrics: Metrics | None) -> AsyncIterator[Stores]:
    """Migrates, opens and checks; closes when the block ends. `metrics` None measures nothing.

    Raises SchemaMismatch, StorageUnavailable and the like, with what to do in the sentence.
    """
    folder = Path(settings.server.data_dir)
    await migrate(settings.database.url, retry_for=settings.database.retry_for)
    db = await open_database(settings.database, folder / "tenure.db")
    try:
        if db.dialect == "sqlite":
            # One process owns the file (its lock is held), so whoever claimed an upload before is gone.
            await release_all_claims(db)
        prove_blobs(settings)
        observe = metrics.store if metrics else None
        driver = await open_driver(settings.blobs, settings.s3, folder / "blobs", observe=observe)
        try:
            await driver.check()
            yield Stores(_around(db, metrics), driver, _room(settings, driver))
        finally:
            await driver.close()
    finally:
        await db.close()


def _room(settings: Settings, driver: BlobDriver) -> Room:
    database = sqlite_path(settings)
    folders = [database.parent] if database else []
    if isinstance(driver, FolderDriver):
        folders.append(driver.root)
    return Room(folders, settings.blobs.free_min)


def _around(db: Database, metrics: Metrics | None) -> Database:
    metered = MeteredDatabase(db, metrics) if metrics else db
    # SQLite's file belongs to this process alone (cli/serve.py holds its lock).
    return RememberingDatabase(metered) if db.dialect == "sqlite" else metered
