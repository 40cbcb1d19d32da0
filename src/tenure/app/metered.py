"""A database whose calls are timed."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tenure.core.errors import TenureError
from tenure.obs.metrics import Metrics
from tenure.storage.meta.database import Database, Row, Session
from tenure.storage.meta.statements import Params, Statement

T = TypeVar("T")
_NO_PARAMS: Params = {}


class MeteredDatabase:
    """Passes everything on and tells `metrics` how long it took. Fulfils Database."""

    def __init__(self, inner: Database, metrics: Metrics) -> None:
        self._inner = inner
        self._count = metrics.database
        self.dialect = inner.dialect

    async def one(self, statement: Statement, params: Params = _NO_PARAMS) -> Row | None:
        return await self._timed("one", self._inner.one(statement, params))

    async def all(self, statement: Statement, params: Params = _NO_PARAMS) -> Sequence[Row]:
        return await self._timed("all", self._inner.all(statement, params))

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        return await self._timed("transact", self._inner.transact(work))

    async def ping(self) -> None:
        await self._timed("ping", self._inner.ping())

    async def close(self) -> None:
        await self._inner.close()

    async def _timed(self, operation: str, call: Awaitable[T]) -> T:
        started = time.perf_counter()
        outcome = "failed"
        try:
            answer = await call
            outcome = "ok"
            return answer
        except TenureError as error:
            # A refusal by a rule of ours is the database at work, not the database failing.
            outcome = "failed" if error.status >= 500 else "refused"
            raise
        finally:
            self._count(operation, time.perf_counter() - started, outcome)
