"""Writing one object into a folder: append to a locked file, then rename.

The lock (flock) belongs to the open file, so a writer that lost its claim but still lives and a new one never
write at the same time; the system drops it when a process dies. Bytes behind what was acknowledged are cut
off on opening, and given back to the disk when a request fails.

A writer may come late: its process was stopped between the claim and the first byte, and somebody else went on
meanwhile, or even finished. So where a file shows more than this writer knows of, the journal is asked, under the
lock, whether the session is still its own, before anything is cut off, moved back or replaced.
"""

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from tenure.core.errors import TenureError, UploadBusy, UploadUnknown
from tenure.storage.blobs.budget import Loan, MemoryBudget
from tenure.storage.blobs.driver import Journal, Progress, Stored
from tenure.storage.blobs.durable import prepare, sync_folder, write_all

#: One buffer is written while the next one fills, bytes.
BUFFER = 1 << 20
# One writev takes 1,024 pieces at most.
_MAX_PIECES = 512


class Folder(Protocol):
    """What a writer needs of its driver."""

    root: Path
    budget: MemoryBudget
    reserve: int

    def path(self, key: str) -> Path: ...

    def unfinished(self, key: str) -> Path: ...

    def publish(self, key: str) -> None: ...

    async def run(self, operation: str, work: Callable[..., Any], *args: object) -> Any: ...


