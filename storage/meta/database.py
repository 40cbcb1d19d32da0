"""The one way to the database: what the executors for SQLite and Postgres promise.

Reads outside a transaction see what is committed, on the primary. `transact` runs a function of
`storage/meta` that owns an invariant; the function gets a Session and awaits nothing but its statements (on
SQLite anything else is refused: no I/O inside a transaction, by construction). It may run more than once:
serialisation failures, deadlocks and lost connections are retried, so it must not change anything outside.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from tenure.storage.meta.statements import Params, Statement

T = TypeVar("T")


class Row(Protocol):
    """A row as the driver made it: by column name or position."""

    def __getitem__(self, key: Any) -> Any: ...


class ConstraintRefused(Exception):
    """A constraint refused a statement: `kind` is foreign_key, unique, check or not_null."""

    def __init__(self, kind: str, message: str, constraint: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.constraint = constraint


class Session(Protocol):
    """Statements inside one transaction."""

    #: `sqlite` or `postgresql`
    dialect: str
    #: 0 on the first try; more when a try may have been committed without our knowing (a lost COMMIT)
    attempt: int

    async def now(self) -> int:
        """The database's clock in microseconds, read once a transaction, plus the test offset."""

    async def one(self, statement: Statement, params: Params = ...) -> Row | None:
        """The first row, or None."""

    async def all(self, statement: Statement, params: Params = ...) -> Sequence[Row]: ...

    async def run(self, statement: Statement, params: Params = ...) -> int:
        """Run a statement that returns no rows; the number of rows it changed."""

    async def run_many(self, statement: Statement, params: Sequence[Params]) -> None:
        """The same statement for each set of parameters (same keys in each)."""

    async def savepoint(self, work: "Callable[[Session], Awaitable[T]]") -> T:
        """Run `work` under a savepoint; ConstraintRefused rolls back to it and is raised."""


class Database(Protocol):
    """An open database. Close it once."""

    dialect: str

    async def one(self, statement: Statement, params: Params = ...) -> Row | None: ...

    async def all(self, statement: Statement, params: Params = ...) -> Sequence[Row]: ...

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Run `work` in one transaction and commit; its value. See the module's text for what it may do.

        Raises ConstraintRefused, TenureError from `work`, StorageUnavailable when the database stayed away.
        """

    async def ping(self) -> None:
        """One round trip, for readiness."""

    async def close(self) -> None: ...
