"""Postgres by asyncpg: prepared statements on a pool, retried when that is safe.

A lost connection is retried until `retry_for` has passed, with no connection held meanwhile. Only a COMMIT
whose answer was lost may have happened: the next try is told by `Session.attempt`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg
import sqlalchemy as sa

from tenure.core.errors import StorageUnavailable
from tenure.storage.meta.backoff import Backoff
from tenure.storage.meta.database import ConstraintRefused, Row, Session
from tenure.storage.meta.gather import Gatherer
from tenure.storage.meta.rows import shift_clock
from tenure.storage.meta.statements import Compiler, Params, Statement, database_time, postgres_compiler

T = TypeVar("T")

_NO_PARAMS: Params = {}
_NOW = sa.select(database_time().label("now"))
_ONE: Statement = sa.select(sa.literal_column("1"))
#: seconds that a connection may take to be made, or to be tidied after a cancelled statement
_CONNECT_WITHIN = 10.0
_TIDY_WITHIN = 5.0

_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_KINDS = {"23503": "foreign_key", "23001": "foreign_key", "23505": "unique", "23P01": "unique", "23502": "not_null"}
#: serialization_failure, deadlock_detected: nothing was done, the connection is good
_AGAIN = {"40001", "40P01"}
#: the server is going, coming, full, or no longer the primary: another connection may do
_GONE = {"57P01", "57P02", "57P03", "25006", "25P03"}
#: statement_timeout and lock_timeout: waiting longer is not what the caller wants
_TOO_SLOW = {"57014", "55P03"}


def _state(error: BaseException) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def _is_stale_plan(error: BaseException) -> bool:
    """The schema changed under a prepared statement; asyncpg has dropped it already."""
    return isinstance(error, (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError))


def _is_closed(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        # The pool has taken it back by itself, as it does when the server hangs up.
        return True


def _discard(connection: Any) -> None:
    if not _is_closed(connection):
        connection.terminate()


def _is_gone(error: BaseException, connection: Any) -> bool:
    """Whether the connection is of no more use, for a reason that another one may not share."""
    # InternalClientError: the server said farewell to an idle connection that is not closed yet.
    if isinstance(error, (asyncpg.PostgresConnectionError, asyncpg.InternalClientError, OSError)):
        return True
    if isinstance(error, asyncpg.InterfaceError):
        return connection is not None and _is_closed(connection)
    state = _state(error)
    return state in _GONE or state.startswith("53")


def _raise_known(error: BaseException) -> None:
    """Raise what callers know it as: ConstraintRefused or StorageUnavailable. Return if it is neither."""
    state = _state(error)
    if state.startswith("23"):
        name = getattr(error, "constraint_name", None)
        raise ConstraintRefused(_KINDS.get(state, "check"), str(error), name) from error
    if state in _TOO_SLOW:
        raise StorageUnavailable("a statement took too long; try again in a moment") from error
    if state.startswith(("28", "3D")):
        raise StorageUnavailable(f"the database does not let us in: {error}") from error


async def _leave_as_it_is(_connection: Any) -> None:
    """Instead of asyncpg's reset: a round trip each time, for settings that nothing here changes."""


