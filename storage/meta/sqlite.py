"""SQLite: reads in the event loop, writes in one thread.

A read is one statement on a connection of its own, without a transaction, so it sees the last commit and
leaves no snapshot open. A transaction runs whole in the writer thread: `work` is driven there to its end, and
since the statements never suspend, anything else it awaits is noticed and refused.
"""

import asyncio
import contextvars
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from tenure.core.errors import StorageUnavailable
from tenure.storage.meta.backoff import Backoff
from tenure.storage.meta.database import ConstraintRefused, Row, Session
from tenure.storage.meta.rows import shift_clock
from tenure.storage.meta.statements import Compiled, Compiler, Params, Statement, database_time, sqlite_compiler

T = TypeVar("T")

#: RETURNING; the last of the features that the statements rest on
OLDEST_SQLITE = (3, 35, 0)

_NO_PARAMS: Params = {}
_NOW = sa.select(database_time().label("now"))
_ONE: Statement = sa.select(sa.literal_column("1"))
_READER_WAIT = 0.0
_WRITER_WAIT = 2.0
_KINDS = {
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: "foreign_key",
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "unique",
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "unique",
    sqlite3.SQLITE_CONSTRAINT_ROWID: "unique",
    sqlite3.SQLITE_CONSTRAINT_CHECK: "check",
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: "not_null",
}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_FAILING_DISK = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_ONLY_STATEMENTS = "a transaction may await only its own statements; do everything else before or after it"


def connect(path: Path, *, wait: float) -> sqlite3.Connection:
    """A connection in autocommit with the settings that the promises rest on, checked.

    `wait` in seconds is how long a statement waits inside SQLite for another writer.
    """
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None, cached_statements=512)
    try:
        connection.row_factory = sqlite3.Row
        _pragma(connection, "journal_mode", "WAL", "wal")
        _pragma(connection, "synchronous", "FULL", 2)
        _pragma(connection, "foreign_keys", "ON", 1)
    except BaseException:
        connection.close()
        raise
    return connection


def _pragma(connection: sqlite3.Connection, name: str, value: str, wanted: object) -> None:
    connection.execute(f"PRAGMA {name}={value}").fetchall()
    (found,) = connection.execute(f"PRAGMA {name}").fetchone()
    if found != wanted:
        raise StorageUnavailable(f"SQLite refused {name}={value} (it stays at {found!r}); is the folder on a network?")


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def _raise_known(error: sqlite3.Error) -> None:
    """Raise what callers know it as: ConstraintRefused or StorageUnavailable. Return if it is neither."""
    code = getattr(error, "sqlite_errorcode", 0)
    if isinstance(error, sqlite3.IntegrityError):
        kind = _KINDS.get(code, "check")
        # Only a CHECK is named: "CHECK constraint failed: manifests_live_ck"
        name = str(error).partition(": ")[2] if kind == "check" else ""
        raise ConstraintRefused(kind, str(error), name or None) from error
    if code & 0xFF in _FAILING_DISK:
        raise StorageUnavailable(f"the database's disk refuses: {error}") from error


def _expand(compiled: Compiled, values: Params) -> tuple[str, Params]:
    """Fill the brackets of `any_of` with a placeholder an element.

    The number is rounded up to a power of two by repeating an element, so that few texts exist to be kept.
    """
    text, named = compiled.text, dict(values)
    for name in compiled.lists:
        elements = list(named.pop(name))
        if elements:
            elements += elements[-1:] * ((1 << (len(elements) - 1).bit_length()) - len(elements))
        named.update((f"{name}__{place}", element) for place, element in enumerate(elements))
        text = text.replace(f"/*{name}*/", ", ".join(f":{name}__{place}" for place in range(len(elements))))
    return text, named


class _Statements:
    """Statements on one connection, in whatever thread owns it."""

    def __init__(self, database: "SqliteDatabase", connection: sqlite3.Connection) -> None:
        self._database = database
        self._connection = connection

    def execute(self, statement: Statement, params: Params) -> tuple[Compiled, sqlite3.Cursor]:
        database = self._database
        database.round_trips += 1
        compiled = database.compile(statement, params)
        values: Params = {**compiled.defaults, **params}
        text = compiled.text
        if compiled.lists:
            text, values = _expand(compiled, values)
        return compiled, self._connection.execute(text, values)

    def rows(self, statement: Statement, params: Params) -> Sequence[Row]:
        compiled, cursor = self.execute(statement, params)
        # All of them: a statement that is not read to its end keeps its snapshot.
        found = cursor.fetchall()
        if compiled.tells_time and self._database.clock_offset:
            return shift_clock(found, self._database.clock_offset)
        return found


