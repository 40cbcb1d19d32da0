"""Upload sessions: who may write, what is safe so far, and the commit that makes a blob of it.

One writer at a time holds a session by a claim (`owner`, `version`); every later step of that writer names
both, so a writer that lost its claim changes nothing more. Part numbers and keys are handed out here and
never twice (a late part of a stalled writer can then replace nothing).
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.errors import UploadBusy, UploadUnknown
from tenure.core.ids import new_object_key, new_session
from tenure.core.origin import Origin
from tenure.storage.meta.database import Database, Row, Session
from tenure.storage.meta.repositories import lock_repository
from tenure.storage.meta.statements import insert
from tenure.storage.meta.tables import objects, repos, upload_parts, uploads

_tail = objects.alias("tail_object")
_NEW_OBJECT = sa.insert(objects).returning(objects.c.id)
_NEW_UPLOAD = sa.insert(uploads).returning(uploads.c.id)
_GET = (
    sa.select(
        uploads,
        repos.c.name.label("repository"),
        objects.c.key,
        objects.c.multipart_id,
        _tail.c.key.label("tail_key"),
    )
    .select_from(
        uploads.join(repos, repos.c.id == uploads.c.repo_id)
        .join(objects, objects.c.id == uploads.c.object_id)
        .outerjoin(_tail, _tail.c.id == uploads.c.tail_object_id)
    )
    .where(uploads.c.session == bindparam("token"), repos.c.name == bindparam("repository"), repos.c.live == 1)
)
_PARTS = sa.select(upload_parts).where(upload_parts.c.upload_id == bindparam("upload")).order_by(upload_parts.c.part_no)
_CLAIM = (
    sa.update(uploads)
    .values(owner=bindparam("by"), owner_until=bindparam("until"), version=uploads.c.version + 1)
    .where(
        uploads.c.session == bindparam("token"),
        sa.or_(uploads.c.owner.is_(None), uploads.c.owner_until < bindparam("now")),
    )
)
_MINE = sa.and_(
    uploads.c.id == bindparam("upload"), uploads.c.owner == bindparam("me"), uploads.c.version == bindparam("seen")
)
_RENEW = sa.update(uploads).values(owner_until=bindparam("until")).where(_MINE)
_RELEASE = sa.update(uploads).values(owner=None, owner_until=None).where(_MINE)
_RELEASE_ALL = sa.update(uploads).values(owner=None, owner_until=None).where(uploads.c.owner.is_not(None))
_LOCK_MINE = sa.select(uploads.c.id, uploads.c.tail_object_id).where(_MINE).with_for_update()
_SET_MULTIPART = (
    sa.update(objects)
    .values(multipart_id=bindparam("multipart"))
    .where(objects.c.id == bindparam("object"), objects.c.state == 1)
)
_RESERVE = (
    sa.update(uploads)
    .values(next_part=uploads.c.next_part + bindparam("count"))
    .where(_MINE)
    .returning(uploads.c.next_part)
)
_OBJECT_BY_KEY = sa.select(objects.c.id).where(objects.c.key == bindparam("wanted"), objects.c.state == 1)
_SAVE = (
    sa.update(uploads)
    .values(
        byte_offset=bindparam("safe"),
        tail=bindparam("rest"),
        tail_object_id=bindparam("rest_object"),
        t_state=bindparam("rest_state"),
        hash_state=bindparam("hashed"),
        deadline=bindparam("until"),
        owner=None,
        owner_until=None,
    )
    .where(_MINE)
)
_ADD_PART = insert(upload_parts).on_conflict_do_nothing(index_elements=["upload_id", "part_no"])
_DISCARD = (
    sa.update(objects)
    .values(state=4, next_try=bindparam("now"), changed_at=bindparam("now"))
    .where(objects.c.id == bindparam("object"), objects.c.state == 1)
)
_LOCK_SESSION = (
    sa.select(uploads.c.id, uploads.c.object_id, uploads.c.tail_object_id)
    .join(repos, repos.c.id == uploads.c.repo_id)
    .where(uploads.c.session == bindparam("token"), repos.c.name == bindparam("repository"))
    .with_for_update(of=uploads)
)
_DELETE = sa.delete(uploads).where(uploads.c.id == bindparam("upload"))


@dataclass(frozen=True, slots=True)
class Upload:
    """A session as the database knows it. `parts` are (number, etag, size); `tail_key` excludes `tail`."""

    id: int
    session: str
    repo_id: int
    repository: str
    object_id: int
    key: str
    offset: int
    algorithms: tuple[str, ...]
    hash_state: bytes | None
    multipart_id: str | None
    next_part: int
    parts: tuple[tuple[int, str, int], ...]
    tail: bytes
    tail_key: str | None
    version: int
    owner: str | None


async def begin_upload(
    db: Database,
    repository: str,
    origin: Origin,
    *,
    algorithms: tuple[str, ...],
    expiry: int,
    owner: str | None = None,
    claim_for: int = 0,
) -> Upload:
    """Open a session: the object's key is journalled as UPLOADING before anybody writes a byte of it.

    With `owner` the session is claimed from the start. `expiry` and `claim_for` in microseconds.
    """

    async def work(session: Session) -> Upload:
        repo_id = await lock_repository(session, repository, create=True)
        now = await session.now()
        key, token = new_object_key(), new_session()
        object_id = await _journal_object(session, key, kind=1, now=now, deadline=now + expiry)
        row = await session.one(
            _NEW_UPLOAD,
            {
                "session": token,
                "repo_id": repo_id,
                "object_id": object_id,
                "algorithms": ",".join(algorithms),
                "owner": owner,
                "owner_until": now + claim_for if owner else None,
                "version": 1 if owner else 0,
                "deadline": now + expiry,
                "actor": origin.actor,
                "created_at": now,
            },
        )
        assert row is not None
        return Upload(
            row["id"], token, repo_id, repository, object_id, key, 0, algorithms, None, None, 1, (), b"", None,
            1 if owner else 0, owner,
        )  # fmt: skip

    return await db.transact(work)


async def get_upload(db: Database, repository: str, session: str) -> Upload:
    """UploadUnknown where this repository has no such session."""
    row = await db.one(_GET, {"token": session, "repository": repository})
    if row is None:
        raise UploadUnknown()
    return _read(row, await db.all(_PARTS, {"upload": row["id"]}))


async def claim_upload(db: Database, repository: str, session: str, owner: str, *, claim_for: int) -> Upload:
    """Become the one writer. UploadBusy while another one's claim runs; UploadUnknown as in get_upload."""

    async def work(tx: Session) -> Upload:
        now = await tx.now()
        claimed = await tx.run(_CLAIM, {"token": session, "by": owner, "until": now + claim_for, "now": now})
        row = await tx.one(_GET, {"token": session, "repository": repository})
        if row is None:
            raise UploadUnknown()
        if not claimed and row["owner"] != owner:
            raise UploadBusy()
        return _read(row, await tx.all(_PARTS, {"upload": row["id"]}))

    return await db.transact(work)


