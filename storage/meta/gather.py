"""Questions of the hot path that wait at the same moment go to Postgres as one statement.

A look-up by key costs the client four times what the answer does: a connection is taken and given back, a message
goes each way. Statements marked `gather` (blobs, manifests) are asked for many at once through LATERAL, each with its
own index scan. Nothing is answered from memory: every question is asked after it was put, so a reader sees all that
was committed before it came. While a few statements are under way, the next questions gather.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tenure.core.errors import StorageUnavailable
from tenure.storage.meta.database import Row
from tenure.storage.meta.statements import Compiled

#: (text, values) -> the rows
Read = Callable[[str, Sequence[Any]], Awaitable[Sequence[Row]]]

#: statements of one kind under way at once; what comes meanwhile waits for one of them to end
_UNDER_WAY = 2
#: questions in one statement: a manifest may have 4 MiB
_AT_ONCE = 16
#: seconds that questions wait for a statement that does not end before they go without it
_OVERDUE = 0.05
_PLACEHOLDER = re.compile(r"\$(\d+)::([A-Z]+)")


def gathered_text(text: str) -> str:
    """The same question for each element of its parameters, which become arrays; `gathered_n` tells them apart.

    LIMIT keeps the planner from joining the whole of a table to the arrays: a key is looked up for each.
    """
    types = dict(sorted({int(number): kind for number, kind in _PLACEHOLDER.findall(text)}.items()))
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in types.items())
    names = ", ".join(f"p{number}" for number in types)
    inner = _PLACEHOLDER.sub(r"gathered.p\1", text)
    return (
        f"SELECT found.*, gathered.n AS gathered_n FROM unnest({arrays}) WITH ORDINALITY AS gathered({names}, n)"
        f" CROSS JOIN LATERAL (SELECT * FROM ({inner}) AS one LIMIT 1) AS found"
    )


class _Kind:
    """One statement and what waits for it."""

    __slots__ = ("compiled", "overdue", "text", "under_way", "waiting", "will_send")

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled
        self.text = gathered_text(compiled.text)
        self.waiting: list[tuple[Sequence[Any], asyncio.Future[Row | None]]] = []
        self.under_way = 0
        self.will_send = False
        self.overdue: asyncio.TimerHandle | None = None


class Gatherer:
    """Asks for single rows. Use it in one event loop."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._kinds: dict[int, _Kind] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def one(self, compiled: Compiled, values: Sequence[Any]) -> Row | None:
        """The first row of a statement with these values, or None. Raises what reading it alone would raise."""
        loop = asyncio.get_running_loop()
        kind = self._kinds.get(id(compiled))
        if kind is None:
            kind = self._kinds[id(compiled)] = _Kind(compiled)
        future: asyncio.Future[Row | None] = loop.create_future()
        kind.waiting.append((values, future))
        if kind.under_way < _UNDER_WAY:
            self._send_soon(kind)
        elif kind.overdue is None:
            kind.overdue = loop.call_later(_OVERDUE, self._send_overdue, kind)
        return await future

    def _send_soon(self, kind: _Kind) -> None:
        if not kind.will_send:
            kind.will_send = True
            asyncio.get_running_loop().call_soon(self._send, kind)

    def _send_overdue(self, kind: _Kind) -> None:
        kind.overdue = None
        self._send(kind)

    def _send(self, kind: _Kind) -> None:
        kind.will_send = False
        batch = [(values, future) for values, future in kind.waiting[:_AT_ONCE] if not future.done()]
        del kind.waiting[:_AT_ONCE]
        if batch:
            kind.under_way += 1
            task = asyncio.get_running_loop().create_task(self._ask(kind, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if kind.waiting and kind.under_way < _UNDER_WAY:
            self._send_soon(kind)

    async def _ask(self, kind: _Kind, batch: list[tuple[Sequence[Any], "asyncio.Future[Row | None]"]]) -> None:
        try:
            if len(batch) == 1:
                await self._ask_alone(kind, *batch[0])
            else:
                await self._ask_together(kind, batch)
        finally:
            for _, future in batch:
                future.cancel()  # those that have no answer: the loop is ending
            kind.under_way -= 1
            if kind.waiting:
                self._send_soon(kind)

    async def _ask_together(self, kind: _Kind, batch: list[tuple[Sequence[Any], "asyncio.Future[Row | None]"]]) -> None:
        try:
            rows = await self._read(
                kind.text, [list(column) for column in zip(*(values for values, _ in batch), strict=True)]
            )
        except StorageUnavailable as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        except Exception:
            # Perhaps the fault of one: each is asked by itself and hears its own.
            for values, future in batch:
                await self._ask_alone(kind, values, future)
            return
        found = {row["gathered_n"]: row for row in rows}
        for number, (_, future) in enumerate(batch, 1):
            if not future.done():
                future.set_result(found.get(number))

    async def _ask_alone(self, kind: _Kind, values: Sequence[Any], future: "asyncio.Future[Row | None]") -> None:
        try:
            rows = await self._read(kind.compiled.text, values)
        except Exception as error:
            if not future.done():
                future.set_exception(error)
            return
        if not future.done():
            future.set_result(rows[0] if rows else None)
