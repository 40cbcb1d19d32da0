"""Room on the disks that this process fills: what is new is refused while what runs can still end.

A full disk stops more than uploads: deletes, jobs and the database's own tidying write too. So new uploads end at
`blobs.free_min`, running ones at an eighth of it (blobs/folder_writer.py), and the rest stays for the database.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tenure.core.errors import Denied
from tenure.core.units import format_size

#: seconds for which an answer of the file system is good
_KEPT = 1.0
#: the share of `blobs.free_min` that running uploads leave alone
KEPT_FREE = 8


def free(folder: Path) -> int:
    """Bytes that an ordinary user may still write to the file system of `folder`."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Room:
    """Watches the file systems of `folders`; `least` bytes must be free on each of them."""

    def __init__(self, folders: Sequence[Path], least: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._folders = tuple(folders)
        self._least = least
        self._clock = clock
        self._free: int | None = None
        self._until = 0.0

    async def check(self) -> None:
        """Denied, which every client shows to its user and none repeats, when there is too little for new uploads."""
        if not self._least or not self._folders:
            return
        now = self._clock()
        if now >= self._until:
            # In a thread: a network file system may take its time.
            self._free, self._until = await asyncio.to_thread(self._look), now + _KEPT
        if self._free is not None and self._free < self._least:
            raise Denied(
                f"the registry's disk is nearly full: {format_size(self._free)} are free, and blobs.free_min keeps "
                f"{format_size(self._least)}; nothing can be pushed until its operator makes room"
            )

    def _look(self) -> int | None:
        try:
            return min(free(folder) for folder in self._folders)
        except OSError:
            # Writing to it will say what is wrong with it.
            return None
