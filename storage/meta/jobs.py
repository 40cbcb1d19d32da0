"""Background work as rows: any replica takes a due job under a lease, none must.

A job asked for again while it runs has its `seq` raised, so finishing the old run does not lose the new wish.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.clock import HOUR, SECOND
from tenure.storage.meta.database import Database, Session
from tenure.storage.meta.records import jobs
from tenure.storage.meta.statements import any_of, insert

MAX_BACK_OFF = 6 * HOUR

_new = insert(jobs)
_ENQUEUE = _new.on_conflict_do_update(
    index_elements=["kind", "key"],
    set_={
        "payload": _new.excluded.payload,
        "seq": jobs.c.seq + 1,
        "attempts": 0,
        "due_at": sa.case((jobs.c.due_at < _new.excluded.due_at, jobs.c.due_at), else_=_new.excluded.due_at),
    },
)
_ENSURE = _new.on_conflict_do_nothing(index_elements=["kind", "key"])
_FREE = sa.or_(jobs.c.lease_until.is_(None), jobs.c.lease_until < bindparam("now"))
_DUE = (
    sa.select(jobs.c.id)
    .where(jobs.c.due_at <= bindparam("now"), _FREE, any_of(jobs.c.kind, "kinds"))
    .order_by(jobs.c.due_at, jobs.c.id)
    .limit(bindparam("n"))
    .with_for_update(skip_locked=True)
)
_TAKE = (
    sa.update(jobs)
    .values(owner=bindparam("by"), lease_until=bindparam("until"), attempts=jobs.c.attempts + 1)
    .where(any_of(jobs.c.id, "ids"))
    .returning(jobs.c.id, jobs.c.kind, jobs.c.key, jobs.c.payload, jobs.c.attempts, jobs.c.seq, jobs.c.progress)
)
_MINE = sa.and_(jobs.c.id == bindparam("job"), jobs.c.owner == bindparam("me"))
_RENEW = sa.update(jobs).values(lease_until=bindparam("until"), progress=bindparam("so_far")).where(_MINE)
_DONE = sa.delete(jobs).where(_MINE, jobs.c.seq == bindparam("seen"))
_AGAIN = (
    sa.update(jobs)
    .values(due_at=bindparam("due"), owner=None, lease_until=None, attempts=0, last_error=None, progress=None)
    .where(_MINE)
)
_FAILED = (
    sa.update(jobs)
    .values(due_at=bindparam("due"), owner=None, lease_until=None, last_error=bindparam("error"))
    .where(_MINE)
)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as taken. `seq` tells whether it was asked for again meanwhile."""

    id: int
    kind: str
    key: str
    payload: Mapping[str, Any]
    attempts: int
    seq: int
    owner: str
    progress: str | None


async def enqueue(session: Session, kind: str, key: str, *, payload: Mapping[str, Any], due_at: int) -> None:
    """Ask for a job in the caller's transaction. Asking twice for (kind, key) is asking once, at the earlier time."""
    await session.run(_ENQUEUE, await _row(session, kind, key, payload, due_at))


async def ensure_job(session: Session, kind: str, key: str, *, payload: Mapping[str, Any], due_at: int) -> None:
    """As enqueue, but leaves a job that is there as it is: for recurring ones."""
    await session.run(_ENSURE, await _row(session, kind, key, payload, due_at))


async def take_jobs(db: Database, owner: str, *, kinds: Sequence[str], limit: int, lease: int) -> list[Job]:
    """Due jobs, now leased to `owner` for `lease`; rows others are taking at this moment are skipped."""

    async def work(session: Session) -> list[Job]:
        now = await session.now()
        due = await session.all(_DUE, {"now": now, "kinds": list(kinds), "n": limit})
        if not due:
            return []
        taken = await session.all(_TAKE, {"ids": [row["id"] for row in due], "by": owner, "until": now + lease})
        return [
            Job(
                row["id"],
                row["kind"],
                row["key"],
                json.loads(row["payload"]),
                row["attempts"],
                row["seq"],
                owner,
                row["progress"],
            )
            for row in taken
        ]

    return await db.transact(work)


async def renew_job(db: Database, job: Job, *, lease: int, progress: str | None = None) -> bool:
    """Keep a job for another `lease`. False: somebody else has it now, stop."""

    async def work(session: Session) -> bool:
        until = await session.now() + lease
        return await session.run(_RENEW, {"job": job.id, "me": job.owner, "until": until, "so_far": progress}) == 1

    return await db.transact(work)


async def finish_job(db: Database, job: Job, *, next_due: int | None = None) -> None:
    """Done. With `next_due`, or when it was asked for again meanwhile, the row stays for another run."""

    async def work(session: Session) -> None:
        mine = {"job": job.id, "me": job.owner}
        if next_due is None and await session.run(_DONE, {**mine, "seen": job.seq}):
            return
        await session.run(_AGAIN, {**mine, "due": await session.now() if next_due is None else next_due})

    await db.transact(work)


async def fail_job(db: Database, job: Job, error: str) -> None:
    """Try again later: 2 s, 4 s, 8 s ... 6 h at most."""

    async def work(session: Session) -> None:
        delay = min(SECOND << min(job.attempts, 20), MAX_BACK_OFF)
        due = await session.now() + delay
        await session.run(_FAILED, {"job": job.id, "me": job.owner, "due": due, "error": error[:2000]})

    await db.transact(work)


async def _row(session: Session, kind: str, key: str, payload: Mapping[str, Any], due_at: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "key": key,
        "payload": json.dumps(dict(payload), separators=(",", ":")),
        "due_at": due_at,
        "created_at": await session.now(),
    }
