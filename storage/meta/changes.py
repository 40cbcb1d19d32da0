"""One transaction around a whole change, whoever's functions it is made of.

The functions of this package open their own transactions. `change` hands them a Database that stands inside
one transaction already, so that a change, the answer remembered for it and the condition it was asked under
are true together or not at all, and so that a change can be tried and taken back.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tenure.storage.meta.database import ConstraintRefused, Database, Row, Session
from tenure.storage.meta.refusals import retried
from tenure.storage.meta.repositories import lock_repository
from tenure.storage.meta.statements import Params, Statement

T = TypeVar("T")

_NO_PARAMS: Params = {}


class _LookAgain(Exception):
    """A constraint refused inside: the whole must be done again, so nobody inside may catch and repeat it."""

    def __init__(self, refused: ConstraintRefused) -> None:
        super().__init__(str(refused))
        self.refused = refused


class _TakenBack(Exception):
    """Carries the value of a change that is rolled back on purpose."""

    def __init__(self, value: object) -> None:
        super().__init__("taken back")
        self.value = value


class Within:
    """A Database whose every statement runs in a transaction that is open already."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.dialect = session.dialect

    async def one(self, statement: Statement, params: Params = _NO_PARAMS) -> Row | None:
        return await self._session.one(statement, params)

    async def all(self, statement: Statement, params: Params = _NO_PARAMS) -> Sequence[Row]:
        return await self._session.all(statement, params)

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        try:
            return await work(self._session)
        except ConstraintRefused as refused:
            raise _LookAgain(refused) from refused

    async def ping(self) -> None:
        await self._session.now()

    async def close(self) -> None:
        """Nothing to close: the transaction ends with the function it was opened for."""


async def change(
    db: Database, work: Callable[[Database], Awaitable[T]], *, keep: bool = True, alone: str | None = None
) -> T:
    """Run `work` on a Database inside one transaction and commit; its value.

    With `keep` False everything is rolled back and only the value remains: a rehearsal under the same locks
    and constraints as the real thing. `alone` names a repository that nobody else may change meanwhile, so
    that a condition read inside stays true (NameUnknown where there is none). `work` may run more than once
    and awaits nothing but the database.
    """

    async def inside(session: Session) -> T:
        try:
            if alone is not None:
                await lock_repository(session, alone, alone=True)
            value = await work(Within(session))
        except _LookAgain as again:
            raise again.refused from again
        if not keep:
            raise _TakenBack(value)
        return value

    try:
        return await retried(db, inside)
    except _TakenBack as taken_back:
        return taken_back.value  # type: ignore[return-value]
