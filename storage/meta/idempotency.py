"""Answers remembered under a client's Idempotency-Key, so that asking twice is doing once.

A request first reserves its key in a transaction of its own (`status` NULL: it is running), and stores its
answer in the transaction of the change itself. A reservation that nobody kept, because its process died, may
be taken over when it has run out; the one it was taken from then cannot commit any more.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.clock import DAY, MINUTE
from tenure.core.errors import Conflict, IdempotencyMismatch
from tenure.storage.meta.database import Database, Session
from tenure.storage.meta.records import idempotency_keys
from tenure.storage.meta.statements import any_of, insert

#: how long an answer is given again
REMEMBER_FOR = DAY
#: how long a running request keeps its key before another may take it over
RUN_FOR = 5 * MINUTE

_ONE = sa.and_(idempotency_keys.c.actor == bindparam("who"), idempotency_keys.c.key == bindparam("wanted"))
_RESERVE = insert(idempotency_keys).on_conflict_do_nothing(index_elements=["actor", "key"])
_LOCK = sa.select(idempotency_keys).where(_ONE).with_for_update()
_TAKE_OVER = (
    sa.update(idempotency_keys)
    .values(
        fingerprint=bindparam("print_"),
        status=None,
        headers=None,
        body=None,
        created_at=bindparam("now"),
        expires_at=bindparam("until"),
    )
    .where(_ONE)
)
_MINE = sa.and_(_ONE, idempotency_keys.c.status.is_(None), idempotency_keys.c.created_at == bindparam("since"))
_KEEP = (
    sa.update(idempotency_keys)
    .values(
        status=bindparam("code"), headers=bindparam("lines"), body=bindparam("content"), expires_at=bindparam("until")
    )
    .where(_MINE)
)
_RELEASE = sa.delete(idempotency_keys).where(_MINE)
_EXPIRED = (
    sa.select(idempotency_keys.c.actor, idempotency_keys.c.key)
    .where(idempotency_keys.c.expires_at < bindparam("now"))
    .order_by(idempotency_keys.c.expires_at)
    .limit(bindparam("n"))
    .with_for_update(skip_locked=True)
)
_FORGET = sa.delete(idempotency_keys).where(
    idempotency_keys.c.actor == bindparam("who"),
    any_of(idempotency_keys.c.key, "keys"),
    idempotency_keys.c.expires_at < bindparam("now"),
)


@dataclass(frozen=True, slots=True)
class Remembered:
    """An answer as it was given the first time."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reservation:
    """A key that is ours until `store_answer` or `release_key`. `since` tells our claim from a later one."""

    actor: str
    key: str
    since: int


async def reserve_key(db: Database, actor: str, key: str, fingerprint: bytes) -> Reservation | Remembered:
    """Take a key for a request, or give the answer it had.

    IdempotencyMismatch (422) when another request used the key, Conflict (409) while the same one runs.
    """

    async def work(session: Session) -> Reservation | Remembered:
        now = await session.now()
        mine = {"actor": actor, "key": key, "fingerprint": fingerprint, "created_at": now, "expires_at": now + RUN_FOR}
        if await session.run(_RESERVE, mine):
            return Reservation(actor, key, now)
        row = await session.one(_LOCK, {"who": actor, "wanted": key})
        if row is not None and row["expires_at"] > now:
            if bytes(row["fingerprint"]) != fingerprint:
                raise IdempotencyMismatch()
            if row["status"] is None:
                raise Conflict("the first request with this Idempotency-Key is still running; ask again in a moment")
            return Remembered(row["status"], json.loads(row["headers"]), bytes(row["body"]))
        taken = {"who": actor, "wanted": key, "print_": fingerprint, "now": now, "until": now + RUN_FOR}
        if row is None or not await session.run(_TAKE_OVER, taken):
            # It was released between our two statements.
            raise Conflict("another request with this Idempotency-Key has just failed; ask again in a moment")
        return Reservation(actor, key, now)

    return await db.transact(work)


async def store_answer(db: Database, reservation: Reservation, answer: Remembered) -> None:
    """Keep the answer; called inside the transaction of the change. Conflict when the key was taken over."""

    async def work(session: Session) -> None:
        kept = await session.run(
            _KEEP,
            {
                **_mine(reservation),
                "code": answer.status,
                "lines": json.dumps(dict(answer.headers)),
                "content": answer.body,
                "until": await session.now() + REMEMBER_FOR,
            },
        )
        if not kept:
            raise Conflict("this request took so long that its Idempotency-Key was given to another; nothing was done")

    await db.transact(work)


async def release_key(db: Database, reservation: Reservation) -> None:
    """Give a key back after a refusal: the next try is answered afresh."""

    async def work(session: Session) -> None:
        await session.run(_RELEASE, _mine(reservation))

    await db.transact(work)


async def forget_expired_keys(db: Database, *, limit: int) -> int:
    """Remove up to `limit` keys that have run out; how many."""

    async def work(session: Session) -> int:
        now = await session.now()
        by_actor: dict[str, list[str]] = {}
        for row in await session.all(_EXPIRED, {"now": now, "n": limit}):
            by_actor.setdefault(row["actor"], []).append(row["key"])
        gone = 0
        for actor, keys in by_actor.items():
            gone += await session.run(_FORGET, {"who": actor, "keys": keys, "now": now})
        return gone

    return await db.transact(work)


def _mine(reservation: Reservation) -> dict[str, object]:
    return {"who": reservation.actor, "wanted": reservation.key, "since": reservation.since}
