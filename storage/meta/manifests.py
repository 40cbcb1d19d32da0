"""Manifests: find one by tag or digest, delete one."""

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import Digest
from tenure.core.errors import DeleteDenied, ManifestUnknown
from tenure.core.origin import Origin
from tenure.storage.meta.database import Database, Row, Session
from tenure.storage.meta.events import audit, emit, record_tag_move
from tenure.storage.meta.protection import HoldKind, reasons
from tenure.storage.meta.queue import QueueKind, enqueue_review
from tenure.storage.meta.refusals import retried
from tenure.storage.meta.repositories import lock_repository
from tenure.storage.meta.statements import HOT, any_of
from tenure.storage.meta.tables import holds, manifest_blobs, manifest_edges, manifests, repos, tags, trashed_tags
from tenure.storage.meta.trash import trash_names

TRASH_POLICY, TRASH_PERSON, TRASH_ERASED = 1, 2, 3

_HEAD = (
    manifests.c.id,
    manifests.c.repo_id,
    manifests.c.digest,
    manifests.c.media_type,
    manifests.c.artifact_type,
    manifests.c.size,
    manifests.c.trash,
)
_NAMED = (repos.c.name == bindparam("repository"), repos.c.live == 1)
# What a policy trashed is hidden from lists but still pulls; what a person deleted is gone.
_SERVED = sa.or_(manifests.c.live == 1, manifests.c.trash == TRASH_POLICY)


def _by_tag(*columns: sa.Column[Any]) -> sa.Select[Any]:
    joined = repos.join(tags, tags.c.repo_id == repos.c.id).join(manifests, manifests.c.id == tags.c.manifest_id)
    return sa.select(*columns).select_from(joined).where(*_NAMED, tags.c.name == bindparam("tag"))


def _by_digest(*columns: sa.Column[Any]) -> sa.Select[Any]:
    joined = repos.join(manifests, manifests.c.repo_id == repos.c.id)
    return sa.select(*columns).select_from(joined).where(*_NAMED, manifests.c.digest == bindparam("digest"), _SERVED)


def _by_trashed_tag(*columns: sa.Column[Any]) -> sa.Select[Any]:
    joined = repos.join(trashed_tags, trashed_tags.c.repo_id == repos.c.id).join(
        manifests, manifests.c.id == trashed_tags.c.manifest_id
    )
    return (
        sa.select(*columns)
        .select_from(joined)
        .where(*_NAMED, trashed_tags.c.name == bindparam("tag"), trashed_tags.c.trash == TRASH_POLICY, _SERVED)
        .order_by(trashed_tags.c.trashed_at.desc(), manifests.c.id.desc())
        .limit(1)
    )


_WITH_PAYLOAD = (*_HEAD, manifests.c.payload)
_FIND = {
    ("tag", False): _by_tag(*_HEAD).execution_options(**HOT),
    ("tag", True): _by_tag(*_WITH_PAYLOAD).execution_options(**HOT),
    ("digest", False): _by_digest(*_HEAD).execution_options(**HOT),
    ("digest", True): _by_digest(*_WITH_PAYLOAD).execution_options(**HOT),
    ("trashed", False): _by_trashed_tag(*_HEAD),
    ("trashed", True): _by_trashed_tag(*_WITH_PAYLOAD),
}

_OWN = sa.select(manifests.c.id, manifests.c.live, manifests.c.trash).where(
    manifests.c.repo_id == bindparam("repo"), manifests.c.digest == bindparam("digest")
)
_PARENTS = sa.select(manifest_edges.c.parent_id).where(
    manifest_edges.c.child_id == bindparam("child"), manifest_edges.c.need_live == 1
)
_LOCK = (
    sa.select(manifests.c.id, manifests.c.live, manifests.c.trash)
    .where(any_of(manifests.c.id, "ids"))
    .order_by(manifests.c.id)
    .with_for_update()
)
_TAGS = sa.select(tags.c.name).where(tags.c.manifest_id == bindparam("manifest")).with_for_update()
_DROP_TAGS = sa.delete(tags).where(tags.c.manifest_id == bindparam("manifest"))
_SEVER = (
    sa.update(manifest_edges)
    .values(child_id=None, absent=4)
    .where(manifest_edges.c.child_id == bindparam("child"), manifest_edges.c.kind == 1)
)
_UNREFER = sa.delete(manifest_edges).where(manifest_edges.c.child_id == bindparam("child"), manifest_edges.c.kind == 2)
_RELEASE_HOLDS = (
    sa.update(holds)
    .values(manifest_id=None, m_live=None)
    .where(
        holds.c.manifest_id == bindparam("manifest"),
        sa.or_(holds.c.kind >= int(HoldKind.UPLOAD_GRACE), holds.c.expires_at <= bindparam("now")),
    )
)
_TRASH = (
    sa.update(manifests)
    .values(
        live=0,
        trash=TRASH_PERSON,
        trash_batch=bindparam("batch"),
        trashed_at=bindparam("now"),
        purge_at=bindparam("purge"),
    )
    .where(manifests.c.id == bindparam("manifest"))
)
_LINKS = sa.select(manifest_blobs.c.blob_id).where(
    manifest_blobs.c.manifest_id == bindparam("manifest"), manifest_blobs.c.blob_id.is_not(None)
)
_CHILDREN = sa.select(manifest_edges.c.child_id).where(
    manifest_edges.c.parent_id == bindparam("manifest"), manifest_edges.c.child_id.is_not(None)
)


