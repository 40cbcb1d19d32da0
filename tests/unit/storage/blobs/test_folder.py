"""What only a folder does: locks, disk space, rights, files that are served as they are."""

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tenure.core.errors import StorageUnavailable, UploadBusy, UploadUnknown
from tenure.core.ids import new_object_key
from tenure.storage.blobs.budget import MemoryBudget
from tenure.storage.blobs.driver import Journal, Progress
from tenure.storage.blobs.folder import FolderDriver

MIB = 1 << 20


async def unused(*_: object) -> int:
    raise AssertionError("a folder needs no multipart uploads and no tails")


async def still_ours(count: int) -> int:
    assert count == 0, "a folder has no parts"
    return 1


JOURNAL = Journal(multipart=unused, reserve_parts=still_ours, tail_key=unused)  # type: ignore[arg-type]


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[FolderDriver]:
    driver = FolderDriver(tmp_path / "blobs", MemoryBudget(16 * MIB))
    yield driver
    assert driver.budget.held == 0
    await driver.close()


async def test_two_writers_never_write_at_the_same_time(folder: FolderDriver, tmp_path: Path) -> None:
    other = FolderDriver(folder.root, MemoryBudget(MIB))
    first = folder.writer(Progress(new_object_key()), JOURNAL)
    await first.write(b"acknowledged")
    progress = await first.suspend()
    zombie = folder.writer(progress, JOURNAL)
    await zombie.write(b", and then some")
    for driver in (folder, other):
        second = driver.writer(progress, JOURNAL)
        with pytest.raises(UploadBusy):
            await second.write(b"x")
        await second.abandon()
    await zombie.abandon()
    second = other.writer(progress, JOURNAL)
    await second.write(b" twice")
    stored = await second.complete()
    assert folder.path(stored.key).read_bytes() == b"acknowledged twice"
    await other.close()


async def test_a_dead_process_holds_no_lock(folder: FolderDriver) -> None:
    writer = folder.writer(Progress(new_object_key()), JOURNAL)
    await writer.write(b"kept")
    progress = await writer.suspend()
    path = folder.unfinished(progress.key)
    script = (
        "import fcntl, os, time\n"
        f"fd = os.open({str(path)!r}, os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX); os.pwrite(fd, b'torn', 4)\n"
        "print('locked', flush=True); time.sleep(60)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    assert process.stdout
    await process.stdout.readline()
    writer = folder.writer(progress, JOURNAL)
    with pytest.raises(UploadBusy):
        await writer.write(b"x")
    await writer.abandon()
    process.kill()
    await process.wait()
    stored = await folder.writer(progress, JOURNAL).complete()
    assert folder.path(stored.key).read_bytes() == b"kept"


async def test_a_file_shorter_than_acknowledged_ends_the_upload(folder: FolderDriver) -> None:
    writer = folder.writer(Progress(new_object_key()), JOURNAL)
    await writer.write(b"0123456789")
    progress = await writer.suspend()
    os.truncate(folder.unfinished(progress.key), 5)
    writer = folder.writer(progress, JOURNAL)
    with pytest.raises(UploadUnknown, match="lost"):
        await writer.complete()
    await writer.abandon()


async def test_a_file_deleted_under_its_writer_ends_the_upload(folder: FolderDriver) -> None:
    key = new_object_key()
    writer = folder.writer(Progress(key), JOURNAL)
    await writer.write(b"0123456789")
    await folder.delete(key)
    with pytest.raises(UploadUnknown):
        await writer.complete()
    await writer.abandon()
    assert await folder.stat(key) is None


async def test_a_shard_removed_by_hand_is_made_again(folder: FolderDriver) -> None:
    for number in range(2):
        writer = folder.writer(Progress(f"b/00/01M0000000000000000000000{number}"), JOURNAL)
        await writer.write(b"content")
        stored = await writer.complete()
        await folder.delete(stored.key)
        (folder.root / "b" / "00").rmdir()
    assert [item async for item in folder.list()] == []


async def test_the_path_is_the_file_that_is_served(folder: FolderDriver) -> None:
    writer = folder.writer(Progress(new_object_key()), JOURNAL)
    await writer.write(b"content")
    stored = await writer.complete()
    assert folder.path(stored.key).read_bytes() == b"content"
    assert list((folder.root / "tmp").iterdir()) == []


async def test_a_full_disk_is_a_sentence_and_the_upload_goes_on_when_there_is_room(folder: FolderDriver) -> None:
    writer = folder.writer(Progress(new_object_key()), JOURNAL)
    await writer.write(bytes(MIB))
    progress = await writer.suspend()
    writer = folder.writer(progress, JOURNAL)
    with largest_file(2 * MIB), pytest.raises(StorageUnavailable, match="full"):
        for _ in range(4):
            await writer.write(bytes(MIB))
        await writer.suspend()
    await writer.abandon()
    writer = folder.writer(progress, JOURNAL)
    await writer.write(b"end")
    stored = await writer.complete()
    assert folder.path(stored.key).read_bytes() == bytes(MIB) + b"end"


async def test_the_check_says_what_is_wrong(tmp_path: Path) -> None:
    async def sentence(root: Path) -> str:
        driver = FolderDriver(root, MemoryBudget(MIB))
        try:
            with pytest.raises(StorageUnavailable) as refused:
                await driver.check()
        finally:
            await driver.close()
        return refused.value.message

    (tmp_path / "file").write_bytes(b"")
    assert "is a file" in await sentence(tmp_path / "file")
    assert "may not make folders" in await sentence(tmp_path / "file" / "below")
    closed = tmp_path / "closed"
    (closed / "b").mkdir(parents=True)
    (closed / "tmp").mkdir()
    (closed / "tmp").chmod(0o500)
    with as_ordinary_user():
        said = await sentence(closed)
        assert "may not" in said
        assert "Permission denied" in said
    with largest_file(100):
        assert "full" in await sentence(tmp_path / "small")


async def test_the_check_makes_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    driver = FolderDriver(tmp_path / "deep" / "blobs", MemoryBudget(MIB))
    assert all((await driver.check()).found.values())
    assert [path.name for path in driver.root.rglob("*") if path.is_file()] == []
    await driver.close()


async def test_every_call_is_observed(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []
    driver = FolderDriver(
        tmp_path, MemoryBudget(MIB), lambda operation, seconds, outcome: seen.append((operation, outcome))
    )
    writer = driver.writer(Progress(new_object_key()), JOURNAL)
    await writer.write(b"content")
    await writer.complete()
    assert seen == [("open", "ok"), ("put", "ok"), ("complete", "ok")]
    await driver.close()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to write beyond `size` bytes of any file, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Root may write everywhere; tests that run as root step down meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_what_a_killed_self_test_left_goes_with_a_later_one(tmp_path: Path) -> None:
    driver = FolderDriver(tmp_path, MemoryBudget(MIB))
    await driver.check()
    old, running = tmp_path / "tmp/check-OLD", tmp_path / "b/check-RUNNING"
    for path in (old, running):
        path.write_bytes(b"left")
    os.utime(old, (1, 1))
    await driver.check()
    assert not old.exists() and running.exists()
    await driver.close()
