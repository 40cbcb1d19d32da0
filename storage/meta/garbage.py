"""The last steps of bytes: condemned keys are claimed, and closed when their bytes are verified as gone.

DELETING (4) is irrevocable and keys are never used twice, so claims here only spread the work: two replicas
that delete one key at once do no harm. Nothing here touches an object in another state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.clock import HOUR, SECOND
from tenure.storage.meta.database import Database, Session
from tenure.storage.meta.refusals import retried
from tenure.storage.meta.statements import any_of
from tenure.storage.meta.tables import objects, uploads
from tenure.storage.meta.uploads import discard_upload

MAX_BACK_OFF = 6 * HOUR
#: an object of a vanished session is left alone for this long after its deadline
ORPHAN_MARGIN = 24 * HOUR

# Literals, not parameters: the planner must see that the partial index objects_work covers them.
_DELETING = sa.text("objects.state IN (1,3,4) AND objects.state = 4")
_UPLOADING = sa.text("objects.state IN (1,3,4) AND objects.state = 1")
_DUE = (
    sa.select(objects.c.id)
    .where(_DELETING, objects.c.next_try <= bindparam("now"))
    .order_by(objects.c.next_try, objects.c.id)
    .limit(bindparam("n"))
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    sa.update(objects)
    .values(next_try=bindparam("until"), attempts=objects.c.attempts + 1)
    .where(any_of(objects.c.id, "ids"), objects.c.state == 4)
    .returning(
        objects.c.id, objects.c.key, objects.c.size, objects.c.multipart_id, objects.c.version_id, objects.c.attempts
    )
)
_CLOSE = (
    sa.update(objects)
    .values(state=5, next_try=None, last_error=None, changed_at=bindparam("now"))
    .where(any_of(objects.c.id, "ids"), objects.c.state == 4)
)
_POSTPONE = (
    sa.update(objects)
    .values(next_try=bindparam("due"), last_error=bindparam("error"))
    .where(objects.c.id == bindparam("object"), objects.c.state == 4)
)
_ABANDONED = (
    sa.select(uploads.c.id, uploads.c.object_id, uploads.c.tail_object_id)
    .where(
        uploads.c.deadline < bindparam("now"),
        sa.or_(uploads.c.owner.is_(None), uploads.c.owner_until < bindparam("now")),
    )
    .order_by(uploads.c.deadline)
    .limit(bindparam("n"))
    .with_for_update(skip_locked=True)
)
_ORPHANED = (
    sa.select(objects.c.id)
    .where(
        _UPLOADING,
        objects.c.next_try < bindparam("before"),
        objects.c.write_deadline < bindparam("before"),
        ~sa.exists().where(uploads.c.object_id == objects.c.id),
        ~sa.exists().where(uploads.c.tail_object_id == objects.c.id),
    )
    .order_by(objects.c.next_try)
    .limit(bindparam("n"))
    .with_for_update(skip_locked=True)
)
_CONDEMN_ORPHANS = (
    sa.update(objects)
    .values(state=4, next_try=bindparam("now"), changed_at=bindparam("now"))
    .where(any_of(objects.c.id, "ids"), objects.c.state == 1)
)


@dataclass(frozen=True, slots=True)
class Condemned:
    """An object in DELETING, claimed. `size` is None where nobody finished writing it."""

    id: int
    key: str
    size: int | None
    multipart_id: str | None
    version_id: str | None
    attempts: int


async def claim_condemned(db: Database, *, limit: int, claim_for: int) -> list[Condemned]:
    """Condemned objects that are due, oldest first; nobody else is given them for `claim_for`."""

    async def work(session: Session) -> list[Condemned]:
        now = await session.now()
        due = [row["id"] for row in await session.all(_DUE, {"now": now, "n": limit})]
        if not due:
            return []
        rows = await session.all(_CLAIM, {"ids": due, "until": now + claim_for})
        return [
            Condemned(row["id"], row["key"], row["size"], row["multipart_id"], row["version_id"], row["attempts"])
            for row in rows
        ]

    return await db.transact(work)


async def close_condemned(db: Database, ids: Sequence[int]) -> int:
    """DELETING -> GONE for objects whose bytes were verified as absent; how many it was."""

    async def work(session: Session) -> int:
        return await session.run(_CLOSE, {"ids": list(ids), "now": await session.now()})

    return await db.transact(work) if ids else 0


async def postpone_condemned(db: Database, condemned: Condemned, error: str) -> None:
    """Try again later: 2 s, 4 s, 8 s ... 6 h at most, so that one stubborn key never starves the rest."""

    async def work(session: Session) -> None:
        delay = min(SECOND << min(condemned.attempts, 20), MAX_BACK_OFF)
        due = await session.now() + delay
        await session.run(_POSTPONE, {"object": condemned.id, "due": due, "error": error[:2000]})

    await db.transact(work)


async def reap_uploads(db: Database, *, limit: int) -> int:
    """End up to `limit` sessions past their deadline that nobody is writing to; how many.

    The session row goes first, in the same transaction: a close that comes at the same time waits for this
    row, then finds no session and commits nothing; one that came earlier took the row, and we skip it.
    """

    async def work(session: Session) -> int:
        rows = await session.all(_ABANDONED, {"now": await session.now(), "n": limit})
        for row in rows:
            await discard_upload(session, row)
        return len(rows)

    return await db.transact(work)


async def reap_orphans(db: Database, *, limit: int) -> int:
    """Condemn up to `limit` keys that were journalled but belong to no session any more; how many.

    They are left by a process that died between journalling a tail's key and saving its progress. The
    foreign keys of `uploads` refuse this for a key that a session took meanwhile.
    """

    async def work(session: Session) -> int:
        now = await session.now()
        rows = await session.all(_ORPHANED, {"before": now - ORPHAN_MARGIN, "n": limit})
        if not rows:
            return 0
        return await session.run(_CONDEMN_ORPHANS, {"ids": [row["id"] for row in rows], "now": now})

    return await retried(db, work)
