"""What to do when a constraint refuses: look again.

A foreign key that refuses inside one of our own transactions means that the world changed between our look
and our write (a child was trashed, a link swept). The work is done again on fresh facts, a few times.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from tenure.core.errors import StorageUnavailable
from tenure.storage.meta.database import ConstraintRefused, Database, Session

T = TypeVar("T")

_log = structlog.get_logger("tenure.meta")

TRIES = 5


async def retried(db: Database, work: Callable[[Session], Awaitable[T]]) -> T:
    """`db.transact(work)`, again when a constraint refuses; StorageUnavailable when it keeps refusing."""
    for attempt in range(TRIES):
        try:
            return await db.transact(work)
        except ConstraintRefused as refused:
            last = refused
            await asyncio.sleep(0.01 * attempt)
    # Five refusals in a row are no race but a mistake of ours: the operator must be able to see which.
    _log.error("a constraint keeps refusing", kind=last.kind, constraint=last.constraint, refusal=str(last))
    raise StorageUnavailable("others keep changing what this request needs; try again in a moment") from last
