"""Blobs as a repository shows them: find, promise, mount, unlink."""

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import Digest
from tenure.core.errors import BlobUnknown, DeleteDenied
from tenure.core.origin import Origin
from tenure.storage.meta.database import Database, Session
from tenure.storage.meta.events import audit, emit
from tenure.storage.meta.links import link_blob
from tenure.storage.meta.queue import QueueKind, enqueue_review
from tenure.storage.meta.refusals import retried
from tenure.storage.meta.repositories import lock_repository
from tenure.storage.meta.statements import HOT, database_time
from tenure.storage.meta.tables import blobs, manifest_blobs, manifests, objects, repo_blobs, repos, tags

_LINKED = (
    repos.join(repo_blobs, repo_blobs.c.repo_id == repos.c.id)
    .join(blobs, blobs.c.id == repo_blobs.c.blob_id)
    .join(objects, objects.c.id == blobs.c.object_id)
)
_COLUMNS = (
    repos.c.id.label("repo_id"),
    blobs.c.id.label("blob_id"),
    blobs.c.size,
    objects.c.key,
    repo_blobs.c.lease_until,
)
_FIND = (
    sa.select(*_COLUMNS, database_time().label("db_now"))
    .select_from(_LINKED)
    .where(repos.c.name == bindparam("repository"), repos.c.live == 1, blobs.c.digest == bindparam("digest"))
    .execution_options(**HOT)
)
_RENEW = (
    sa.update(repo_blobs)
    .values(lease_until=bindparam("until"))
    .where(repo_blobs.c.repo_id == bindparam("repo"), repo_blobs.c.blob_id == bindparam("blob"))
)
_ANY_SOURCE = (
    sa.select(*_COLUMNS)
    .select_from(_LINKED)
    .where(blobs.c.digest == bindparam("digest"), repos.c.live == 1)
    .limit(1)
    .with_for_update(read=True, key_share=True, of=repo_blobs)
)
_SOURCE = _ANY_SOURCE.where(repos.c.name == bindparam("repository"))
_LOCK_LINK = (
    sa.select(repo_blobs.c.blob_id)
    .join(blobs, blobs.c.id == repo_blobs.c.blob_id)
    .where(repo_blobs.c.repo_id == bindparam("repo"), blobs.c.digest == bindparam("digest"))
    .with_for_update(of=repo_blobs)
)
_NAMED_BY = (
    sa.select(manifests.c.digest, sa.func.min(tags.c.name).label("tag"))
    .select_from(
        manifest_blobs.join(manifests, manifests.c.id == manifest_blobs.c.manifest_id).outerjoin(
            tags, tags.c.manifest_id == manifests.c.id
        )
    )
    .where(manifest_blobs.c.link_repo == bindparam("repo"), manifest_blobs.c.blob_id == bindparam("blob"))
    .group_by(manifests.c.id, manifests.c.digest)
    .order_by(manifests.c.id)
    .limit(10)
)
_UNLINK = sa.delete(repo_blobs).where(
    repo_blobs.c.repo_id == bindparam("repo"), repo_blobs.c.blob_id == bindparam("blob")
)


class Blob(NamedTuple):
    """A blob as seen through one repository. `key` is where its bytes lie; times in microseconds."""

    repo_id: int
    blob_id: int
    digest: Digest
    size: int
    key: str
    lease_until: int
    db_now: int


async def find_blob(db: Database, repository: str, digest: Digest) -> Blob | None:
    """One round trip. None where the repository has no link to it, whatever the store holds (S18)."""
    row = await db.one(_FIND, {"repository": repository, "digest": digest.packed})
    if row is None:
        return None
    return Blob(row["repo_id"], row["blob_id"], digest, row["size"], row["key"], row["lease_until"], row["db_now"])


async def keep_promise(db: Database, blob: Blob, lease: int) -> bool:
    """Make "it exists" hold for a lease: writes only when less than half of one is left.

    False: the link went away meanwhile, the answer is 404. With a lease of 0 nothing is promised.
    """
    if lease == 0 or blob.lease_until >= blob.db_now + lease // 2:
        return True

    async def work(session: Session) -> bool:
        until = await session.now() + lease
        return await session.run(_RENEW, {"repo": blob.repo_id, "blob": blob.blob_id, "until": until}) == 1

    return await db.transact(work)


async def mount_blob(
    db: Database, repository: str, digest: Digest, source: str | None, origin: Origin, *, lease: int
) -> Blob | None:
    """Link a blob that another repository shows (any, where `source` is None). None: nothing to mount.

    The caller has made sure that `origin` may read the source. The source's link is locked, so that it
    cannot be swept between the look and the new link.
    """

    async def work(session: Session) -> Blob | None:
        repo_id = await lock_repository(session, repository, create=True)
        params = {"digest": digest.packed}
        if source is None:
            found = await session.one(_ANY_SOURCE, params)
        else:
            found = await session.one(_SOURCE, {**params, "repository": source})
        if found is None:
            return None
        now = await session.now()
        await link_blob(session, repo_id, found["blob_id"], digest, lease)
        await emit(session, origin, "mount", repository, {"digest": str(digest), "fromRepository": source or ""})
        return Blob(repo_id, found["blob_id"], digest, found["size"], found["key"], now + lease, now)

    return await retried(db, work)


async def unlink_blob(db: Database, repository: str, digest: Digest, origin: Origin) -> None:
    """Hide a blob from a repository at once; its bytes stay while anything else needs them.

    BlobUnknown where there is no link; DeleteDenied with the manifests that name it while one of them lives.
    Leases of pushes do not bind a person who deletes.
    """

    async def work(session: Session) -> None:
        repo_id = await lock_repository(session, repository)
        link = await session.one(_LOCK_LINK, {"repo": repo_id, "digest": digest.packed})
        if link is None:
            raise BlobUnknown()
        blob_id = link["blob_id"]
        named_by = await session.all(_NAMED_BY, {"repo": repo_id, "blob": blob_id})
        if named_by:
            raise _still_named(repository, digest, [(Digest.unpack(row["digest"]), row["tag"]) for row in named_by])
        await session.run(_UNLINK, {"repo": repo_id, "blob": blob_id})
        await enqueue_review(session, QueueKind.BLOB, 0, [blob_id], await session.now())
        await audit(session, origin, action="blob.delete", repository=repository, target=str(digest))
        await emit(session, origin, "delete", repository, {"digest": str(digest)})

    await retried(db, work)


def _still_named(repository: str, digest: Digest, named_by: list[tuple[Digest, str | None]]) -> DeleteDenied:
    reasons = [
        f"manifest {repository}{f':{tag}' if tag else ''}@{manifest} names this blob" for manifest, tag in named_by
    ]
    return DeleteDenied(f"{digest} is in use: {reasons[0]}; delete the manifest first", reasons=reasons)
