"""One process owns a SQLite database: a lock that says so, and that ends with its holder however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenure.config.places import DATA_DIR, refusal
from tenure.core.errors import StorageUnavailable


class AlreadyOwned(Exception):
    """Another process works on this folder; the message says which and what to do."""


@contextmanager
def owned(folder: Path, setting: str = DATA_DIR) -> Iterator[None]:
    """Holds `folder` (made when absent), which `setting` names, for as long as the block runs.

    Raises AlreadyOwned, StorageUnavailable.

    The lock is flock's on `tenure.lock`: the kernel lets go of it when the process ends, so there is no stale one.
    """
    lock = folder / "tenure.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageUnavailable(refusal(lock, error, setting)) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyOwned(_who(folder, os.pread(fd, 32, 0), setting)) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _who(folder: Path, content: bytes, setting: str) -> str:
    holder = content.decode(errors="replace").strip() or "unknown"
    return (
        f"{folder} is in use by another Tenure process (pid {holder}); stop it, name another place with {setting}, "
        "or use Postgres, which any number of processes share"
    )
