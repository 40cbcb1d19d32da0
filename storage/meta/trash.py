"""Bringing trashed manifests back: as closed sets, links first, one statement for the rows."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import sqlalchemy as sa

from tenure.storage.meta.database import Session
from tenure.storage.meta.queue import QueueKind, enqueue_review
from tenure.storage.meta.statements import any_of, insert
from tenure.storage.meta.tables import manifest_blobs, manifest_edges, manifests, repo_blobs, trashed_tags

_TRASHED_BELOW = (
    sa.select(manifests.c.id)
    .join(manifest_edges, manifest_edges.c.child_id == manifests.c.id)
    .where(any_of(manifest_edges.c.parent_id, "ids"), manifests.c.live == 0)
    .order_by(manifests.c.id)
    .with_for_update(of=manifests)
)
_NAMED = (
    sa.select(manifest_blobs.c.blob_id)
    .where(any_of(manifest_blobs.c.manifest_id, "ids"), manifest_blobs.c.blob_id.is_not(None))
    .distinct()
    .order_by(manifest_blobs.c.blob_id)
)
_LINK = insert(repo_blobs).on_conflict_do_nothing(index_elements=["repo_id", "blob_id"])
_REVIVE = (
    sa.update(manifests)
    .values(live=1, trash=0, trash_batch=None, trashed_at=None, purge_at=None)
    .where(any_of(manifests.c.id, "ids"), manifests.c.live == 0)
)
# A name that was trashed before and came back with a push is trashed anew.
_new_name = insert(trashed_tags)
_TRASH_NAME = _new_name.on_conflict_do_update(
    index_elements=["manifest_id", "name"],
    set_={column: _new_name.excluded[column] for column in ("trash", "trash_batch", "trashed_at", "purge_at")},
)
_DEFER = sa.text("SET CONSTRAINTS edge_child, edge_child_live DEFERRED")
_CHECK = sa.text("SET CONSTRAINTS edge_child, edge_child_live IMMEDIATE")


async def trash_names(
    session: Session, repo_id: int, names: Sequence[tuple[str, int]], *, trash: int, purge_at: int
) -> None:
    """Remember (tag, manifest id) pairs that are about to be dropped, for a restore until `purge_at`."""
    now = await session.now()
    rows = [
        {
            "repo_id": repo_id,
            "name": name,
            "manifest_id": manifest_id,
            "trash": trash,
            "trash_batch": now,
            "trashed_at": now,
            "purge_at": purge_at,
        }
        for name, manifest_id in names
    ]
    if rows:
        await session.run_many(_TRASH_NAME, rows)


@asynccontextmanager
async def deferred_edges(session: Session) -> AsyncIterator[None]:
    """Check edges once for a whole set of manifests, at the end of the block and not row by row.

    On Postgres the order of the cascade to an edge and of the edge's check depends on the order of rows.
    """
    if session.dialect == "postgresql":
        await session.run(_DEFER)
    yield
    if session.dialect == "postgresql":
        await session.run(_CHECK)


async def restore_closure(session: Session, repo_id: int, manifest_ids: Sequence[int]) -> list[int]:
    """Make these manifests live again with everything below them that is in trash; their ids.

    The caller holds the given rows FOR UPDATE. The bytes cannot be gone: trashed manifests pin blobs.
    """
    closure = set(manifest_ids)
    frontier = list(closure)
    while frontier:
        below = await session.all(_TRASHED_BELOW, {"ids": frontier})
        frontier = [row["id"] for row in below if row["id"] not in closure]
        closure.update(frontier)
    ids = sorted(closure)
    now = await session.now()
    links = [
        {"repo_id": repo_id, "blob_id": row["blob_id"], "lease_until": now}
        for row in await session.all(_NAMED, {"ids": ids})
    ]
    if links:
        await session.run_many(_LINK, links)
    async with deferred_edges(session):
        await session.run(_REVIVE, {"ids": ids})
    await enqueue_review(session, QueueKind.MANIFEST, repo_id, ids, now)
    return ids