async def renew_claim(db: Database, upload: Upload, *, claim_for: int) -> None:
    """Stay the writer for another `claim_for`; UploadUnknown when somebody else took over."""

    async def work(session: Session) -> None:
        until = await session.now() + claim_for
        if not await session.run(_RENEW, {**_mine(upload), "until": until}):
            raise UploadUnknown()

    await db.transact(work)


async def release_claim(db: Database, upload: Upload) -> None:
    """Let others write; nothing when the claim was lost already."""

    async def work(session: Session) -> None:
        await session.run(_RELEASE, _mine(upload))

    await db.transact(work)


async def release_all_claims(db: Database) -> None:
    """Let every session be written again: for a process that knows itself to be the only one."""

    async def work(session: Session) -> None:
        await session.run(_RELEASE_ALL)

    await db.transact(work)


async def record_multipart(db: Database, upload: Upload, multipart_id: str) -> None:
    """Journal a multipart upload right after its initiation, so that a crash leaves nothing unnamed."""

    async def work(session: Session) -> None:
        await _still_mine(session, upload)
        if not await session.run(_SET_MULTIPART, {"object": upload.object_id, "multipart": multipart_id}):
            raise UploadUnknown()

    await db.transact(work)


async def reserve_parts(db: Database, upload: Upload, count: int) -> int:
    """The first of `count` part numbers that nobody was or will be given."""

    async def work(session: Session) -> int:
        row = await session.one(_RESERVE, {**_mine(upload), "count": count})
        if row is None:
            raise UploadUnknown()
        return int(row["next_part"]) - count

    return await db.transact(work)


