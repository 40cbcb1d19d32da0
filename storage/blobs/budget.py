"""One budget of memory for everything that moves bytes, so that no number of clients can use up the process.

Whoever needs memory waits in line (first come, first served) until it is there; a writer that waits does not
read from its client, which holds the client back. The budget is divided into three shares so that waiting in
line can never become waiting in a circle:

    first   the beginning of each object, 256 KiB; its holder may wait for `parts`, nothing else
    parts   parts of an object being filled or sent; its holder needs no more memory to finish
    reads   pieces on their way out; its holder needs no more memory to finish
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

#: What the beginning of an object may hold before it needs memory for a whole part, bytes.
FIRST = 256 << 10


class Share:
    """A number of bytes, lent in order of asking. Belongs to one event loop."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError("a share of memory holds at least one byte")
        self.limit = limit
        self.held = 0
        self.peak = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        #: each gives back a loan that its holder keeps without need; called before anybody has to wait
        self.reclaim: set[Callable[[], None]] = set()

    @property
    def waiting(self) -> int:
        """How many are standing in line."""
        return len(self._waiting)

    def try_take(self, size: int) -> "Loan | None":
        """Borrow at once, or None when that would mean waiting or passing others in line."""
        size = min(size, self.limit)
        if self._waiting or self.held + size > self.limit:
            return None
        self._lend(size)
        return Loan(self, size)

    async def take(self, size: int) -> "Loan":
        """Borrow `size` bytes; a wish beyond the whole share is cut to it, or it would wait for ever."""
        loan = self.try_take(size)
        if loan is None and self.reclaim:
            for give_back in tuple(self.reclaim):
                give_back()
            loan = self.try_take(size)
        if loan is not None:
            return loan
        size = min(size, self.limit)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._give_back(size)  # lent in the same turn of the loop in which the wait was cancelled
            else:
                with suppress(ValueError):
                    self._waiting.remove(entry)
                self._serve()  # those behind may fit where this one did not
            raise
        return Loan(self, size)

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Borrow for the length of a block."""
        loan = await self.take(size)
        try:
            yield
        finally:
            loan.release()

    def _lend(self, size: int) -> None:
        self.held += size
        self.peak = max(self.peak, self.held)

    def _give_back(self, size: int) -> None:
        self.held -= size
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.cancelled():
                if self.held + size > self.limit:
                    return
                self._lend(size)
                turn.set_result(None)
            self._waiting.popleft()


class Loan:
    """Borrowed bytes. `release` may be called more than once."""

    __slots__ = ("_share", "size")

    def __init__(self, share: Share, size: int) -> None:
        self._share = share
        self.size = size

    def release(self) -> None:
        size, self.size = self.size, 0
        if size:
            self._share._give_back(size)


class MemoryBudget:
    """The three shares of `blobs.memory_budget` (bytes)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.first = Share(max(1, limit // 16))
        self.reads = Share(max(1, limit * 3 // 16))
        self.parts = Share(max(1, limit - self.first.limit - self.reads.limit))

    @property
    def held(self) -> int:
        return self.first.held + self.parts.held + self.reads.held

    @property
    def peak(self) -> int:
        """No more than this was ever lent at once; never above the limit."""
        return self.first.peak + self.parts.peak + self.reads.peak
