"""Why a manifest must stay: one definition for collection, deletes by API and retention.

A reason binds either everybody (running, declared, rollback, pin, lease, legal hold) or automation only
(upload grace, candidate, push leases, hold_new): a person who deletes what was pushed a minute ago means it.
First reasons: tags, live parents, live subjects, push leases and holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import Digest
from tenure.storage.meta.database import Session
from tenure.storage.meta.statements import any_of
from tenure.storage.meta.tables import holds, manifest_edges, manifests, tags


class HoldKind(IntEnum):
    """What kind of hold a row of `holds` is; the number is the database's."""

    RUNNING = 1
    DECLARED = 2
    ROLLBACK = 3
    PIN = 4
    LEASE = 5
    LEGAL = 6
    UPLOAD_GRACE = 20
    CANDIDATE = 21
    HOLD_NEW = 22

    @property
    def binds_people(self) -> bool:
        return self < HoldKind.UPLOAD_GRACE


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason. `binds_people` False: it stops automation, not a person's delete."""

    manifest_id: int
    kind: str  # tag, parent, subject, push, or a HoldKind in lower case
    source: str
    until: int | None
    binds_people: bool

    def sentence(self) -> str:
        """As every surface says it."""
        if self.kind == "tag":
            return f"tag {self.source} points at it"
        if self.kind == "parent":
            return f"index {self.source} lists it"
        if self.kind == "subject":
            return f"it refers to {self.source}, which is live"
        if self.kind == "push":
            return "it was pushed a short while ago"
        return f"{self.kind.replace('_', ' ')}: {self.source}"


_parent = manifests.alias("parent")
_TAGS = (
    sa.select(tags.c.manifest_id, tags.c.name)
    .where(any_of(tags.c.manifest_id, "ids"))
    .order_by(tags.c.manifest_id, tags.c.name)
)
_PARENTS = (
    sa.select(manifest_edges.c.child_id, manifest_edges.c.kind, _parent.c.digest)
    .join(_parent, _parent.c.id == manifest_edges.c.parent_id)
    .where(any_of(manifest_edges.c.child_id, "ids"), manifest_edges.c.need_live == 1)
    .order_by(manifest_edges.c.child_id, _parent.c.id)
)
_HOLDS = (
    sa.select(holds.c.manifest_id, holds.c.kind, holds.c.source, holds.c.expires_at)
    .where(
        any_of(holds.c.manifest_id, "ids"),
        sa.or_(holds.c.expires_at.is_(None), holds.c.expires_at > bindparam("now")),
    )
    .order_by(holds.c.kind, holds.c.id)
)
_LEASES = sa.select(manifests.c.id, manifests.c.lease_until).where(
    any_of(manifests.c.id, "ids"), manifests.c.lease_until > bindparam("now")
)


async def reasons(session: Session, manifest_ids: Sequence[int]) -> list[Reason]:
    """Every reason for which each of these manifests stays. Take the rows' locks before you ask.

    The foreign keys are the last word: a caller that acts against a reason is refused by the database.
    """
    ids = {"ids": list(manifest_ids)}
    timed = {**ids, "now": await session.now()}
    found = [Reason(row["manifest_id"], "tag", row["name"], None, False) for row in await session.all(_TAGS, ids)]
    for row in await session.all(_PARENTS, ids):
        kind = "parent" if row["kind"] == 1 else "subject"
        found.append(Reason(row["child_id"], kind, str(Digest.unpack(row["digest"])), None, kind == "parent"))
    for row in await session.all(_HOLDS, timed):
        hold = HoldKind(row["kind"])
        found.append(Reason(row["manifest_id"], hold.name.lower(), row["source"], row["expires_at"], hold.binds_people))
    for row in await session.all(_LEASES, timed):
        found.append(Reason(row["id"], "push", "push", row["lease_until"], False))
    return found
