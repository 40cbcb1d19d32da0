"""How long a statement waits for a database that went away or is busy."""

import asyncio
import random
import time

from tenure.core.errors import StorageUnavailable

_FIRST = 0.01
_LONGEST = 1.0


class Backoff:
    """Pauses between tries: none before the second, then 10 ms doubling up to 1 s, each shortened at random.

    `retry_for` is in microseconds and counts from the first failure.
    """

    def __init__(self, retry_for: int) -> None:
        self._retry_for = retry_for / 1_000_000
        self._deadline: float | None = None
        self._pause = 0.0

    async def wait(self, error: BaseException) -> None:
        """Sleep before the next try; StorageUnavailable, caused by `error`, when the time is used up."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._retry_for
        if now + self._pause >= self._deadline:
            raise StorageUnavailable("the database did not answer in time; try again in a moment") from error
        await asyncio.sleep(self._pause * random.uniform(0.5, 1))
        self._pause = min(max(self._pause * 2, _FIRST), _LONGEST)
