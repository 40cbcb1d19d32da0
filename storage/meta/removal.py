"""Removal of a whole repository by a person: its name is free at once, its content stays in trash."""

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import Digest
from tenure.core.errors import DeleteDenied
from tenure.core.origin import Origin
from tenure.storage.meta.database import Database, Row, Session
from tenure.storage.meta.events import audit, emit, record_tag_move
from tenure.storage.meta.manifests import TRASH_PERSON
from tenure.storage.meta.protection import HoldKind, reasons
from tenure.storage.meta.queue import QueueKind, enqueue_review
from tenure.storage.meta.refusals import retried
from tenure.storage.meta.repositories import lock_repository
from tenure.storage.meta.statements import any_of
from tenure.storage.meta.tables import holds, manifests, repo_blobs, repos, tags, uploads
from tenure.storage.meta.trash import deferred_edges, trash_names
from tenure.storage.meta.uploads import discard_upload

_MANIFESTS = (
    sa.select(manifests.c.id, manifests.c.live)
    .where(manifests.c.repo_id == bindparam("repo"), manifests.c.trash < TRASH_PERSON)
    .order_by(manifests.c.id)
    .with_for_update()
)
_TAGS = (
    sa.select(tags.c.name, tags.c.manifest_id, manifests.c.digest)
    .join(manifests, manifests.c.id == tags.c.manifest_id)
    .where(tags.c.repo_id == bindparam("repo"))
    .order_by(tags.c.name)
)
_DROP_TAGS = sa.delete(tags).where(tags.c.repo_id == bindparam("repo"))
_RELEASE = (
    sa.update(holds)
    .values(manifest_id=None, m_live=None)
    .where(
        any_of(holds.c.manifest_id, "ids"),
        sa.or_(holds.c.kind >= int(HoldKind.UPLOAD_GRACE), holds.c.expires_at <= bindparam("now")),
    )
)
_TRASH = (
    sa.update(manifests)
    .values(
        live=0,
        trash=TRASH_PERSON,
        trash_batch=bindparam("now"),
        trashed_at=bindparam("now"),
        purge_at=bindparam("purge"),
    )
    .where(manifests.c.repo_id == bindparam("repo"), manifests.c.trash < TRASH_PERSON)
)
_LINKS = sa.select(repo_blobs.c.blob_id).where(repo_blobs.c.repo_id == bindparam("repo"))
_UPLOADS = (
    sa.select(uploads.c.id, uploads.c.object_id, uploads.c.tail_object_id)
    .where(uploads.c.repo_id == bindparam("repo"))
    .order_by(uploads.c.id)
    .with_for_update()
)
_CLOSE = sa.update(repos).values(live=0, deleted_at=bindparam("now")).where(repos.c.id == bindparam("repo"))


async def delete_repository(db: Database, name: str, origin: Origin, *, trash_for: int) -> int:
    """Trash everything in a repository and free its name; how many manifests. Running uploads end.

    NameUnknown where there is none; DeleteDenied with the reasons while anything in it binds people.
    """

    async def work(session: Session) -> int:
        repo_id = await lock_repository(session, name, alone=True)
        now = await session.now()
        rows = await session.all(_MANIFESTS, {"repo": repo_id})
        ids = [row["id"] for row in rows if row["live"] == 1]
        await _refuse_if_in_use(session, name, ids)
        await _trash_tags(session, origin, repo_id, now + trash_for)
        if ids:
            await session.run(_RELEASE, {"ids": ids, "now": now})
        async with deferred_edges(session):
            await session.run(_TRASH, {"repo": repo_id, "now": now, "purge": now + trash_for})
        for upload in await session.all(_UPLOADS, {"repo": repo_id}):
            await discard_upload(session, upload)
        await session.run(_CLOSE, {"repo": repo_id, "now": now})
        links: list[Row] = list(await session.all(_LINKS, {"repo": repo_id}))
        await enqueue_review(session, QueueKind.LINK, repo_id, [row["blob_id"] for row in links], now)
        await enqueue_review(session, QueueKind.MANIFEST, repo_id, [row["id"] for row in rows], now + trash_for)
        await audit(session, origin, action="repository.delete", repository=name, detail={"manifests": len(ids)})
        await emit(session, origin, "delete", name, {})
        return len(ids)

    return await retried(db, work)


async def _refuse_if_in_use(session: Session, name: str, ids: list[int]) -> None:
    # Edges inside the repository do not count: all of it goes at once.
    binding = [
        reason.sentence()
        for reason in await reasons(session, ids)
        if reason.binds_people and reason.kind not in ("parent", "subject", "tag")
    ]
    if binding:
        raise DeleteDenied(f"{name} holds images in use: {'; '.join(binding[:5])}", reasons=binding)


async def _trash_tags(session: Session, origin: Origin, repo_id: int, purge: int) -> None:
    rows = await session.all(_TAGS, {"repo": repo_id})
    if not rows:
        return
    pairs = [(row["name"], row["manifest_id"]) for row in rows]
    await trash_names(session, repo_id, pairs, trash=TRASH_PERSON, purge_at=purge)
    await session.run(_DROP_TAGS, {"repo": repo_id})
    for row in rows:
        old = Digest.unpack(row["digest"])
        await record_tag_move(session, origin, repo_id, row["name"], old=old, new=None, cause="delete")
