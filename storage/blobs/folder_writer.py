"""Writing one object into a folder: append to a locked file, then rename.

The lock (flock) belongs to the open file, so a writer that lost its claim but still lives and a new one never
write at the same time; the system drops it when a process dies. Bytes behind what was acknowledged are cut
off on opening.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from tenure.core.errors import TenureError, UploadBusy, UploadUnknown
from tenure.storage.blobs.budget import Loan, MemoryBudget
from tenure.storage.blobs.driver import Progress, Stored
from tenure.storage.blobs.durable import prepare, sync_folder, write_all

#: One buffer is written while the next one fills, bytes.
BUFFER = 1 << 20
# One writev takes 1,024 pieces at most.
_MAX_PIECES = 512


class Folder(Protocol):
    """What a writer needs of its driver."""

    root: Path
    budget: MemoryBudget

    def path(self, key: str) -> Path: ...

    def unfinished(self, key: str) -> Path: ...

    def publish(self, key: str) -> None: ...

    async def run(self, operation: str, work: Callable[..., Any], *args: object) -> Any: ...


class FolderWriter:
    """Fulfils Writer. Work on the file is done in threads, one piece of work after the other."""

    def __init__(self, folder: Folder, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress
        self._offset = progress.offset  # taken, not yet safe
        self._fd: int | None = None
        self._new = False
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
        await self.abandon()
        return replace(self._progress, offset=self._offset)

    async def complete(self) -> Stored:
        if self._stored is None:
            await self._open()
            await self._flush()
            await self._do(self._folder.run("complete", self._publish))
            await self.abandon()
            self._stored = Stored(self._progress.key, self._offset)
        return self._stored

    async def abandon(self) -> None:
        self._pieces = []
        self._release(self._loans)
        running = self._running
        if running is None or running.done():
            self._close(running)
            return
        # A thread may still use the file: closing it now could hand its number to another file.
        running.add_done_callback(self._close)
        await asyncio.wait({running})

    async def _open(self) -> None:
        if self._stored is not None:
            raise UploadUnknown()
        if self._fd is None:
            await self._do(self._folder.run("open", self._open_locked))

    async def _flush(self) -> None:
        await self._settle()
        if self._pieces:
            pieces, loans, at = self._pieces, self._loans, self._offset - self._filled
            self._pieces, self._loans, self._filled = [], [], 0
            self._running = asyncio.create_task(self._append(pieces, loans, at))

    async def _append(self, pieces: list[bytes], loans: list[Loan], at: int) -> None:
        try:
            await self._folder.run("put", write_all, self._fd, pieces, at)
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

    def _close(self, done: asyncio.Task[Any] | None) -> None:
        if done is not None and not done.cancelled():
            done.exception()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    # Below: in a thread.

    def _open_locked(self) -> None:
        prepare(self._folder.root)
        path = self._folder.unfinished(self._progress.key)
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if self._progress.offset == 0 else 0)
        for _ in range(10):
            try:
                fd = os.open(path, flags, 0o640)
            except FileNotFoundError:
                fd = self._take_back(path)
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
        if size > self._progress.offset:
            os.ftruncate(fd, self._progress.offset)
        self._new = self._progress.offset == 0
        self._fd = fd

    def _take_back(self, path: Path) -> int:
        """A process died between the rename and the commit: nobody was told of the object, so it goes on here."""
        final = self._folder.path(self._progress.key)
        try:
            fd = os.open(final, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UploadUnknown() from None
        if _locked(fd) and _is_still(fd, final):
            with suppress(FileNotFoundError):
                os.rename(final, path)
        return fd

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
