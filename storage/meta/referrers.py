"""Referrers: what names a digest as its subject (distribution-spec, listing referrers)."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import Digest
from tenure.storage.meta.database import Database
from tenure.storage.meta.tables import manifests, repos

_LIST = (
    sa.select(
        manifests.c.id,
        manifests.c.digest,
        manifests.c.media_type,
        manifests.c.size,
        manifests.c.artifact_type,
        manifests.c.payload,
    )
    .join(repos, repos.c.id == manifests.c.repo_id)
    .where(
        repos.c.name == bindparam("repository"),
        repos.c.live == 1,
        manifests.c.subject == bindparam("subject"),
        # What a policy trashed together with its subject still serves the pull that brings both back.
        sa.or_(manifests.c.live == 1, manifests.c.trash == 1),
        manifests.c.id > bindparam("after"),
    )
    .order_by(manifests.c.id)
    .limit(bindparam("n"))
)
_LIST_TYPE = _LIST.where(manifests.c.artifact_type == bindparam("artifact_type"))


@dataclass(frozen=True, slots=True)
class Referrer:
    """One referrer; its annotations are in `payload`."""

    id: int
    digest: Digest
    media_type: str
    size: int
    artifact_type: str | None
    payload: bytes


async def list_referrers(
    db: Database, repository: str, subject: Digest, *, artifact_type: str | None, after: int, limit: int
) -> list[Referrer]:
    """In order of arrival, ids above `after`; empty for a subject nobody knows."""
    params = {"repository": repository, "subject": subject.packed, "after": after, "n": limit}
    if artifact_type is None:
        rows = await db.all(_LIST, params)
    else:
        rows = await db.all(_LIST_TYPE, {**params, "artifact_type": artifact_type})
    return [
        Referrer(
            row["id"],
            Digest.unpack(row["digest"]),
            row["media_type"],
            row["size"],
            row["artifact_type"],
            bytes(row["payload"]),
        )
        for row in rows
    ]