class SqliteSession:
    """One transaction in the writer thread."""

    dialect = "sqlite"
    attempt = 0

    def __init__(self, database: "SqliteDatabase", connection: sqlite3.Connection) -> None:
        self._offset = database.clock_offset
        self._statements = _Statements(database, connection)
        self._connection = connection
        self._now: int | None = None
        self._refused = False
        self._depth = 0

    async def now(self) -> int:
        if self._now is None:
            (row,) = self._rows(_NOW, _NO_PARAMS)
            self._now = int(row[0]) + self._offset
        return self._now

    async def one(self, statement: Statement, params: Params = _NO_PARAMS) -> Row | None:
        found = self._rows(statement, params)
        return found[0] if found else None

    async def all(self, statement: Statement, params: Params = _NO_PARAMS) -> Sequence[Row]:
        return self._rows(statement, params)

    async def run(self, statement: Statement, params: Params = _NO_PARAMS) -> int:
        self._check()
        try:
            _, cursor = self._statements.execute(statement, params)
        except sqlite3.Error as error:
            self._refused = True
            _raise_known(error)
            raise
        changed = max(cursor.rowcount, 0)
        cursor.close()
        return changed

    async def run_many(self, statement: Statement, params: Sequence[Params]) -> None:
        for one in params:
            await self.run(statement, one)

    async def savepoint(self, work: Callable[[Session], Awaitable[T]]) -> T:
        self._check()
        self._depth += 1
        name = f"s{self._depth}"
        self._connection.execute(f"SAVEPOINT {name}")
        try:
            value = await work(self)
            self._check()
            self._connection.execute(f"RELEASE {name}")
        except BaseException:
            # A failing disk makes SQLite roll back everything by itself.
            if self._connection.in_transaction:
                self._connection.execute(f"ROLLBACK TO {name}")
                self._connection.execute(f"RELEASE {name}")
                self._refused = False
            raise
        finally:
            self._depth -= 1
        return value

    def finish(self) -> None:
        """Before COMMIT: RuntimeError when a refusal was swallowed, as Postgres would not commit either."""
        self._check()

    def _check(self) -> None:
        if self._refused:
            raise RuntimeError("a refused statement ends its transaction; use a savepoint to go on after it")

    def _rows(self, statement: Statement, params: Params) -> Sequence[Row]:
        self._check()
        try:
            return self._statements.rows(statement, params)
        except sqlite3.Error as error:
            self._refused = True
            _raise_known(error)
            raise


class SqliteDatabase:
    """An open SQLite file. Open and use it in one event loop."""

    dialect = "sqlite"

    def __init__(self, path: Path, *, retry_for: int) -> None:
        self.path = path
        #: microseconds that tests add to the database's clock
        self.clock_offset = 0
        #: statements sent so far
        self.round_trips = 0
        self.compile: Compiler = sqlite_compiler()
        self._retry_for = retry_for
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Make the file if there is none and both connections; StorageUnavailable says why that failed."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StorageUnavailable(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 is the oldest that works")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            wait = min(_WRITER_WAIT, self._retry_for / 1_000_000)
            self._writer = await self._in_thread(connect, self.path, wait=wait)
            self._reader = connect(self.path, wait=_READER_WAIT)
            self._reader.execute("PRAGMA query_only=ON")
        except (OSError, sqlite3.Error) as error:
            await self.close()
            raise StorageUnavailable(f"cannot open the database {self.path}: {error}") from error

    async def one(self, statement: Statement, params: Params = _NO_PARAMS) -> Row | None:
        found = await self.all(statement, params)
        return found[0] if found else None

    async def all(self, statement: Statement, params: Params = _NO_PARAMS) -> Sequence[Row]:
        if self._reader is None:
            raise RuntimeError("the database is closed")
        statements = _Statements(self, self._reader)
        backoff = None
        while True:
            try:
                return statements.rows(statement, params)
            except sqlite3.Error as error:
                _raise_known(error)
                if not _is_busy(error):
                    raise
                backoff = backoff or Backoff(self._retry_for)
                await backoff.wait(error)

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        backoff = None
        while True:
            try:
                return await self._in_thread(self._transact, work)
            except sqlite3.Error as error:
                if not _is_busy(error):
                    raise
                backoff = backoff or Backoff(self._retry_for)
                await backoff.wait(error)

    async def ping(self) -> None:
        await self.one(_ONE)

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await self._in_thread(writer.close)
        self._thread.shutdown(wait=True)

    async def _in_thread(self, call: Callable[..., T], *args: Any, **more: Any) -> T:
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: context.run(call, *args, **more))

    def _transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        connection = self._writer
        if connection is None:
            raise RuntimeError("the database is closed")
        self.round_trips += 2
        try:
            connection.execute("BEGIN IMMEDIATE")
            session = SqliteSession(self, connection)
            value = _drive(cast(Coroutine[Any, None, T], work(session)))
            session.finish()
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                _raise_known(error)
            raise
        return value


def _drive(coroutine: Coroutine[Any, None, T]) -> T:
    """Run a coroutine that never suspends to its end; RuntimeError for one that does."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    except RuntimeError as error:
        if "no running event loop" in str(error):
            raise RuntimeError(_ONLY_STATEMENTS) from error
        raise
    coroutine.close()
    raise RuntimeError(_ONLY_STATEMENTS)
