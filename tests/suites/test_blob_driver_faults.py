"""An S3 store that hiccups, loses answers, breaks off or refuses; and the order of journal and bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest
from yarl import URL

from helpers.fault_proxy import Fault, FaultProxy, fault_proxy
from helpers.s3 import BucketFactory, S3Server
from tenure.core.clock import SECOND
from tenure.core.errors import StorageUnavailable, UploadUnknown
from tenure.core.ids import new_object_key
from tenure.storage.blobs.driver import Journal, Progress
from tenure.storage.blobs.opening import open_driver
from tenure.storage.blobs.s3 import S3Driver
from tenure.storage.settings import BlobsSettings, Duration, S3Settings, Secret, Size

MIB = 1 << 20
CONTENT = bytes(range(256)) * 4096 * 12


class Book:
    """A journal that looks into the store at each entry: nothing may be there yet."""

    def __init__(self, driver: S3Driver, key: str) -> None:
        self.driver = driver
        self.key = key
        self.entries: list[str] = []
        self.multipart_id = ""
        self.tails: list[str] = []
        self.given = 0
        self.lost = False

    @property
    def journal(self) -> Journal:
        return Journal(multipart=self._multipart, reserve_parts=self._reserve, tail_key=self._tail)

    async def sent(self) -> list[int]:
        answer = await self.driver.client.call(
            "list_parts", Key=self.driver.object_name(self.key), UploadId=self.multipart_id
        )
        return [part["PartNumber"] for part in (answer or {}).get("Parts", ())]

    async def _multipart(self, multipart_id: str) -> None:
        if self.lost:
            raise UploadUnknown()
        self.multipart_id = multipart_id
        assert await self.sent() == []
        self.entries.append("multipart")

    async def _reserve(self, count: int) -> int:
        assert max([0, *await self.sent()]) <= self.given
        first, self.given = self.given + 1, self.given + count
        self.entries.append(f"parts {first}-{self.given}")
        return first

    async def _tail(self) -> str:
        self.tails.append(new_object_key())
        assert await self.driver.stat(self.tails[-1]) is None
        self.entries.append("tail")
        return self.tails[-1]


@asynccontextmanager
async def opened(url: str, s3: S3Settings, retry_for: int = 5 * SECOND) -> AsyncIterator[S3Driver]:
    s3 = msgspec.structs.replace(s3, part_size=Size(5 * MIB))
    driver = await open_driver(BlobsSettings(url=url, retry_for=Duration(retry_for)), s3, Path("/nowhere"))
    assert isinstance(driver, S3Driver)
    try:
        yield driver
        assert driver.budget.held == 0
    finally:
        await driver.close()


@pytest.fixture
async def proxy(s3_server: S3Server) -> AsyncIterator[FaultProxy]:
    parts = urlsplit(s3_server.endpoint)
    async with fault_proxy(parts.hostname or "", parts.port or 80) as proxy:
        yield proxy


@pytest.fixture
async def driver(s3_server: S3Server, s3_bucket: BucketFactory, proxy: FaultProxy) -> AsyncIterator[S3Driver]:
    """Reaches the store through the proxy."""
    settings = msgspec.structs.replace(s3_server.settings, endpoint=proxy.endpoint)
    async with opened(await s3_bucket(), settings) as driver:
        yield driver


async def push(driver: S3Driver, size: int) -> str:
    key = new_object_key()
    writer = driver.writer(Progress(key), Book(driver, key).journal)
    try:
        for at in range(0, size, MIB):
            await writer.write(CONTENT[at : min(size, at + MIB)])
        stored = await writer.complete()
        assert stored.size == size
        return stored.key
    finally:
        await writer.abandon()


async def pull(driver: S3Driver, key: str, start: int, length: int) -> bytes:
    return b"".join([piece async for piece in driver.read(key, start, length)])


async def test_the_journal_comes_before_the_bytes(driver: S3Driver) -> None:
    key = new_object_key()
    book = Book(driver, key)
    writer = driver.writer(Progress(key), book.journal)
    await writer.write(CONTENT[: 5 * MIB])
    await writer.write(CONTENT[5 * MIB : 11 * MIB])
    progress = await writer.suspend()
    assert book.entries == ["multipart", "parts 1-1", "parts 2-3", "tail"]
    assert progress.multipart_id == book.multipart_id
    assert [part.number for part in progress.parts] == [1, 2]
    assert progress.tail_key == book.tails[0]
    writer = driver.writer(progress, book.journal)
    await writer.write(CONTENT[11 * MIB :])
    stored = await writer.complete()
    # Number 3 was given to the first request and is never used again.
    assert book.entries[4:] == ["parts 4-4"]
    assert await pull(driver, stored.key, 0, len(CONTENT)) == CONTENT


async def test_a_writer_that_lost_its_claim_sends_nothing(driver: S3Driver) -> None:
    key = new_object_key()
    book = Book(driver, key)
    book.lost = True
    writer = driver.writer(Progress(key), book.journal)
    with pytest.raises(UploadUnknown):
        await writer.write(CONTENT)
    await writer.abandon()
    uploads = await driver.client.call("list_multipart_uploads", Prefix=driver.prefix) or {}
    assert uploads.get("Uploads", []) == []


async def test_a_tail_that_is_everything_is_not_sent_again(driver: S3Driver, proxy: FaultProxy) -> None:
    key = new_object_key()
    book = Book(driver, key)
    writer = driver.writer(Progress(key), book.journal)
    await writer.write(CONTENT[:MIB])
    progress = await writer.suspend()
    before = len(proxy.requests)
    stored = await driver.writer(progress, book.journal).complete()
    assert (stored.key, stored.size) == (book.tails[0], MIB)
    assert len(proxy.requests) == before


@pytest.mark.parametrize("size", [1000, 12 * MIB])
@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (Fault.error(503), b""),
        (Fault.error(500), b"PUT "),
        (Fault.error(429), b"POST "),
        (Fault.lose_answer(), b"PUT "),
        (Fault.lose_answer(), b"?uploads"),
        (Fault.lose_answer(), b"?uploadId="),
        (Fault(reset_request_after=500), b"PUT "),
        (Fault(delay=0.2), b""),
    ],
    ids=lambda value: repr(value) if isinstance(value, bytes) else None,
)
async def test_hiccups_while_writing_are_absorbed(
    driver: S3Driver, proxy: FaultProxy, fault: Fault, match: bytes, size: int
) -> None:
    proxy.plan(fault, match=match, times=2)
    key = await push(driver, size)
    proxy.clear()
    assert await pull(driver, key, 0, size) == CONTENT[:size]


async def test_two_long_uploads_share_memory_for_three_parts(s3_settings: S3Settings, s3_bucket: BucketFactory) -> None:
    """Each keeps the memory of a part that was sent for its next one, and gives it to the other when that waits."""
    s3 = msgspec.structs.replace(s3_settings, part_size=Size(5 * MIB))
    driver = await open_driver(BlobsSettings(url=await s3_bucket(), memory_budget=Size(21 * MIB)), s3, Path("/nowhere"))
    assert isinstance(driver, S3Driver)
    assert driver.budget.parts.limit // (5 * MIB) == 3
    keys = await asyncio.wait_for(asyncio.gather(*(push(driver, 12 * MIB) for _ in range(4))), 60)
    assert (driver.budget.held, driver.budget.parts.reclaim) == (0, set())
    for key in keys:
        assert await pull(driver, key, 0, 12 * MIB) == CONTENT
    await driver.close()


async def test_a_completion_nobody_heard_of_is_found(driver: S3Driver, proxy: FaultProxy) -> None:
    proxy.plan(Fault.lose_answer(), match=b"POST ", times=2)
    key = await push(driver, 12 * MIB)
    assert proxy.struck == 2
    assert await pull(driver, key, 0, 12 * MIB) == CONTENT


async def test_a_read_goes_on_where_it_broke_off(driver: S3Driver, proxy: FaultProxy) -> None:
    key = await push(driver, 12 * MIB)
    proxy.plan(Fault(reset_after=3 * MIB), match=b"GET ", times=3)
    proxy.plan(Fault.error(), match=b"GET ", times=1)
    start = len(proxy.requests)
    assert await pull(driver, key, 100, 11 * MIB) == CONTENT[100 : 100 + 11 * MIB]
    assert proxy.struck == 4
    assert len(proxy.requests) - start == 5


async def test_what_lasts_becomes_a_sentence(
    s3_settings: S3Settings, s3_bucket: BucketFactory, proxy: FaultProxy
) -> None:
    settings = msgspec.structs.replace(s3_settings, endpoint=proxy.endpoint)
    async with opened(await s3_bucket(), settings, SECOND // 2) as driver:
        key = await push(driver, 1000)
        proxy.plan(Fault.error(), times=1000)
        for size in (1000, 12 * MIB):
            with pytest.raises(StorageUnavailable, match="does not answer"):
                await push(driver, size)
        for call in (driver.stat(key), driver.delete(key), pull(driver, key, 0, 10)):
            with pytest.raises(StorageUnavailable):
                await call
        proxy.clear()
        proxy.plan(Fault(reset_after=500), match=b"GET ")
        proxy.plan(Fault(reset_after=0), match=b"GET ", times=1000)
        with pytest.raises(StorageUnavailable, match="broke off"):
            await pull(driver, key, 0, 1000)


async def test_calls_are_observed_with_their_outcome(s3_settings: S3Settings, s3_bucket: BucketFactory) -> None:
    seen: set[tuple[str, str]] = set()
    driver = await open_driver(
        BlobsSettings(url=await s3_bucket()),
        s3_settings,
        Path("/nowhere"),
        observe=lambda operation, seconds, outcome: seen.add((operation, outcome)),
    )
    assert await driver.stat(new_object_key()) is None
    await driver.close()
    assert seen == {("head_object", "absent"), ("head_bucket", "ok")}


async def test_a_vanished_bucket_is_not_a_vanished_blob(s3_settings: S3Settings) -> None:
    async with opened("s3://no-such-bucket", s3_settings) as driver:
        key = new_object_key()
        for call in (driver.stat(key), driver.delete(key), pull(driver, key, 0, 1)):
            with pytest.raises(StorageUnavailable):
                await call


async def sentence(url: str, settings: S3Settings) -> str:
    async with opened(url, settings, SECOND // 2) as driver:
        with pytest.raises(StorageUnavailable) as refused:
            await driver.check()
        return refused.value.message


async def test_the_check_names_what_is_wrong(s3_server: S3Server, s3_bucket: BucketFactory) -> None:
    url, settings = await s3_bucket(), s3_server.settings
    bucket = urlsplit(url).netloc
    assert "there is no bucket 'missing'" in await sentence("s3://missing", settings)
    wrong = msgspec.structs.replace(settings, secret_key=Secret("wrong"))
    assert "does not accept the access key" in await sentence(url, wrong)
    nobody = msgspec.structs.replace(settings, access_key="nobody")
    assert "does not accept the access key nobody" in await sentence(url, nobody)
    away = msgspec.structs.replace(settings, endpoint="http://127.0.0.1:9")
    assert "cannot use the bucket" in await sentence(url, away)
    if s3_server.reader:
        key, secret = s3_server.reader
        reader = msgspec.structs.replace(settings, access_key=key, secret_key=Secret(secret))
        said = await sentence(url, reader)
        assert "the right s3:PutObject is missing" in said
        assert bucket in said


async def test_the_check_finds_out_about_the_store(s3_server: S3Server, s3_bucket: BucketFactory) -> None:
    for versioned in (False, True):
        async with opened(await s3_bucket(versioned=versioned), s3_server.settings) as driver:
            found = (await driver.check()).found
            assert found["versioning"] == versioned
            assert set(found) == {"versioning", "conditional_put", "checksum_verified", "multipart_abort_visible"}


async def test_a_signed_url_leads_to_the_bytes_and_a_changed_one_does_not(
    s3_server: S3Server, s3_bucket: BucketFactory
) -> None:
    settings = msgspec.structs.replace(s3_server.settings, public_endpoint=s3_server.endpoint)
    async with opened(await s3_bucket(), settings) as driver, aiohttp.ClientSession() as client:
        key = await push(driver, 1000)
        url = driver.presign(key, "application/vnd.oci.image.layer.v1.tar+gzip")
        assert url is not None
        async with client.get(URL(url, encoded=True), headers={"Range": "bytes=10-19"}) as answer:
            assert answer.status == 206
            assert answer.content_type == "application/vnd.oci.image.layer.v1.tar+gzip"
            assert await answer.read() == CONTENT[10:20]
        async with client.get(URL(url.replace("Expires=3600", "Expires=7200"), encoded=True)) as answer:
            assert answer.status == 403


async def test_credentials_come_from_the_standard_chain(
    s3_server: S3Server, s3_bucket: BucketFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = S3Settings(endpoint=s3_server.endpoint, public_endpoint=s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    async with opened(await s3_bucket(), settings) as driver:
        key = await push(driver, 1000)
        assert s3_server.access_key in (driver.presign(key) or "")


async def test_missing_credentials_are_a_sentence(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    settings = S3Settings(endpoint=s3_server.endpoint)
    async with opened("s3://bucket", settings) as driver:
        for call in (driver.check(), driver.stat(new_object_key())):
            with pytest.raises(StorageUnavailable, match="credentials"):
                await call
    with pytest.raises(StorageUnavailable, match=r"s3\.access_key"):
        async with opened("s3://bucket", msgspec.structs.replace(settings, public_endpoint="https://public.example")):
            pass