class PostgresSession:
    """One transaction on one connection."""

    dialect = "postgresql"

    def __init__(self, database: "PostgresDatabase", connection: Any, attempt: int) -> None:
        self.attempt = attempt
        self._database = database
        self._connection = connection
        self._offset = database.clock_offset
        self._now: int | None = None
        self._refused = False
        self._depth = 0

    async def now(self) -> int:
        if self._now is None:
            row = await self.one(_NOW)
            assert row is not None
            self._now = int(row[0]) + self._offset
        return self._now

    async def one(self, statement: Statement, params: Params = _NO_PARAMS) -> Row | None:
        text, values, tells_time = self._prepare(statement, params)
        try:
            row: Row | None = await self._connection.fetchrow(text, *values)
        except asyncpg.PostgresError as error:
            self._refuse(error)
            raise
        if row is not None and tells_time and self._offset:
            return shift_clock([row], self._offset)[0]
        return row

    async def all(self, statement: Statement, params: Params = _NO_PARAMS) -> Sequence[Row]:
        text, values, tells_time = self._prepare(statement, params)
        try:
            found: Sequence[Row] = await self._connection.fetch(text, *values)
        except asyncpg.PostgresError as error:
            self._refuse(error)
            raise
        return shift_clock(found, self._offset) if tells_time and self._offset else found

    async def run(self, statement: Statement, params: Params = _NO_PARAMS) -> int:
        text, values, _ = self._prepare(statement, params)
        try:
            status: str = await self._connection.execute(text, *values)
        except asyncpg.PostgresError as error:
            self._refuse(error)
            raise
        changed = status.rpartition(" ")[2]
        return int(changed) if changed.isdecimal() else 0

    async def run_many(self, statement: Statement, params: Sequence[Params]) -> None:
        if not params:
            return
        self._check()
        self._database.round_trips += 1
        compiled = self._database.compile(statement, params[0])
        try:
            await self._connection.executemany(compiled.text, [compiled.values(one) for one in params])
        except asyncpg.PostgresError as error:
            self._refuse(error)
            raise

    async def savepoint(self, work: Callable[[Session], Awaitable[T]]) -> T:
        self._check()
        self._depth += 1
        name = f"s{self._depth}"
        await self._command(f"SAVEPOINT {name}")
        try:
            value = await work(self)
            self._check()
            await self._command(f"RELEASE SAVEPOINT {name}")
        except BaseException:
            if not _is_closed(self._connection):
                await self._command(f"ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}")
                self._refused = False
            raise
        finally:
            self._depth -= 1
        return value

    def finish(self) -> None:
        """Before COMMIT: RuntimeError when a refusal was swallowed; Postgres would roll back and say nothing."""
        self._check()

    def _check(self) -> None:
        if self._refused:
            raise RuntimeError("a refused statement ends its transaction; use a savepoint to go on after it")

    def _prepare(self, statement: Statement, params: Params) -> tuple[str, list[Any], bool]:
        self._check()
        self._database.round_trips += 1
        compiled = self._database.compile(statement, params)
        return compiled.text, compiled.values(params), compiled.tells_time

    async def _command(self, text: str) -> None:
        self._database.round_trips += 1
        await self._connection.execute(text)

    def _refuse(self, error: asyncpg.PostgresError) -> None:
        self._refused = True
        _raise_known(error)


