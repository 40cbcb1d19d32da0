"""Fixtures: what handlers work with, on both profiles, without a server.

`plane` runs a test twice, on SQLite with a folder and on Postgres with a bucket. The database is fresh for
each test; the bucket is one for all, since keys never repeat.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from helpers.databases import NewDatabaseUrl, open_url
from helpers.s3 import S3Server, create_bucket
from tenure.core.clock import DAY
from tenure.registry.plane import Plane
from tenure.registry.settings import PullSettings, PushSettings
from tenure.storage.blobs.driver import BlobDriver
from tenure.storage.blobs.opening import open_driver
from tenure.storage.meta.database import Database
from tenure.storage.meta.remembering import RememberingDatabase
from tenure.storage.settings import BlobsSettings, S3Settings


async def new_store(server: S3Server) -> str:
    """The value for blobs.url of an empty store; nobody removes it, the server's data go with the server."""
    if server.url:
        return f"{server.url.rstrip('/')}/{uuid4().hex}"
    bucket = f"tenure-{uuid4().hex}"
    await create_bucket(server, bucket)
    return f"s3://{bucket}/registry"


@pytest.fixture(scope="session")
async def bucket_driver(s3_server: S3Server) -> AsyncIterator[BlobDriver]:
    """A driver on a bucket that lives as long as the server."""
    driver = await open_driver(BlobsSettings(url=await new_store(s3_server)), s3_server.settings, Path("unused"))
    yield driver
    await driver.close()


@pytest.fixture
async def small_plane(new_database_url: NewDatabaseUrl, tmp_path: Path) -> AsyncIterator[Plane]:
    """SQLite and a folder."""
    db = await open_url(await new_database_url("sqlite"))
    driver = await open_driver(BlobsSettings(), S3Settings(), tmp_path / "blobs")
    # As it is served: SQLite with its memory.
    yield _plane(RememberingDatabase(db), driver)
    await driver.close()
    await db.close()


@pytest.fixture
async def large_plane(new_database_url: NewDatabaseUrl, bucket_driver: BlobDriver) -> AsyncIterator[Plane]:
    """Postgres and a bucket."""
    db = await open_url(await new_database_url("postgresql"))
    yield _plane(db, bucket_driver)
    await db.close()


@pytest.fixture(params=["small", "large"])
def plane(request: pytest.FixtureRequest) -> Plane:
    made: Plane = request.getfixturevalue(f"{request.param}_plane")
    return made


def _plane(db: Database, driver: BlobDriver) -> Plane:
    return Plane(db, driver, PushSettings(), PullSettings(), 7 * DAY)
