"""Expectation 9: clients do not retry PATCH, PUT and blob GET, so short failures behind us stay behind us."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from helpers.databases import open_url
from helpers.fault_proxy import Fault, FaultProxy, fault_proxy
from helpers.images import image
from helpers.oci import put_blob, put_manifest
from helpers.postgres import PostgresServer
from helpers.requests import Sent, body, content_of, request
from helpers.s3 import BucketFactory
from helpers.serving import served
from helpers.wire import Heard, connect, exchange, head, hear
from tenure.core.clock import DAY
from tenure.core.digest import Digest
from tenure.registry.blobs import get_blob, head_blob
from tenure.registry.plane import Plane
from tenure.registry.settings import PullSettings, PushSettings
from tenure.registry.uploads import finish_upload, patch_upload, start_upload
from tenure.storage.blobs.driver import BlobDriver
from tenure.storage.blobs.opening import open_driver
from tenure.storage.meta.database import Database, Session
from tenure.storage.meta.migrate import migrate
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


@pytest.fixture
async def mortal(bucket_driver: BlobDriver) -> AsyncIterator[tuple[str, PostgresServer]]:
    """The registry, served, on a Postgres of its own that keeps what it commits."""
    postgres = await asyncio.to_thread(PostgresServer, durable=True)
    try:
        await migrate(postgres.url())
        db = await open_url(postgres.url())
        async with served(Plane(db, bucket_driver, PushSettings(), PullSettings(), 7 * DAY)) as running:
            yield running.address, postgres
        await db.close()
    finally:
        await asyncio.to_thread(postgres.stop)


@pytest.mark.timeout(300)  # a server that starts again takes its time on a busy machine
@pytest.mark.parametrize("end", [PostgresServer.shut_down, PostgresServer.kill])
async def test_expectation_09_a_restart_of_the_database_is_not_seen(
    mortal: tuple[str, PostgresServer], end: Callable[[PostgresServer], None]
) -> None:
    """Away for two seconds in the middle of docker's PATCH, of its PUT and of the manifest's."""
    base, postgres = mortal

    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        await asyncio.to_thread(end, postgres)
        yield
        await asyncio.sleep(2)
        await asyncio.to_thread(postgres.start)

    await docker_push(base, away)


async def test_expectation_09_a_store_that_is_away_is_not_seen(shaky: tuple[Plane, FaultProxy]) -> None:
    """Two seconds without a connection, then two of nothing but 503."""
    plane, proxy = shaky

    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        proxy.down = True
        yield
        await asyncio.sleep(2)
        proxy.down, proxy.dice = False, lambda _: Fault.error(503)
        await asyncio.sleep(2)
        proxy.dice = None

    async with served(plane) as running:
        await docker_push(running.address, away)
    assert proxy.kinds["answered 503"] > 0


async def docker_push(base: str, away: Callable[[], AbstractAsyncContextManager[None]]) -> None:
    """What docker sends, with something away in the middle of each request that it never sends again."""
    location = (await exchange(base, "POST", "/v2/app/docker/blobs/uploads/", sent=b""))["Location"]
    reader, writer = await connect(base)
    writer.write(head(base, "PATCH", location, [("Transfer-Encoding", "chunked")]))
    half = len(CONTENT) // 2
    writer.write(b"%x\r\n%s\r\n" % (half, CONTENT[:half]))
    await asyncio.sleep(0.2)
    async with away():
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT) - half, CONTENT[half:]))
        await asyncio.sleep(0.2)
    patched = await hear(reader, "PATCH")
    writer.close()
    assert (patched.status, patched["Range"]) == (202, f"0-{len(CONTENT) - 1}")
    closed = await during(away, exchange(base, "PUT", f"{location}?digest={DIGEST}", sent=b""))
    assert closed.status == 201
    config = await put_blob(base, "app/docker", b"{}")
    made = image(b"{}", [CONTENT])
    assert (await during(away, put_manifest(base, "app/docker", "v1", made))).status == 201
    pulled = await exchange(base, "GET", f"/v2/app/docker/blobs/{DIGEST}")
    assert (pulled.status, Digest.of(pulled.body)) == (200, DIGEST)
    assert (await exchange(base, "GET", f"/v2/app/docker/blobs/{config}")).body == b"{}"


async def during(away: Callable[[], AbstractAsyncContextManager[None]], asking: Coroutine[Any, Any, Heard]) -> Heard:
    async with away():
        asked = asyncio.create_task(asking)
        await asyncio.sleep(0.2)
    return await asked


async def cut_connections(db: Database) -> None:
    """End every other connection of this database, as a failover does."""
    cut = sa.select(sa.func.pg_terminate_backend(sa.literal_column("pid"))).select_from(
        sa.text("pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
    )

    async def work(session: Session) -> None:
        await session.all(cut)

    await db.transact(work)
    await asyncio.sleep(0.05)
