"""Expectation 9: clients do not retry PATCH, PUT and blob GET, so short failures behind us stay behind us."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from helpers.fault_proxy import Fault, FaultProxy, fault_proxy
from helpers.requests import Sent, body, content_of, request
from helpers.s3 import BucketFactory
from tenure.core.digest import Digest
from tenure.registry.blobs import get_blob, head_blob
from tenure.registry.plane import Plane
from tenure.registry.uploads import finish_upload, patch_upload, start_upload
from tenure.storage.blobs.opening import open_driver
from tenure.storage.meta.database import Database, Session
from tenure.storage.settings import BlobsSettings, S3Settings

CONTENT = random.Random(13).randbytes(18_000_000)
DIGEST = Digest.of(CONTENT)


@pytest.fixture
async def shaky(
    large_plane: Plane, s3_settings: S3Settings, s3_bucket: BucketFactory, tmp_path: Path
) -> AsyncIterator[tuple[Plane, FaultProxy]]:
    """The registry on a bucket behind a proxy that misbehaves."""
    server = urlsplit(s3_settings.endpoint)
    async with fault_proxy(server.hostname or "", server.port or 0) as proxy:
        settings = S3Settings(
            endpoint=proxy.endpoint, access_key=s3_settings.access_key, secret_key=s3_settings.secret_key
        )
        driver = await open_driver(BlobsSettings(url=await s3_bucket()), settings, tmp_path)
        yield replace(large_plane, driver=driver), proxy
        await driver.close()


async def push_and_pull(plane: Plane) -> None:
    session = (await start_upload(plane, request("POST"))).headers["Docker-Upload-UUID"]
    await patch_upload(plane, request("PATCH", sent=body(CONTENT[:9_000_000]), session=session))
    await patch_upload(plane, request("PATCH", sent=body(CONTENT[9_000_000:17_900_000]), session=session))
    answer = await finish_upload(
        plane, request("PUT", sent=body(CONTENT[17_900_000:]), query={"digest": str(DIGEST)}, session=session)
    )
    assert answer.status == 201
    assert (await head_blob(plane, request("HEAD", digest=str(DIGEST)))).status == 200
    assert Digest.of(await content_of(await get_blob(plane, request("GET", digest=str(DIGEST))))) == DIGEST


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (Fault.error(503), b"uploads"),  # initiation
        (Fault.error(500), b"partNumber"),
        (Fault(reset_request_after=100_000), b"partNumber"),
        (Fault.lose_answer(), b"partNumber"),
        (Fault.error(503), b"uploadId"),
        (Fault.lose_answer(), b"POST /"),  # initiation and completion, carried out but not heard of
        (Fault.error(503), b"GET /"),
        (Fault(reset_after=100_000), b"GET /"),
    ],
)
async def test_expectation_09_a_hiccup_of_the_store_is_not_seen(
    shaky: tuple[Plane, FaultProxy], fault: Fault, match: bytes
) -> None:
    plane, proxy = shaky
    proxy.plan(fault, match=match, times=2)
    await push_and_pull(plane)
    assert proxy.struck == 2


async def test_expectation_09_a_hiccup_of_the_database_is_not_seen(large_plane: Plane) -> None:
    """Every connection is cut between and during the requests of one push."""
    plane = large_plane

    async def cut(number: int) -> None:
        if number % 100 == 50:
            await cut_connections(plane.db)

    session = (await start_upload(plane, request("POST"))).headers["Docker-Upload-UUID"]
    await cut_connections(plane.db)
    pieces = [CONTENT[at : at + 65536] for at in range(0, len(CONTENT), 65536)]
    await patch_upload(plane, request("PATCH", sent=Sent(pieces, before=cut), session=session))
    await cut_connections(plane.db)
    answer = await finish_upload(plane, request("PUT", query={"digest": str(DIGEST)}, session=session))
    assert answer.status == 201
    await cut_connections(plane.db)
    assert Digest.of(await content_of(await get_blob(plane, request("GET", digest=str(DIGEST))))) == DIGEST


async def cut_connections(db: Database) -> None:
    """End every other connection of this database, as a failover does."""
    cut = sa.select(sa.func.pg_terminate_backend(sa.literal_column("pid"))).select_from(
        sa.text("pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
    )

    async def work(session: Session) -> None:
        await session.all(cut)

    await db.transact(work)
    await asyncio.sleep(0.05)
