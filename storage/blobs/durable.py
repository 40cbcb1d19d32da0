"""What the file system is asked for: entries that survive a power cut, and sentences for its refusals."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenure.core.errors import StorageUnavailable

#: What a system answers when there is no room: disk, quota, largest file.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def refusals_as_sentences() -> Iterator[None]:
    """OSError -> StorageUnavailable that says what an operator can do about it; paths stay in the log."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            message = "the disk that holds the blobs is full; free some space or give it more"
        else:
            message = f"the folder that holds the blobs cannot be used at the moment: {error.strerror or error}"
        raise StorageUnavailable(message) from error


def sync_folder(folder: Path) -> None:
    """Put the entries of a folder on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def prepare(root: Path) -> None:
    """Make the two folders everything lies in."""
    for folder in (root / "b", root / "tmp"):
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(root)


def write_all(fd: int, pieces: list[bytes], at: int) -> None:
    """Write the pieces one after the other from offset `at`, all of them."""
    written = os.pwritev(fd, pieces, at)
    total = sum(map(len, pieces))
    if written < total:
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            written = os.pwrite(fd, rest, at + total - len(rest))
            rest = rest[written:]
