"""What waited for a digest finds it: sparse indexes, referrers pushed first, holds nobody could resolve."""

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import Digest
from tenure.storage.meta import fallback
from tenure.storage.meta.database import Session
from tenure.storage.meta.statements import any_of, insert
from tenure.storage.meta.tables import holds, manifest_edges, manifests

_CHILD = (
    sa.update(manifest_edges)
    .values(child_id=bindparam("manifest"), absent=0)
    .where(
        manifest_edges.c.repo_id == bindparam("repo"),
        manifest_edges.c.child_digest == bindparam("own"),
        manifest_edges.c.child_id.is_(None),
    )
)
_REFERRERS = (
    sa.select(manifests.c.id, manifests.c.digest)
    .where(manifests.c.repo_id == bindparam("repo"), manifests.c.subject == bindparam("own"), manifests.c.live == 1)
    .order_by(manifests.c.id)
    .with_for_update(read=True, key_share=True)
)
_ADD_EDGE = insert(manifest_edges).on_conflict_do_nothing(index_elements=["parent_id", "kind", "child_digest"])
_HOLD = (
    sa.update(holds)
    .values(manifest_id=bindparam("manifest"), m_live=1)
    .where(
        any_of(holds.c.digest, "digests"),
        holds.c.manifest_id.is_(None),
        sa.or_(holds.c.repo_id.is_(None), holds.c.repo_id == bindparam("repo")),
    )
)
# A hold on every copy of a digest holds this new copy too.
_COPIED = (
    "kind", "repo_id", "digest", "source", "actor", "reason", "ticket", "created_at", "expires_at",
)  # fmt: skip
_HOLDS_ELSEWHERE = (
    sa.select(*(holds.c[name] for name in _COPIED))
    .where(
        any_of(holds.c.digest, "digests"),
        holds.c.repo_id.is_(None),
        holds.c.manifest_id.is_not(None),
        holds.c.manifest_id != bindparam("manifest"),
    )
    .distinct()
)
_ADD_HOLD = sa.insert(holds)


async def resolve_waiting(
    session: Session, repo_id: int, manifest_id: int, digest: Digest, config: Digest | None
) -> None:
    """Give a manifest that just became live everything that was waiting for it."""
    own = {"repo": repo_id, "manifest": manifest_id, "own": digest.packed}
    await session.run(_CHILD, own)
    referrers = {
        row["id"]: bytes(row["digest"])
        for row in await session.all(_REFERRERS, {"repo": repo_id, "own": digest.packed})
    }
    referrers |= await fallback.waiting_for(session, repo_id, digest)
    edges = [
        {
            "parent_id": manifest_id,
            "repo_id": repo_id,
            "p_live": 1,
            "kind": 2,
            "child_digest": child,
            "child_id": child_id,
        }
        for child_id, child in sorted(referrers.items())
        if child_id != manifest_id
    ]
    if edges:
        await session.run_many(_ADD_EDGE, edges)
    await _resolve_holds(session, repo_id, manifest_id, [digest.packed, *([config.packed] if config else [])])


async def _resolve_holds(session: Session, repo_id: int, manifest_id: int, digests: list[bytes]) -> None:
    elsewhere = await session.all(_HOLDS_ELSEWHERE, {"digests": digests, "manifest": manifest_id})
    await session.run(_HOLD, {"digests": digests, "repo": repo_id, "manifest": manifest_id})
    if elsewhere:
        await session.run_many(
            _ADD_HOLD,
            [{**{name: row[name] for name in _COPIED}, "manifest_id": manifest_id, "m_live": 1} for row in elsewhere],
        )