async def new_tail_key(db: Database, upload: Upload) -> str:
    """A fresh key for the bytes that make no whole part, journalled as UPLOADING."""

    async def work(session: Session) -> str:
        await _still_mine(session, upload)
        now = await session.now()
        key = new_object_key()
        row = await session.one(_DEADLINE, {"upload": upload.id})
        await _journal_object(session, key, kind=2, now=now, deadline=row["deadline"] if row else now)
        return key

    return await db.transact(work)


_DEADLINE = sa.select(uploads.c.deadline).where(uploads.c.id == bindparam("upload"))


async def save_progress(
    db: Database,
    upload: Upload,
    *,
    offset: int,
    parts: tuple[tuple[int, str, int], ...],
    tail: bytes,
    tail_key: str | None,
    hash_state: bytes | None,
    expiry: int,
) -> None:
    """Acknowledge `offset` bytes and give the claim back, in one step. UploadUnknown when it was lost."""

    async def work(session: Session) -> None:
        old_tail = (await _still_mine(session, upload))["tail_object_id"]
        now = await session.now()
        new_tail = None
        if tail_key is not None:
            found = await session.one(_OBJECT_BY_KEY, {"wanted": tail_key})
            if found is None:
                raise UploadUnknown()
            new_tail = found["id"]
        added = [
            {"upload_id": upload.id, "part_no": number, "etag": etag, "size": size}
            for number, etag, size in parts
            if (number, etag, size) not in upload.parts
        ]
        if added:
            await session.run_many(_ADD_PART, added)
        await session.run(
            _SAVE,
            {
                **_mine(upload),
                "safe": offset,
                "rest": tail or None,
                "rest_object": new_tail,
                "rest_state": 1 if new_tail else None,
                "hashed": hash_state,
                "until": now + expiry,
            },
        )
        if old_tail is not None and old_tail != new_tail:
            await session.run(_DISCARD, {"object": old_tail, "now": now})

    await db.transact(work)


async def cancel_upload(db: Database, repository: str, session: str) -> None:
    """End a session; what it wrote is condemned and its bytes are removed by the worker. UploadUnknown."""

    async def work(tx: Session) -> None:
        row = await tx.one(_LOCK_SESSION, {"token": session, "repository": repository})
        if row is None:
            raise UploadUnknown()
        await discard_upload(tx, row)

    await db.transact(work)


async def discard_upload(session: Session, row: Row) -> None:
    """Session row first, then its objects: the foreign key from the session refuses the other order."""
    now = await session.now()
    await session.run(_DELETE, {"upload": row["id"]})
    for object_id in (row["object_id"], row["tail_object_id"]):
        if object_id is not None:
            await session.run(_DISCARD, {"object": object_id, "now": now})


async def _still_mine(session: Session, upload: Upload) -> Row:
    row = await session.one(_LOCK_MINE, _mine(upload))
    if row is None:
        raise UploadUnknown()
    return row


async def _journal_object(session: Session, key: str, *, kind: int, now: int, deadline: int) -> int:
    row = await session.one(
        _NEW_OBJECT,
        {
            "key": key,
            "kind": kind,
            "state": 1,
            "write_deadline": deadline,
            "next_try": deadline,
            "created_at": now,
            "changed_at": now,
        },
    )
    assert row is not None
    return int(row["id"])


def _mine(upload: Upload) -> dict[str, Any]:
    return {"upload": upload.id, "me": upload.owner, "seen": upload.version}


def _read(row: Row, parts: Any) -> Upload:
    return Upload(
        id=row["id"],
        session=row["session"],
        repo_id=row["repo_id"],
        repository=row["repository"],
        object_id=row["object_id"],
        key=row["key"],
        offset=row["byte_offset"],
        algorithms=tuple(row["algorithms"].split(",")),
        hash_state=row["hash_state"],
        multipart_id=row["multipart_id"],
        next_part=row["next_part"],
        parts=tuple((part["part_no"], part["etag"], part["size"]) for part in parts),
        tail=row["tail"] or b"",
        tail_key=row["tail_key"],
        version=row["version"],
        owner=row["owner"],
    )