class FolderWriter:
    """Fulfils Writer. Work on the file is done in threads, one piece of work after the other."""

    def __init__(self, folder: Folder, progress: Progress, journal: Journal) -> None:
        self._folder = folder
        self._progress = progress
        self._journal = journal
        self._offset = progress.offset  # taken, not yet safe
        self._fd: int | None = None
        self._new = False
        self._finished_before = False  # the file lies under its key already
        self._in_doubt = False  # it may be another writer's
        self._sure = False  # it was, and the journal said that it is ours
        self._unsafe = False  # it may hold bytes that nobody was told of
        self._ending: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._filled = 0
        self._loans: list[Loan] = []
        self._running: asyncio.Task[Any] | None = None
        self._stored: Stored | None = None

    async def write(self, chunk: bytes) -> None:
        if not chunk:
            return
        await self._open()
        parts = self._folder.budget.parts
        loan = parts.try_take(len(chunk))
        if loan is None:
            # Never wait for memory while holding some: two writers could wait for each other.
            await self._flush()
            await self._settle()
            loan = await parts.take(len(chunk))
        self._loans.append(loan)
        self._pieces.append(chunk)
        self._filled += len(chunk)
        self._offset += len(chunk)
        if self._filled >= BUFFER or len(self._pieces) >= _MAX_PIECES:
            await self._flush()

    async def suspend(self) -> Progress:
        if self._fd is not None:
            await self._flush()
            await self._do(self._folder.run("sync", self._sync))
            self._unsafe = False
        await self.abandon()
        return replace(self._progress, offset=self._offset)

    async def complete(self) -> Stored:
        if self._stored is None:
            await self._open()
            await self._flush()
            await self._do(self._folder.run("complete", self._publish))
            if self._in_doubt:
                await self._still_ours()
                await self._do(self._folder.run("complete", self._publish))
            self._unsafe = False
            await self.abandon()
            self._stored = Stored(self._progress.key, self._offset)
        return self._stored

    async def abandon(self) -> None:
        self._pieces = []
        self._release(self._loans)
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end())
        # Also when the caller is cancelled: the lock must not outlive it.
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        if self._running is not None:
            # A thread may still use the file: closing it now could hand its number to another file.
            await asyncio.wait({self._running})
            if not self._running.cancelled():
                self._running.exception()
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            if self._unsafe:
                with suppress(TenureError):
                    await self._folder.run("cut", os.ftruncate, fd, self._progress.offset)
        finally:
            os.close(fd)

    async def _open(self) -> None:
        if self._stored is not None:
            raise UploadUnknown()
        if self._fd is None:
            await self._do(self._folder.run("open", self._open_locked))
            if self._in_doubt:
                await self._still_ours()
                await self._do(self._folder.run("open", self._take_back))
            self._unsafe = True

    async def _still_ours(self) -> None:
        """UploadUnknown when somebody else took the session over. As long as the lock is held nobody can."""
        await self._journal.reserve_parts(0)
        self._in_doubt, self._sure = False, True

    async def _flush(self) -> None:
        await self._settle()
        if self._pieces:
            pieces, loans, at = self._pieces, self._loans, self._offset - self._filled
            self._pieces, self._loans, self._filled = [], [], 0
            self._running = asyncio.create_task(self._append(pieces, loans, at))

    async def _append(self, pieces: list[bytes], loans: list[Loan], at: int) -> None:
        try:
            await self._folder.run("put", self._write, pieces, at)
        finally:
            self._release(loans)

    async def _do(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await self._settle()
        except BaseException:
            work.close()
            raise
        self._running = asyncio.create_task(work)
        await self._settle()

    async def _settle(self) -> None:
        """Wait for the thread. Cancelling the waiter does not cancel the work: a thread cannot be stopped."""
        if self._running is not None:
            await asyncio.wait({self._running})
            self._running.result()

    def _release(self, loans: list[Loan]) -> None:
        while loans:
            loans.pop().release()

    # Below: in a thread.

    def _open_locked(self) -> None:
        prepare(self._folder.root)
        for _ in range(10):
            fd, path = self._open_file()
            if not _locked(fd):
                os.close(fd)
                raise UploadBusy()
            if _is_still(fd, path):
                break
            os.close(fd)  # renamed or deleted between open and lock
        else:
            raise UploadBusy()
        size = os.fstat(fd).st_size
        if size < self._progress.offset:
            os.close(fd)
            raise UploadUnknown("bytes of this upload were lost on the way; begin a new one")
        self._in_doubt = self._finished_before or size > self._progress.offset
        self._new = self._progress.offset == 0
        self._fd = fd

    def _open_file(self) -> tuple[int, Path]:
        """The unfinished file, or the finished one of a process that died between the rename and the commit."""
        unfinished, final = self._folder.unfinished(self._progress.key), self._folder.path(self._progress.key)
        flags = os.O_RDWR | os.O_CLOEXEC
        self._finished_before = False
        with suppress(FileNotFoundError):
            return os.open(unfinished, flags | (os.O_CREAT if self._progress.offset == 0 else 0), 0o640), unfinished
        try:
            self._finished_before = True
            return os.open(final, flags), final
        except FileNotFoundError:
            raise UploadUnknown() from None

    def _take_back(self) -> None:
        """Nobody was told of what is too much here: it is made unfinished again, and as long as it was."""
        assert self._fd is not None
        if self._finished_before:
            os.rename(self._folder.path(self._progress.key), self._folder.unfinished(self._progress.key))
        os.ftruncate(self._fd, self._progress.offset)

    def _write(self, pieces: list[bytes], at: int) -> None:
        assert self._fd is not None
        if self._folder.reserve:
            disk = os.fstatvfs(self._fd)
            if disk.f_bavail * disk.f_frsize < self._folder.reserve + sum(map(len, pieces)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_all(self._fd, pieces, at)

    def _sync(self) -> None:
        assert self._fd is not None
        os.fdatasync(self._fd)
        if self._new:
            sync_folder(self._folder.root / "tmp")

    def _publish(self) -> None:
        assert self._fd is not None
        os.fsync(self._fd)
        size = os.fstat(self._fd).st_size
        if size != self._offset:
            raise TenureError(f"the file of {self._progress.key} has {size} bytes where {self._offset} were written")
        # A finished file that was not there when this one was opened is a late writer's last chance to do harm.
        self._in_doubt = not self._sure and self._folder.path(self._progress.key).exists()
        if not self._in_doubt:
            self._folder.publish(self._progress.key)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
