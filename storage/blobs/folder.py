"""Bytes in a folder: `<root>/b/<2 hex>/<ulid>`, unfinished ones in `<root>/tmp/<ulid>`.

A file becomes visible under its key by one rename, after its bytes are on disk; the rename is on disk before
`complete` returns. Works on any local or network file system with atomic rename and flock.
"""

import asyncio
import fcntl
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from tenure.core.errors import BlobUnknown, StorageUnavailable, TenureError, UploadUnknown
from tenure.core.ids import new_ulid
from tenure.storage.blobs.budget import MemoryBudget
from tenure.storage.blobs.driver import Capabilities, Journal, ObjectInfo, Observe, Progress, Writer
from tenure.storage.blobs.durable import FULL, prepare, refusals_as_sentences, sync_folder, write_all
from tenure.storage.blobs.folder_writer import FolderWriter

T = TypeVar("T")

#: Bytes of one piece on the way out.
READ_SIZE = 1 << 20
#: Threads for file work of one process; a disk gains nothing from more.
THREADS = 8

#: seconds after which no process can still be in its self-test
_PROOF_IS_OVER = 3600
_KEY = re.compile(r"b/[0-9a-f]{2}/[0-9A-Z]{26}\Z")


def folder_from_url(url: str) -> Path:
    """The folder a `file:///path` names; ValueError with a sentence otherwise."""
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ValueError(f"{url!r} does not name a folder; write file:///path")
    return Path(unquote(parts.path))


class FolderDriver:
    """A folder as a store of bytes. Fulfils BlobDriver and LocalFiles."""

    name = "folder"

    def __init__(self, root: Path, budget: MemoryBudget, observe: Observe | None = None, *, reserve: int = 0) -> None:
        """`reserve` bytes of the disk are never written to by uploads."""
        self.root = root
        self.budget = budget
        self.reserve = reserve
        self._observe = observe
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tenure-folder")
        # Shards whose entry in `b` is known to be on disk.
        self._shards: set[str] = set()

    def path(self, key: str) -> Path:
        """Where a finished object lies. ValueError for what is not a key: it could lead out of the folder."""
        if not _KEY.match(key):
            raise ValueError(f"{key!r} is not the key of an object")
        return self.root / key

    def unfinished(self, key: str) -> Path:
        return self.root / "tmp" / self.path(key).name

    def writer(self, progress: Progress, journal: Journal) -> Writer:
        return FolderWriter(self, progress, journal)

    async def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        path = self.path(key)
        end = start + max(0, length)
        async with self.budget.reads.hold(READ_SIZE):
            fd = await self._open_object(path)
            try:
                while start < end:
                    piece = await self.run("get", os.pread, fd, min(READ_SIZE, end - start), start)
                    if not piece:
                        raise TenureError(f"the object {key} ends at byte {start}, before byte {end}")
                    start += len(piece)
                    yield piece
            finally:
                os.close(fd)

    async def _open_object(self, path: Path) -> int:
        opening = asyncio.ensure_future(self.run("get", _open_to_read, path))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_result)
            raise

    async def stat(self, key: str) -> ObjectInfo | None:
        size = await self.run("head", _size_of, self.path(key))
        return None if size is None else ObjectInfo(key, size)

    async def delete(self, key: str, multipart_id: str | None = None, version_id: str | None = None) -> None:
        await self.run("delete", _remove, (self.path(key), self.unfinished(key)))

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        for shard in await self.run("list", _names, self.root / "b"):
            folder = f"b/{shard}/"
            if folder.startswith(prefix) or prefix.startswith(folder):
                for name, size in await self.run("list", _files, self.root / "b" / shard):
                    if (folder + name).startswith(prefix):
                        yield ObjectInfo(folder + name, size)

    async def check(self) -> Capabilities:
        await self.run("check", _prove, self.root)
        return Capabilities({"rename": True, "fsync": True, "lock": True})

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def run(self, operation: str, work: Callable[..., T], *args: object) -> T:
        """Do file work in a thread; what the system refuses becomes a sentence."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._timed, operation, work, args)

    def _timed(self, operation: str, work: Callable[..., T], args: tuple[object, ...]) -> T:
        started = time.perf_counter()
        outcome = "failed"
        try:
            with refusals_as_sentences():
                result = work(*args)
            outcome = "ok"
            return result
        finally:
            if self._observe:
                self._observe(operation, time.perf_counter() - started, outcome)

    def publish(self, key: str) -> None:
        """Move a file whose bytes are on disk to its key, so that the move is on disk too."""
        unfinished, final = self.unfinished(key), self.path(key)
        shard = final.parent
        for again in (True, False):
            if shard.name not in self._shards or not again:
                shard.mkdir(exist_ok=True)
                sync_folder(shard.parent)
                self._shards.add(shard.name)
            try:
                os.rename(unfinished, final)
                break
            except FileNotFoundError:
                if not again or not unfinished.exists():
                    raise UploadUnknown() from None
        sync_folder(shard)
        sync_folder(unfinished.parent)


def _close_result(opening: asyncio.Future[int]) -> None:
    if not opening.cancelled() and not opening.exception():
        os.close(opening.result())


def _open_to_read(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BlobUnknown("the store holds no bytes for this blob") from None


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _remove(paths: tuple[Path, ...]) -> None:
    for path in paths:
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        sync_folder(path.parent)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _files(folder: Path) -> list[tuple[str, int]]:
    found = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    found.append((entry.name, entry.stat(follow_symlinks=False).st_size))
    return sorted(found)


def _forget_old_proofs(root: Path) -> None:
    """A process that was killed in `_prove` left its scratch file, which nobody else knows of."""
    for folder in (root / "b", root / "tmp"):
        for path in folder.glob("check-*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _PROOF_IS_OVER:
                    path.unlink()


def _prove(root: Path) -> None:
    """Do once with a scratch file all that writing an object takes; StorageUnavailable names the step refused."""
    name = f"check-{new_ulid()}"
    scratch, moved = root / "tmp" / name, root / "b" / name
    step = "make folders in"
    try:
        if root.exists() and not root.is_dir():
            raise StorageUnavailable(f"blobs.url names {root}, which is a file; name a folder")
        prepare(root)
        _forget_old_proofs(root)
        step = "create files in"
        fd = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            step = "lock files in"
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            step = "write to files in"
            write_all(fd, [bytes(4096)], 0)
            step = "put files on disk in"
            os.fsync(fd)
        finally:
            os.close(fd)
        step = "rename files in"
        os.rename(scratch, moved)
        sync_folder(moved.parent)
        step = "read files in"
        moved.read_bytes()
        step = "delete files in"
        moved.unlink()
    except OSError as error:
        if error.errno in FULL:
            raise StorageUnavailable(f"the disk that holds {root} is full: {error.strerror}") from error
        raise StorageUnavailable(f"this process may not {step} the folder {root}: {error.strerror}") from error
    finally:
        for left in (scratch, moved):
            with suppress(OSError):
                left.unlink()
