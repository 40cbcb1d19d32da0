"""Manifest push: one transaction that locks what the manifest names and writes everything it means.

Order of locks: the repository; then in one statement, by id, the manifest's own row, its children and its
subject; then its links, by blob. Content that is missing is a row that says why and heals by a later push.
To make that healing certain the repository is locked alone whenever something is missing: whoever creates
the missing link or manifest holds a share of that lock, so one of the two always sees the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import Digest
from tenure.core.errors import ManifestBlobUnknown, ManifestInvalid
from tenure.core.manifest import Kind, Manifest, Role
from tenure.core.origin import Origin
from tenure.storage.meta import fallback
from tenure.storage.meta.database import Database, Row, Session
from tenure.storage.meta.events import emit
from tenure.storage.meta.jobs import enqueue
from tenure.storage.meta.lineage import index_chain
from tenure.storage.meta.links import lock_links
from tenure.storage.meta.manifests import TRASH_POLICY
from tenure.storage.meta.queue import QueueKind, enqueue_review
from tenure.storage.meta.records import digest_aliases
from tenure.storage.meta.refusals import retried
from tenure.storage.meta.repositories import lock_repository
from tenure.storage.meta.resolve import resolve_waiting
from tenure.storage.meta.statements import any_of, insert
from tenure.storage.meta.tables import manifest_blobs, manifest_edges, manifests
from tenure.storage.meta.tags import set_tag
from tenure.storage.meta.trash import restore_closure

ABSENT_FOREIGN, ABSENT_SPARSE = 1, 2

_ROWS = (
    sa.select(manifests.c.id, manifests.c.digest, manifests.c.live, manifests.c.trash, manifests.c.media_type)
    .where(manifests.c.repo_id == bindparam("repo"), any_of(manifests.c.digest, "digests"))
    .order_by(manifests.c.id)
)
_ROWS_SHARED = _ROWS.with_for_update(read=True, key_share=True)
_ROWS_ALONE = _ROWS.with_for_update()
_INSERT = insert(manifests).on_conflict_do_nothing(index_elements=["repo_id", "digest"]).returning(manifests.c.id)
_FORGET_BLOBS = sa.delete(manifest_blobs).where(manifest_blobs.c.manifest_id == bindparam("manifest"))
_FORGET_EDGES = sa.delete(manifest_edges).where(manifest_edges.c.parent_id == bindparam("manifest"))
_REVIVE = (
    sa.update(manifests)
    .values(
        live=1,
        trash=0,
        trash_batch=None,
        trashed_at=None,
        purge_at=None,
        media_type=bindparam("type"),
        lease_until=bindparam("until"),
        pushed_at=bindparam("now"),
        pushed_by=bindparam("who"),
    )
    .where(manifests.c.id == bindparam("manifest"))
)
_EXTEND = (
    sa.update(manifests)
    .values(lease_until=bindparam("until"))
    .where(manifests.c.id == bindparam("manifest"), manifests.c.lease_until < bindparam("half"))
)
_ADD_BLOB = insert(manifest_blobs).on_conflict_do_nothing(index_elements=["manifest_id", "digest"])
_ADD_EDGE = insert(manifest_edges).on_conflict_do_nothing(index_elements=["parent_id", "kind", "child_digest"])
_ADD_ALIAS = insert(digest_aliases).on_conflict_do_nothing(index_elements=["digest", "manifest_id", "role"])


@dataclass(frozen=True, slots=True)
class PushRequest:
    """One manifest to take. `chain` are its ChainIDs if its config was readable, else `chain_later`.

    `allow_missing` is none, index (children and other index entries) or all. Conditions apply to each tag.
    """

    repository: str
    digest: Digest
    payload: bytes
    manifest: Manifest
    tags: tuple[str, ...]
    allow_missing: str
    lease: int
    chain: tuple[Digest, ...] = ()
    chain_later: bool = False
    if_match: str | None = None
    if_none_match: str | None = None


@dataclass(frozen=True, slots=True)
class Pushed:
    """`created` False: it was here already. `missing` names content that was accepted without being here."""

    manifest_id: int
    created: bool
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Locks:
    """How much a try locks; it grows when the facts ask for it, never inside one transaction."""

    repository_alone: bool = False
    rows_alone: bool = False


class _NeedsLocks(Exception):
    def __init__(self, locks: _Locks) -> None:
        super().__init__(locks)
        self.locks = locks


@dataclass(slots=True)
class _Found:
    """What is here, live, of what the manifest names, and its own row; `missing` in the order named."""

    rows: dict[Digest, Row]
    links: dict[Digest, int]
    missing: list[Digest]


async def push_manifest(db: Database, request: PushRequest, origin: Origin) -> Pushed:
    """Take a manifest, point its tags at it, write its history.

    ManifestBlobUnknown names what is missing and not allowed to be; ManifestInvalid when the same digest is
    here under another media type; PreconditionFailed for the conditions.
    """
    locks = _Locks()
    while True:
        try:
            return await retried(db, lambda session, now=locks: _push(session, request, origin, now))  # type: ignore[misc]
        except _NeedsLocks as more:
            locks = more.locks


async def _push(session: Session, request: PushRequest, origin: Origin, locks: _Locks) -> Pushed:
    repo_id = await lock_repository(session, request.repository, create=True, alone=locks.repository_alone)
    found = await _look(session, repo_id, request, locks)
    _check_missing(request, found, locks)
    manifest_id, created = await _write_row(session, repo_id, request, found, origin)
    if created:
        await _write_references(session, repo_id, manifest_id, request, found)
        await resolve_waiting(session, repo_id, manifest_id, request.digest, _config_of(request.manifest))
        await _write_lineage(session, manifest_id, request)
    now = await session.now()
    await enqueue_review(session, QueueKind.MANIFEST, repo_id, [manifest_id], now + request.lease)
    for tag in request.tags:
        await set_tag(
            session, origin, repo_id, tag, manifest_id, request.digest,
            cause="push", if_match=request.if_match, if_none_match=request.if_none_match,
        )  # fmt: skip
        await fallback.adopt_tag(session, repo_id, tag, manifest_id, request.digest, request.manifest)
    await _tell(session, request, origin)
    return Pushed(manifest_id, created, tuple(str(digest) for digest in found.missing))


async def _look(session: Session, repo_id: int, request: PushRequest, locks: _Locks) -> _Found:
    manifest = request.manifest
    wanted = {request.digest, *manifest.child_digests()}
    if manifest.subject:
        wanted.add(manifest.subject.digest)
    params = {"repo": repo_id, "digests": sorted(digest.packed for digest in wanted)}
    rows = await session.all(_ROWS_ALONE if locks.rows_alone else _ROWS_SHARED, params)
    known = {Digest.unpack(row["digest"]): row for row in rows}
    revived = [row["id"] for digest, row in known.items() if _comes_back(digest, row, request)]
    if (revived or _is_dead(known.get(request.digest))) and not locks.rows_alone:
        raise _NeedsLocks(replace(locks, rows_alone=True))
    if revived:
        await restore_closure(session, repo_id, revived)
    links = await lock_links(session, repo_id, manifest.blobs())
    present = {
        digest for digest, row in known.items() if row["live"] == 1 or row["id"] in revived or digest == request.digest
    }
    missing = [digest for digest in manifest.blobs() if digest not in links]
    missing += [digest for digest in manifest.child_digests() if digest not in present]
    return _Found({digest: row for digest, row in known.items() if digest in present}, links, missing)


def _comes_back(digest: Digest, row: Row, request: PushRequest) -> bool:
    """A child that only a policy trashed is in use again; what a person deleted stays deleted."""
    return digest != request.digest and row["live"] == 0 and row["trash"] == TRASH_POLICY


def _is_dead(row: Row | None) -> bool:
    return row is not None and row["live"] == 0


def _check_missing(request: PushRequest, found: _Found, locks: _Locks) -> None:
    manifest = request.manifest
    named = manifest.blobs()
    forbidden = []
    for digest in found.missing:
        role, descriptor = named.get(digest, (Role.ENTRY, None))
        foreign = descriptor is not None and descriptor.may_be_absent
        allowed = request.allow_missing == "all" or (request.allow_missing == "index" and role is Role.ENTRY)
        if not foreign and not allowed:
            forbidden.append(str(digest))
    if forbidden:
        more = f" and {len(forbidden) - 1} more" if len(forbidden) > 1 else ""
        raise ManifestBlobUnknown(
            f"the manifest names {forbidden[0]}{more}, which {request.repository} does not hold; push it first",
            detail={"digests": forbidden[:100]},
        )
    subject_missing = manifest.subject is not None and manifest.subject.digest not in found.rows
    if (found.missing or subject_missing) and not locks.repository_alone:
        raise _NeedsLocks(replace(locks, repository_alone=True))


async def _write_row(
    session: Session, repo_id: int, request: PushRequest, found: _Found, origin: Origin
) -> tuple[int, bool]:
    now = await session.now()
    media_type = request.manifest.media_type
    own = found.rows.get(request.digest)
    if own is None:
        row = await session.one(
            _INSERT,
            {
                "repo_id": repo_id,
                "digest": request.digest.packed,
                "media_type": media_type,
                "artifact_type": request.manifest.artifact_type,
                "size": len(request.payload),
                "payload": request.payload,
                "subject": request.manifest.subject.digest.packed if request.manifest.subject else None,
                "lease_until": now + request.lease,
                "pushed_at": now,
                "pushed_by": origin.actor,
            },
        )
        if row is not None:
            return row["id"], True
        # A twin push committed after our look; look again with its row in sight.
        again = await session.all(_ROWS_SHARED, {"repo": repo_id, "digests": [request.digest.packed]})
        own = again[0]
        if own["live"] == 0:
            raise _NeedsLocks(_Locks(repository_alone=True, rows_alone=True))
    if own["live"] == 0:
        # Pushed again: what it names is written afresh, as nothing of the old rows may be stale.
        await session.run(_FORGET_BLOBS, {"manifest": own["id"]})
        await session.run(_FORGET_EDGES, {"manifest": own["id"]})
        revived = {"manifest": own["id"], "type": media_type, "now": now, "who": origin.actor}
        await session.run(_REVIVE, {**revived, "until": now + request.lease})
        return own["id"], True
    if own["media_type"] != media_type:
        raise ManifestInvalid(
            f"{request.digest} is here as {own['media_type']}; the same bytes cannot become {media_type}"
        )
    half = now + request.lease // 2
    await session.run(_EXTEND, {"manifest": own["id"], "until": now + request.lease, "half": half})
    return own["id"], False


async def _write_references(
    session: Session, repo_id: int, manifest_id: int, request: PushRequest, found: _Found
) -> None:
    manifest = request.manifest
    named = [
        {
            "manifest_id": manifest_id,
            "repo_id": repo_id,
            "m_live": 1,
            "digest": digest.packed,
            "role": role.value,
            "size": descriptor.size,
            "blob_id": found.links.get(digest),
            "absent": 0 if digest in found.links else (ABSENT_FOREIGN if descriptor.may_be_absent else ABSENT_SPARSE),
        }
        for digest, (role, descriptor) in manifest.blobs().items()
    ]
    if named:
        await session.run_many(_ADD_BLOB, named)
    edges = [_edge(repo_id, manifest_id, 1, child, found.rows.get(child)) for child in manifest.child_digests()]
    if manifest.subject and manifest.subject.digest in found.rows:
        subject = found.rows[manifest.subject.digest]
        edges.append(_edge(repo_id, subject["id"], 2, request.digest, {"id": manifest_id}))
    if edges:
        await session.run_many(_ADD_EDGE, edges)


def _edge(
    repo_id: int, parent_id: int, kind: int, child: Digest, row: Row | dict[str, int] | None
) -> dict[str, object]:
    return {
        "parent_id": parent_id,
        "repo_id": repo_id,
        "p_live": 1,
        "kind": kind,
        "child_digest": child.packed,
        "child_id": row["id"] if row is not None else None,
        "absent": 0 if row is not None else ABSENT_SPARSE,
    }


async def _write_lineage(session: Session, manifest_id: int, request: PushRequest) -> None:
    aliases: Sequence[tuple[Digest | None, int]] = ((request.digest, 1), (_config_of(request.manifest), 2))
    await session.run_many(
        _ADD_ALIAS,
        [
            {"digest": digest.packed, "manifest_id": manifest_id, "role": role}
            for digest, role in aliases
            if digest is not None
        ],
    )
    await index_chain(session, manifest_id, request.chain)
    if request.chain_later and not request.chain:
        await enqueue(
            session, "lineage.index", str(manifest_id), payload={"manifest_id": manifest_id},
            due_at=await session.now(),
        )  # fmt: skip


def _config_of(manifest: Manifest) -> Digest | None:
    return manifest.config.digest if manifest.config and manifest.kind is Kind.IMAGE else None


async def _tell(session: Session, request: PushRequest, origin: Origin) -> None:
    target = {
        "mediaType": request.manifest.media_type,
        "digest": str(request.digest),
        "size": len(request.payload),
        "length": len(request.payload),
    }
    for tag in request.tags:
        await emit(session, origin, "push", request.repository, {**target, "tag": tag})
    if not request.tags:
        await emit(session, origin, "push", request.repository, target)