class StoredManifest(NamedTuple):
    """A manifest as served. `payload` is b"" unless asked for; `trash` 1: removed by policy, still pullable."""

    id: int
    repo_id: int
    digest: Digest
    media_type: str
    artifact_type: str | None
    size: int
    payload: bytes
    trash: int


async def find_manifest(
    db: Database, repository: str, reference: Digest | str, *, payload: bool
) -> StoredManifest | None:
    """By digest or tag name, in one round trip when it is there. None: not here, or deleted by a person."""
    if isinstance(reference, Digest):
        row = await db.one(_FIND["digest", payload], {"repository": repository, "digest": reference.packed})
    else:
        params = {"repository": repository, "tag": reference}
        row = await db.one(_FIND["tag", payload], params) or await db.one(_FIND["trashed", payload], params)
    if row is None:
        return None
    return StoredManifest(
        row["id"],
        row["repo_id"],
        Digest.unpack(row["digest"]),
        row["media_type"],
        row["artifact_type"],
        row["size"],
        bytes(row["payload"]) if payload else b"",
        row["trash"],
    )


async def delete_manifest(
    db: Database, repository: str, digest: Digest, origin: Origin, *, sever: bool, trash_for: int
) -> None:
    """A person's delete: hidden at once on every replica, its tags with it, restorable for `trash_for`.

    ManifestUnknown where there is none; DeleteDenied while a live index lists it (unless `sever`, which makes
    that index sparse) or a reason that binds people holds it. What only policies trashed is hidden too.
    """

    async def work(session: Session) -> None:
        repo_id = await lock_repository(session, repository)
        own = await session.one(_OWN, {"repo": repo_id, "digest": digest.packed})
        if own is None:
            raise ManifestUnknown()
        manifest_id = own["id"]
        parents = [row["parent_id"] for row in await session.all(_PARENTS, {"child": manifest_id})]
        locked = await session.all(_LOCK, {"ids": sorted({manifest_id, *parents})})
        state = next((row for row in locked if row["id"] == manifest_id), None)
        if state is None or state["trash"] >= TRASH_PERSON:
            raise ManifestUnknown()
        if sever:
            await session.run(_SEVER, {"child": manifest_id})
        await _refuse_if_in_use(session, manifest_id, digest)
        await _trash(session, repository, repo_id, manifest_id, digest, origin, trash_for)

    await retried(db, work)


async def _refuse_if_in_use(session: Session, manifest_id: int, digest: Digest) -> None:
    binding = [reason.sentence() for reason in await reasons(session, [manifest_id]) if reason.binds_people]
    if binding:
        raise DeleteDenied(f"{digest} is in use: {'; '.join(binding[:5])}", reasons=binding)


async def _trash(
    session: Session, repository: str, repo_id: int, manifest_id: int, digest: Digest, origin: Origin, trash_for: int
) -> None:
    now = await session.now()
    purge = now + trash_for
    names = [row["name"] for row in await session.all(_TAGS, {"manifest": manifest_id})]
    if names:
        pairs = [(name, manifest_id) for name in names]
        await trash_names(session, repo_id, pairs, trash=TRASH_PERSON, purge_at=purge)
        await session.run(_DROP_TAGS, {"manifest": manifest_id})
        for name in names:
            await record_tag_move(session, origin, repo_id, name, old=digest, new=None, cause="delete")
    await session.run(_UNREFER, {"child": manifest_id})
    await session.run(_RELEASE_HOLDS, {"manifest": manifest_id, "now": now})
    await session.run(_TRASH, {"manifest": manifest_id, "batch": now, "now": now, "purge": purge})
    await _queue_what_it_held(session, repo_id, manifest_id, now, purge)
    await audit(session, origin, action="manifest.delete", repository=repository, target=str(digest),
                detail={"tags": names})  # fmt: skip
    await emit(session, origin, "delete", repository, {"digest": str(digest)})


async def _queue_what_it_held(session: Session, repo_id: int, manifest_id: int, now: int, purge: int) -> None:
    # Links are looked at now: the layers of what a person deleted must not stay pullable by digest for days.
    links: list[Row] = list(await session.all(_LINKS, {"manifest": manifest_id}))
    children = await session.all(_CHILDREN, {"manifest": manifest_id})
    await enqueue_review(session, QueueKind.LINK, repo_id, [row["blob_id"] for row in links], now)
    await enqueue_review(session, QueueKind.MANIFEST, repo_id, [row["child_id"] for row in children], now)
    await enqueue_review(session, QueueKind.MANIFEST, repo_id, [manifest_id], purge)