class PostgresDatabase:
    """A pool of connections to one Postgres database, the primary."""

    dialect = "postgresql"

    def __init__(self, url: str, *, pool_size: int, retry_for: int, statement_timeout: int) -> None:
        #: microseconds that tests add to the database's clock
        self.clock_offset = 0
        #: statements sent so far, with those that begin and end transactions
        self.round_trips = 0
        self.compile: Compiler = postgres_compiler()
        self._url = url
        self._pool_size = pool_size
        self._retry_for = retry_for
        self._statement_timeout = statement_timeout
        self._pool: Any = None
        self._gatherer = Gatherer(self._fetch)

    async def open(self) -> None:
        """Make the pool and try it; StorageUnavailable says why the server cannot be reached."""
        limit = str(self._statement_timeout // 1000)
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._pool_size,
            max_queries=1 << 62,
            reset=_leave_as_it_is,
            timeout=_CONNECT_WITHIN,
            # For a network that swallows packets; the server's own limit comes first.
            command_timeout=self._statement_timeout / 1_000_000 + _TIDY_WITHIN,
            statement_cache_size=1000,
            max_cached_statement_lifetime=0,
            server_settings={
                "application_name": "tenure",
                # Look-ups by key, a few hundred texts: one plan each. Left to itself Postgres plans those with arrays
                # anew every time, which costs it three times what running them does.
                "plan_cache_mode": "force_generic_plan",
                "statement_timeout": limit,
                "idle_in_transaction_session_timeout": limit,
            },
        )
        try:
            await self.ping()
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            await self.close()
            raise StorageUnavailable(f"cannot use the database: {error}") from error
        except StorageUnavailable as error:
            await self.close()
            raise StorageUnavailable(f"cannot reach the database: {error.__cause__}") from error

    async def one(self, statement: Statement, params: Params = _NO_PARAMS) -> Row | None:
        compiled = self.compile(statement, params)
        values = compiled.values(params)
        row: Row | None
        if compiled.gathers:
            row = await self._gatherer.one(compiled, values)
        else:
            row = await self._read(lambda connection: connection.fetchrow(compiled.text, *values))
        if row is not None and compiled.tells_time and self.clock_offset:
            return shift_clock([row], self.clock_offset)[0]
        return row

    async def all(self, statement: Statement, params: Params = _NO_PARAMS) -> Sequence[Row]:
        compiled = self.compile(statement, params)
        values = compiled.values(params)
        found: Sequence[Row] = await self._read(lambda connection: connection.fetch(compiled.text, *values))
        return shift_clock(found, self.clock_offset) if compiled.tells_time and self.clock_offset else found

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        pool = self._open_pool()
        backoff = Backoff(self._retry_for)
        doubts = 0
        while True:
            connection: Any = None
            committing = committed = gone = False
            try:
                connection = await self._acquire(pool)
                self.round_trips += 2
                await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                session = PostgresSession(self, connection, doubts)
                value = await work(session)
                session.finish()
                committing = True
                await _commit(connection)
                committed = True
                return value
            except _ERRORS as error:
                last, gone = error, self._may_retry(error, connection)
                doubts += committing and gone
            finally:
                if connection is not None:
                    if committed:
                        await pool.release(connection)
                    else:
                        await asyncio.shield(_roll_back(pool, connection, gone=gone))
            await backoff.wait(last)

    async def ping(self) -> None:
        await self.one(_ONE)

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(_TIDY_WITHIN):
                await pool.close()
        except _ERRORS:
            pool.terminate()

    async def _fetch(self, text: str, values: Sequence[Any]) -> Sequence[Row]:
        found: Sequence[Row] = await self._read(lambda connection: connection.fetch(text, *values))
        return found

    async def _read(self, fetch: Callable[[Any], Awaitable[Any]]) -> Any:
        pool = self._open_pool()
        backoff = None
        while True:
            connection: Any = None
            try:
                connection = await self._acquire(pool)
                self.round_trips += 1
                return await fetch(connection)
            except _ERRORS as error:
                last = error
                if self._may_retry(error, connection) and connection is not None:
                    _discard(connection)
            finally:
                if connection is not None:
                    await pool.release(connection, timeout=_TIDY_WITHIN)
            backoff = backoff or Backoff(self._retry_for)
            await backoff.wait(last)

    def _open_pool(self) -> Any:
        if self._pool is None:
            raise RuntimeError("the database is closed")
        return self._pool

    async def _acquire(self, pool: Any) -> Any:
        try:
            async with asyncio.timeout(self._retry_for / 1_000_000) as wait:
                return await pool.acquire()
        except TimeoutError as error:
            if not wait.expired():
                raise
            raise StorageUnavailable("all connections to the database are busy; try again in a moment") from error

    def _may_retry(self, error: BaseException, connection: Any) -> bool:
        """Whether the connection is gone; raises `error`, or what it means, where another try cannot help."""
        if _is_gone(error, connection):
            return True
        if _state(error) in _AGAIN or _is_stale_plan(error):
            return False
        _raise_known(error)
        raise error


async def _commit(connection: Any) -> None:
    status = await connection.execute("COMMIT")
    if status != "COMMIT":
        raise RuntimeError("Postgres rolled the transaction back at COMMIT")


async def _roll_back(pool: Any, connection: Any, *, gone: bool) -> None:
    """Return a connection with no transaction open, whatever happened on it."""
    try:
        if not gone and not _is_closed(connection):
            # Waits for a cancelled statement to end first.
            await connection.execute("ROLLBACK", timeout=_TIDY_WITHIN)
    except _ERRORS:
        gone = True
    if gone:
        _discard(connection)
    await pool.release(connection, timeout=_TIDY_WITHIN)
