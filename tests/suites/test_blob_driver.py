"""What every store of bytes must do: a folder, a bucket, a versioned bucket."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from helpers.s3 import S3Server, fresh_buckets
from tenure.core.errors import BlobUnknown, TenureError, UploadUnknown
from tenure.core.ids import new_object_key
from tenure.storage.blobs.driver import BlobDriver, Journal, ObjectInfo, Progress, Stored
from tenure.storage.blobs.folder import FolderDriver
from tenure.storage.blobs.opening import open_driver
from tenure.storage.blobs.s3 import S3Driver
from tenure.storage.settings import BlobsSettings, S3Settings, Size

MIB = 1 << 20
PART = 5 * MIB
CONTENT = random.Random(1).randbytes(42 * MIB)


@dataclass
class FakeJournal:
    """Remembers what a database would; part numbers go on across writers, as they must."""

    calls: list[str] = field(default_factory=list)
    multipart_id: str | None = None
    tails: list[str] = field(default_factory=list)
    next_part: int = 1

    @property
    def journal(self) -> Journal:
        return Journal(multipart=self._multipart, reserve_parts=self._reserve, tail_key=self._tail)

    async def _multipart(self, multipart_id: str) -> None:
        self.calls.append("multipart")
        self.multipart_id = multipart_id

    async def _reserve(self, count: int) -> int:
        self.calls.append(f"reserve {count}")
        first, self.next_part = self.next_part, self.next_part + count
        return first

    async def _tail(self) -> str:
        self.calls.append("tail")
        self.tails.append(new_object_key())
        return self.tails[-1]


Opener = Callable[[], Awaitable[BlobDriver]]


@dataclass
class Store:
    """One place for bytes; `driver` is open on it, `again` opens another driver as a second replica would."""

    driver: BlobDriver
    again: Opener

    async def write(self, content: bytes, *, piece: int = 256 << 10) -> Stored:
        writer = self.driver.writer(Progress(new_object_key()), FakeJournal().journal)
        for at in range(0, len(content), piece):
            await writer.write(content[at : at + piece])
        return await writer.complete()

    async def read(self, key: str, start: int, length: int) -> bytes:
        return b"".join([piece async for piece in self.driver.read(key, start, length)])

    def held(self) -> int:
        assert isinstance(self.driver, FolderDriver | S3Driver)
        return self.driver.budget.held


@pytest.fixture(scope="session")
async def places(s3_server: S3Server) -> AsyncIterator[dict[str, str]]:
    """One bucket of each kind for all tests, each of which takes a prefix of its own."""
    async with fresh_buckets(s3_server) as make:
        yield {"s3": await make(), "s3-versioned": await make(versioned=True)}


@pytest.fixture(params=["folder", "s3"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, s3_settings: S3Settings, places: dict[str, str]
) -> AsyncIterator[Store]:
    async with open_store(request.param, tmp_path, s3_settings, places) as opened:
        yield opened


@pytest.fixture(params=["folder", "s3", "s3-versioned"])
async def any_store(
    request: pytest.FixtureRequest, tmp_path: Path, s3_settings: S3Settings, places: dict[str, str]
) -> AsyncIterator[Store]:
    """Also the versioned bucket, for what versions can change."""
    async with open_store(request.param, tmp_path, s3_settings, places) as opened:
        yield opened


@asynccontextmanager
async def open_store(kind: str, folder: Path, server: S3Settings, places: dict[str, str]) -> AsyncIterator[Store]:
    url = f"file://{folder}/blobs" if kind == "folder" else f"{places[kind]}/{uuid4().hex}"
    blobs = BlobsSettings(url=url, memory_budget=Size(24 * MIB))
    s3 = msgspec.structs.replace(server, part_size=Size(PART))
    async with AsyncExitStack() as opened:

        async def again() -> BlobDriver:
            driver = await open_driver(blobs, s3, folder / "unused")
            opened.push_async_callback(driver.close)
            return driver

        store = Store(await again(), again)
        yield store
        assert store.held() == 0


def is_s3(store: Store) -> bool:
    return store.driver.name == "s3"


@pytest.mark.parametrize("size", [0, 1, (256 << 10) + 1, PART - 1, PART, PART + 1, 2 * PART])
async def test_an_object_of_any_size_comes_back(any_store: Store, size: int) -> None:
    stored = await any_store.write(CONTENT[:size], piece=MIB)
    assert stored.size == size
    assert await any_store.driver.stat(stored.key) == ObjectInfo(stored.key, size)
    assert await any_store.read(stored.key, 0, size) == CONTENT[:size]


async def test_one_chunk_may_be_larger_than_a_part(store: Store) -> None:
    stored = await store.write(CONTENT[: 12 * MIB], piece=12 * MIB)
    assert await store.read(stored.key, 0, 12 * MIB) == CONTENT[: 12 * MIB]


async def test_many_small_writes_make_one_object(store: Store) -> None:
    dice = random.Random(2)
    writer = store.driver.writer(Progress(new_object_key()), FakeJournal().journal)
    at = 0
    for _ in range(4000):
        piece = CONTENT[at : at + dice.randint(0, 500)]
        await writer.write(piece)
        at += len(piece)
    stored = await writer.complete()
    assert stored.size == at
    assert await store.read(stored.key, 0, at) == CONTENT[:at]


async def test_a_large_object_keeps_its_hash(store: Store) -> None:
    stored = await store.write(CONTENT)
    seen = hashlib.sha256()
    async for piece in store.driver.read(stored.key, 0, stored.size):
        assert len(piece) <= MIB
        seen.update(piece)
    assert seen.digest() == hashlib.sha256(CONTENT).digest()


@pytest.mark.parametrize(
    "steps",
    [
        [100, 1, 0, 1000],  # the tail stays below 256 KiB
        [100, 300 << 10, 700 << 10],  # a tail in the database becomes a tail object, then a larger one
        [4 * MIB, 100, 3 * MIB, 10],  # a tail object becomes a part
        [6 * MIB, 200 << 10, 6 * MIB, 1 * MIB],  # a part, a tail, more parts
        [(256 << 10), 1, PART - 1, 2],  # at the edges
    ],
    ids=lambda steps: "-".join(map(str, steps)),
)
async def test_an_upload_goes_on_in_another_process(store: Store, steps: list[int]) -> None:
    book = FakeJournal()
    progress = Progress(new_object_key())
    at = 0
    for step in steps:
        driver = await store.again()
        writer = driver.writer(progress, book.journal)
        for start in range(at, at + step, 100_000):
            await writer.write(CONTENT[start : min(start + 100_000, at + step)])
        at += step
        progress = await writer.suspend()
        assert progress.offset == at
        assert len(progress.tail) <= 256 << 10
        assert not (progress.tail and progress.tail_key)
        assert await store.driver.stat(progress.key) is None
    stored = await (await store.again()).writer(progress, book.journal).complete()
    assert stored.size == at
    assert await store.read(stored.key, 0, at) == CONTENT[:at]


async def test_bytes_that_were_never_acknowledged_are_dropped(store: Store) -> None:
    book = FakeJournal()
    writer = store.driver.writer(Progress(new_object_key()), book.journal)
    await writer.write(CONTENT[: 7 * MIB])
    acknowledged = await writer.suspend()
    lost = (await store.again()).writer(acknowledged, book.journal)
    await lost.write(bytes(13 * MIB))
    await lost.abandon()
    writer = (await store.again()).writer(acknowledged, book.journal)
    await writer.write(CONTENT[7 * MIB : 14 * MIB])
    stored = await writer.complete()
    assert stored.size == 14 * MIB
    assert await store.read(stored.key, 0, stored.size) == CONTENT[: 14 * MIB]


@pytest.mark.parametrize("size", [0, 1000, 2 * MIB, 8 * MIB])
async def test_complete_may_be_repeated_after_a_crash(any_store: Store, size: int) -> None:
    book = FakeJournal()
    writer = any_store.driver.writer(Progress(new_object_key()), book.journal)
    await writer.write(CONTENT[:size])
    progress = await writer.suspend()
    writer = any_store.driver.writer(progress, book.journal)
    stored = await writer.complete()
    assert await writer.complete() == stored
    # This process died before it could commit: another one begins from the same progress.
    again = await (await any_store.again()).writer(progress, book.journal).complete()
    assert (again.key, again.size) == (stored.key, size)
    assert await any_store.read(stored.key, 0, size) == CONTENT[:size]


async def test_an_upload_that_was_completed_but_not_committed_takes_its_last_bytes_again(any_store: Store) -> None:
    book = FakeJournal()
    writer = any_store.driver.writer(Progress(new_object_key()), book.journal)
    await writer.write(CONTENT[: 6 * MIB])
    progress = await writer.suspend()
    for _ in range(2):
        writer = (await any_store.again()).writer(progress, book.journal)
        await writer.write(CONTENT[6 * MIB : 7 * MIB])
        stored = await writer.complete()
        assert await any_store.read(stored.key, 0, stored.size) == CONTENT[: 7 * MIB]
    assert stored.recovered == is_s3(any_store)


async def test_delete_removes_everything_and_absent_is_success(any_store: Store) -> None:
    stored = await any_store.write(CONTENT[: 6 * MIB])
    await any_store.driver.delete(stored.key, version_id=stored.version_id)
    assert await any_store.driver.stat(stored.key) is None
    for _ in range(2):
        await (await any_store.again()).delete(stored.key, multipart_id="unknown", version_id=stored.version_id)
    await any_store.driver.delete(new_object_key())
    assert await left_over(any_store) == 0


async def test_a_delete_without_a_version_leaves_none_behind(any_store: Store) -> None:
    stored = await any_store.write(b"first")
    writer = any_store.driver.writer(Progress(stored.key), FakeJournal().journal)
    await writer.write(b"again")
    await writer.complete()
    await any_store.driver.delete(stored.key)
    assert await left_over(any_store) == 0


async def test_delete_of_an_unfinished_object_removes_its_bytes(any_store: Store) -> None:
    book = FakeJournal()
    writer = any_store.driver.writer(Progress(new_object_key()), book.journal)
    await writer.write(CONTENT[: 9 * MIB])
    progress = await writer.suspend()
    driver = await any_store.again()
    for key in [progress.key, *book.tails]:
        await driver.delete(key, multipart_id=book.multipart_id)
    assert await left_over(any_store) == 0
    with pytest.raises(UploadUnknown):
        writer = driver.writer(progress, book.journal)
        await writer.write(CONTENT[: 9 * MIB])
        await writer.complete()
    await writer.abandon()


async def left_over(store: Store) -> int:
    """Files, versions, delete markers and multipart uploads in the store, whatever their names."""
    if isinstance(store.driver, S3Driver):
        client = store.driver.client
        versions = await client.call("list_object_versions", Prefix=store.driver.prefix) or {}
        uploads = await client.call("list_multipart_uploads", Prefix=store.driver.prefix) or {}
        found = [versions.get("Versions"), versions.get("DeleteMarkers"), uploads.get("Uploads")]
        return sum(len(items) for items in found if items)
    assert isinstance(store.driver, FolderDriver)
    return sum(path.is_file() for path in store.driver.root.rglob("*"))


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (0, 0), (5, 10), (MIB - 1, 2), (3 * MIB, 3 * MIB), (6 * MIB - 1, 1)]
)
async def test_a_range_is_read(store: Store, start: int, length: int) -> None:
    stored = await store.write(CONTENT[: 6 * MIB], piece=MIB)
    assert await store.read(stored.key, start, length) == CONTENT[start : start + length]


async def test_a_range_beyond_the_end_is_never_cut_silently(store: Store) -> None:
    stored = await store.write(b"0123456789")
    for start in (5, 10, 50):
        with pytest.raises(TenureError):
            await store.read(stored.key, start, 20)


async def test_reading_what_is_not_there_says_so(store: Store) -> None:
    for length in (0, 10):
        with pytest.raises(BlobUnknown):
            await store.read(new_object_key(), 0, length)
    assert await store.driver.stat(new_object_key()) is None


async def test_a_reader_that_leaves_early_holds_nothing(store: Store) -> None:
    stored = await store.write(CONTENT[: 6 * MIB])
    for _ in range(80):
        pieces = store.driver.read(stored.key, 0, stored.size)
        assert await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]
    assert store.held() == 0


async def test_a_key_is_never_half_visible(store: Store) -> None:
    writer = store.driver.writer(Progress(new_object_key()), FakeJournal().journal)
    key = new_object_key()
    writer = store.driver.writer(Progress(key), FakeJournal().journal)
    for at in range(0, 12 * MIB, 3 * MIB):
        await writer.write(CONTENT[at : at + 3 * MIB])
        assert await store.driver.stat(key) is None
        assert [found async for found in store.driver.list()] == []
    await writer.complete()
    assert await store.driver.stat(key) == ObjectInfo(key, 12 * MIB)


async def test_objects_are_listed_in_order_of_their_keys(store: Store) -> None:
    stored = await asyncio.gather(*(store.write(CONTENT[:size]) for size in range(40)))
    found = [found async for found in store.driver.list()]
    assert [item.key for item in found] == sorted(item.key for item in stored)
    assert {item.key: item.size for item in found} == {item.key: item.size for item in stored}
    shard = found[0].key[:5]
    narrowed = [item async for item in store.driver.list(shard)]
    assert narrowed == [item for item in found if item.key.startswith(shard)]
    assert [item async for item in store.driver.list("b/no")] == []


async def test_twenty_writers_share_the_memory(store: Store) -> None:
    assert isinstance(store.driver, FolderDriver | S3Driver)
    dice = random.Random(3)

    async def push(size: int) -> None:
        assert (await store.write(CONTENT[:size], piece=dice.randint(50_000, MIB))).size == size

    await asyncio.gather(*(push(dice.choice((1000, 300 << 10, 5 * MIB + 5))) for _ in range(20)))
    budget = store.driver.budget
    assert 0 < budget.peak <= budget.limit
    assert budget.held == 0


@pytest.mark.parametrize("seed", range(3))
async def test_cancelled_writers_hold_nothing(store: Store, seed: int) -> None:
    dice = random.Random(seed)

    async def push() -> None:
        writer = store.driver.writer(Progress(new_object_key()), FakeJournal().journal)
        try:
            for at in range(0, 6 * MIB, 700_000):
                await writer.write(CONTENT[at : at + 700_000])
            await writer.complete()
        finally:
            await writer.abandon()

    tasks = [asyncio.create_task(push()) for _ in range(12)]
    for task in dice.sample(tasks, 9):
        await asyncio.sleep(dice.random() / 50)
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [result for result in results if result is not None and not isinstance(result, asyncio.CancelledError)] == []
    assert store.held() == 0


async def test_the_check_passes_and_leaves_nothing(any_store: Store) -> None:
    found = (await any_store.driver.check()).found
    assert found
    assert await left_over(any_store) == 0
