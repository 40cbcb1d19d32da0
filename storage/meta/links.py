"""Links: which repository may show which blob, and for how long that is promised."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import Digest
from tenure.storage.meta.database import Session
from tenure.storage.meta.queue import QueueKind, enqueue_review
from tenure.storage.meta.statements import any_of, insert
from tenure.storage.meta.tables import blobs, manifest_blobs, repo_blobs

_INSERT = insert(repo_blobs).on_conflict_do_nothing(index_elements=["repo_id", "blob_id"])
# Guarded by "below half", so that a layer everybody pushes is one write per half lease and not a hot row.
_EXTEND = (
    sa.update(repo_blobs)
    .values(lease_until=bindparam("until"))
    .where(
        repo_blobs.c.repo_id == bindparam("repo"),
        repo_blobs.c.blob_id == bindparam("blob"),
        repo_blobs.c.lease_until < bindparam("half"),
    )
)
_RESOLVE = (
    sa.update(manifest_blobs)
    .values(blob_id=bindparam("blob"), absent=0)
    .where(
        manifest_blobs.c.repo_id == bindparam("repo"),
        manifest_blobs.c.digest == bindparam("named"),
        manifest_blobs.c.blob_id.is_(None),
    )
)
_LOCK = (
    sa.select(repo_blobs.c.blob_id, blobs.c.digest)
    .join(blobs, blobs.c.id == repo_blobs.c.blob_id)
    .where(repo_blobs.c.repo_id == bindparam("repo"), any_of(blobs.c.digest, "digests"))
    .order_by(repo_blobs.c.blob_id)
    .with_for_update(read=True, key_share=True, of=repo_blobs)
)


async def link_blob(session: Session, repo_id: int, blob_id: int, digest: Digest, lease: int) -> None:
    """Show a blob in a repository, promised for `lease`; manifests that waited for it name it from now on."""
    now = await session.now()
    until = now + lease
    added = await session.run(_INSERT, {"repo_id": repo_id, "blob_id": blob_id, "lease_until": until})
    if added:
        await session.run(_RESOLVE, {"repo": repo_id, "named": digest.packed, "blob": blob_id})
        await enqueue_review(session, QueueKind.LINK, repo_id, [blob_id], until)
    else:
        await session.run(_EXTEND, {"repo": repo_id, "blob": blob_id, "until": until, "half": now + lease // 2})


async def lock_links(session: Session, repo_id: int, digests: Iterable[Digest]) -> dict[Digest, int]:
    """The blob ids of those digests that this repository shows, locked against unlinking, in blob order."""
    packed = [digest.packed for digest in digests]
    if not packed:
        return {}
    rows = await session.all(_LOCK, {"repo": repo_id, "digests": packed})
    return {Digest.unpack(row["digest"]): row["blob_id"] for row in rows}
