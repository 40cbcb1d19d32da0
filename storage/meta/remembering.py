"""Rows that were read and cannot have changed since, for a database that one process owns.

A statement of the hot path costs SQLite more in locking its file and stepping its tree than all of the answer
around it. Where every commit passes through this object, what was read stays true until the next one begins:
while a transaction runs nothing is remembered or given from memory, and when it ends, however it ends, all is
forgotten. Nothing is kept for longer than a second, so a person with `sqlite3` in hand is believed soon, too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from tenure.storage.meta.database import Database, Row, Session
from tenure.storage.meta.rows import shift_row, tells_time
from tenure.storage.meta.statements import Params, Statement

T = TypeVar("T")

#: microseconds after which everything is read anew
_KEPT_FOR = 1_000_000
#: what is remembered: rows, and bytes in them
_MAX_ROWS = 4096
_MAX_BYTES = 16 << 20
_NO_PARAMS: Params = {}


class RememberingDatabase:
    """Passes everything on and remembers single rows. Fulfils Database.

    `inner` is a database that nobody else writes to; use both in one event loop.
    """

    def __init__(self, inner: Database, clock: Callable[[], int] = lambda: time.monotonic_ns() // 1000) -> None:
        self.inner = inner
        self._clock = clock
        self.dialect = inner.dialect
        #: statement and parameters -> the row, and when it was read; the statement is held so that its id stays its
        self._rows: dict[Any, tuple[Row | None, int | None, Statement]] = {}
        self._running: set[asyncio.Future[Any]] = set()
        self._bytes = 0
        self._forget_at = 0
        self._changing = 0
        self._changes = 0

    async def one(self, statement: Statement, params: Params = _NO_PARAMS) -> Row | None:
        now = self._clock()
        key = (id(statement), *params.items())
        try:
            found = self._rows.get(key)
        except TypeError:  # a list among the parameters
            return await self.inner.one(statement, params)
        if found is not None and now < self._forget_at:
            row, read_at, _ = found
            return row if row is None or read_at is None else shift_row(row, now - read_at)
        changes = self._changes
        row = await self.inner.one(statement, params)
        if not self._changing and changes == self._changes:
            self._remember(key, row, now, statement)
        return row

    async def all(self, statement: Statement, params: Params = _NO_PARAMS) -> Sequence[Row]:
        return await self.inner.all(statement, params)

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        self._changing += 1
        self._changes += 1
        self._forget()
        # A caller that is cancelled goes away at once, but a transaction in its thread runs on and may commit.
        running = asyncio.ensure_future(self.inner.transact(work))
        self._running.add(running)
        running.add_done_callback(self._ended)
        return await asyncio.shield(running)

    async def ping(self) -> None:
        await self.inner.ping()

    async def close(self) -> None:
        self._forget()
        await self.inner.close()

    def _ended(self, running: "asyncio.Future[Any]") -> None:
        self._changing -= 1
        self._changes += 1  # for a read that began before this end and is not over yet
        self._running.discard(running)
        if not running.cancelled():
            running.exception()  # its caller may be gone; asyncio must not complain that nobody looked

    def _remember(self, key: Any, row: Row | None, now: int, statement: Statement) -> None:
        size = _bytes_of(row)
        if now >= self._forget_at or len(self._rows) >= _MAX_ROWS or self._bytes + size > _MAX_BYTES:
            self._forget()
            self._forget_at = now + _KEPT_FOR
        if size <= _MAX_BYTES // 4:
            timed = row is not None and tells_time(row)
            self._rows[key] = (shift_row(row, 0), now, statement) if timed else (row, None, statement)
            self._bytes += size

    def _forget(self) -> None:
        self._rows.clear()
        self._bytes = 0
        self._forget_at = 0


def _bytes_of(row: Any) -> int:
    return 0 if row is None else sum(len(value) for value in row if isinstance(value, (bytes, str)))
