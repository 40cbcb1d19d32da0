"""The commit of an upload: object LIVE, blob row, link and queue row in one transaction.

Two pushes of one digest meet at `blobs.digest UNIQUE`: the later one's object is condemned in the same
transaction and its bytes are removed by the worker.
"""

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import Digest
from tenure.core.errors import UploadUnknown
from tenure.core.origin import Origin
from tenure.storage.meta.database import Database, Session
from tenure.storage.meta.links import link_blob
from tenure.storage.meta.refusals import retried
from tenure.storage.meta.repositories import lock_repository
from tenure.storage.meta.statements import insert
from tenure.storage.meta.tables import blobs, objects, uploads
from tenure.storage.meta.uploads import Upload

_TAKE = (
    sa.delete(uploads)
    .where(
        uploads.c.id == bindparam("upload"),
        uploads.c.owner == bindparam("me"),
        uploads.c.version == bindparam("seen"),
    )
    .returning(uploads.c.object_id, uploads.c.tail_object_id)
)
_BY_KEY = sa.select(objects.c.id, objects.c.state).where(objects.c.key == bindparam("wanted"))
_TO_LIVE = (
    sa.update(objects)
    .values(
        state=2,
        digest=bindparam("content"),
        size=bindparam("length"),
        version_id=bindparam("store_version"),
        write_deadline=None,
        next_try=None,
        changed_at=bindparam("now"),
    )
    .where(objects.c.id == bindparam("object"), objects.c.state == 1)
)
_CONDEMN = (
    sa.update(objects)
    .values(state=4, next_try=bindparam("now"), changed_at=bindparam("now"))
    .where(objects.c.id == bindparam("object"), objects.c.state <= 2)
)
_NEW_BLOB = insert(blobs).on_conflict_do_nothing(index_elements=["digest"]).returning(blobs.c.id)
_KNOWN = sa.select(blobs.c.id, blobs.c.damaged, blobs.c.object_id).where(blobs.c.digest == bindparam("content"))
_KNOWN_SHARED = _KNOWN.with_for_update(read=True, key_share=True)
_KNOWN_ALONE = _KNOWN.with_for_update()
_REPAIR = (
    sa.update(blobs)
    .values(object_id=bindparam("object"), damaged=0, verified_at=bindparam("now"))
    .where(blobs.c.id == bindparam("blob"))
)


async def close_upload(
    db: Database,
    upload: Upload,
    *,
    digest: Digest,
    size: int,
    stored_key: str,
    version_id: str | None,
    lease: int,
    origin: Origin,
) -> None:
    """Make a blob of a finished object and show it in the upload's repository, promised for `lease`.

    `stored_key` is the upload's own key or its tail's. The bytes are durable before this is called.
    UploadUnknown when the session was reaped, cancelled or taken over.
    """

    async def work(session: Session) -> None:
        await lock_repository(session, upload.repository)
        taken = await session.one(_TAKE, {"upload": upload.id, "me": upload.owner, "seen": upload.version})
        stored = await session.one(_BY_KEY, {"wanted": stored_key})
        if taken is None or stored is None:
            # A COMMIT whose answer was lost: the object is LIVE only if this very close was applied.
            if session.attempt and stored is not None and stored["state"] in (2, 4):
                return
            raise UploadUnknown()
        now = await session.now()
        live = stored["id"]
        became = {"object": live, "content": digest.packed, "length": size, "store_version": version_id, "now": now}
        if not await session.run(_TO_LIVE, became):
            raise UploadUnknown()
        blob_id = await _blob_for(session, digest, size, live, now)
        for spare in (taken["object_id"], taken["tail_object_id"]):
            if spare is not None and spare != live:
                await session.run(_CONDEMN, {"object": spare, "now": now})
        await link_blob(session, upload.repo_id, blob_id, digest, lease)

    await retried(db, work)


async def _blob_for(session: Session, digest: Digest, size: int, object_id: int, now: int) -> int:
    """The blob row of this digest: new, or the one that was there first; a damaged one gets our bytes."""
    while True:
        row = await session.one(
            _NEW_BLOB, {"digest": digest.packed, "size": size, "object_id": object_id, "verified_at": now}
        )
        if row is not None:
            return int(row["id"])
        known = await session.one(_KNOWN_SHARED, {"content": digest.packed})
        if known is not None:
            break
        # The collector removed it between the two statements: the place is free again.
    if known["damaged"]:
        known = await session.one(_KNOWN_ALONE, {"content": digest.packed})
        assert known is not None  # locked above
        if known["damaged"]:
            await session.run(_REPAIR, {"object": object_id, "blob": known["id"], "now": now})
            await session.run(_CONDEMN, {"object": known["object_id"], "now": now})
            return int(known["id"])
    await session.run(_CONDEMN, {"object": object_id, "now": now})
    return int(known["id"])
