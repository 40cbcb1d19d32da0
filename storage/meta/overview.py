"""Reads for people: what the admin API shows beside what the data plane needs. No function here writes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import Digest
from tenure.core.errors import ManifestUnknown, NameUnknown
from tenure.storage.meta.database import Database, Row
from tenure.storage.meta.records import audit_events
from tenure.storage.meta.repositories import repository_exists
from tenure.storage.meta.statements import any_of
from tenure.storage.meta.tables import blobs, manifest_blobs, manifest_edges, manifests, objects, repos, tags

LAST_ID = (1 << 63) - 1

_HERE = (repos.c.name == bindparam("repository"), repos.c.live == 1)
_REPOSITORIES = (
    sa.select(repos.c.id, repos.c.name, repos.c.created_at)
    .where(
        repos.c.live == 1,
        repos.c.name > bindparam("last"),
        repos.c.name >= bindparam("begin"),
        repos.c.name < bindparam("end"),
        sa.exists().where(manifests.c.repo_id == repos.c.id, manifests.c.live == 1),
    )
    .order_by(repos.c.name)
    .limit(bindparam("n"))
)
_TAG_COUNTS = (
    sa.select(tags.c.repo_id, sa.func.count().label("many"))
    .where(any_of(tags.c.repo_id, "ids"))
    .group_by(tags.c.repo_id)
)
_MANIFEST_COUNTS = (
    sa.select(manifests.c.repo_id, sa.func.count().label("many"), sa.func.max(manifests.c.pushed_at).label("pushed_at"))
    .where(any_of(manifests.c.repo_id, "ids"), manifests.c.live == 1)
    .group_by(manifests.c.repo_id)
)
_MANIFEST_COLUMNS = (
    manifests.c.id,
    manifests.c.digest,
    manifests.c.media_type,
    manifests.c.artifact_type,
    manifests.c.size,
    manifests.c.subject,
    manifests.c.pushed_at,
    manifests.c.pushed_by,
)
_MANIFESTS = (
    sa.select(*_MANIFEST_COLUMNS)
    .join(repos, repos.c.id == manifests.c.repo_id)
    .where(*_HERE, manifests.c.live == 1, manifests.c.id < bindparam("before"))
    .order_by(manifests.c.id.desc())
    .limit(bindparam("n"))
)
_UNTAGGED = _MANIFESTS.where(~sa.exists().where(tags.c.manifest_id == manifests.c.id))
_MANIFEST = (
    sa.select(*_MANIFEST_COLUMNS, manifests.c.repo_id, manifests.c.payload)
    .join(repos, repos.c.id == manifests.c.repo_id)
    .where(*_HERE, manifests.c.digest == bindparam("digest"), manifests.c.live == 1)
)
_TAGS_OF = (
    sa.select(tags.c.manifest_id, tags.c.name)
    .where(any_of(tags.c.manifest_id, "ids"))
    .order_by(tags.c.manifest_id, tags.c.name)
)
_ABSENT_BLOBS = sa.select(manifest_blobs.c.digest, manifest_blobs.c.absent).where(
    manifest_blobs.c.manifest_id == bindparam("manifest"), manifest_blobs.c.absent > 0
)
_ABSENT_CHILDREN = sa.select(manifest_edges.c.child_digest, manifest_edges.c.absent).where(
    manifest_edges.c.parent_id == bindparam("manifest"), manifest_edges.c.kind == 1, manifest_edges.c.absent > 0
)
_PARENTS = (
    sa.select(manifests.c.digest)
    .join(manifest_edges, manifest_edges.c.parent_id == manifests.c.id)
    .where(
        manifest_edges.c.child_id == bindparam("manifest"), manifest_edges.c.kind == 1, manifest_edges.c.need_live == 1
    )
    .order_by(manifests.c.id)
    .limit(1000)
)
_REFERRERS = (
    sa.select(manifests.c.digest, manifests.c.artifact_type)
    .where(manifests.c.repo_id == bindparam("repo"), manifests.c.subject == bindparam("digest"), manifests.c.live == 1)
    .order_by(manifests.c.id)
    .limit(1000)
)
_CONFIG = (
    sa.select(objects.c.key, blobs.c.size)
    .select_from(
        manifest_blobs.join(blobs, blobs.c.id == manifest_blobs.c.blob_id).join(
            objects, objects.c.id == blobs.c.object_id
        )
    )
    .where(manifest_blobs.c.manifest_id == bindparam("manifest"), manifest_blobs.c.role == 1)
)
_AUDIT_ORDER = audit_events.c.id.desc()


@dataclass(frozen=True, slots=True)
class RepositoryLine:
    """One line of the list of repositories. Times in microseconds; `pushed_at` is the last push."""

    name: str
    created_at: int
    pushed_at: int | None
    tags: int
    manifests: int


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One line of the list of manifests. `size` is that of the manifest itself, in bytes."""

    id: int
    digest: Digest
    media_type: str
    artifact_type: str | None
    size: int
    subject: Digest | None
    pushed_at: int | None
    pushed_by: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """A manifest with all that stands around it.

    `absent` names content it lists that is not here and why (1 foreign, 2 sparse, 3 erased, 4 severed);
    `referrers` are (digest, artifact type). Parents and referrers: the first 1000.
    """

    line: ManifestLine
    payload: bytes
    absent: Mapping[Digest, int]
    parents: tuple[Digest, ...]
    referrers: tuple[tuple[Digest, str | None], ...]


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One audit row."""

    id: int
    at: int
    actor: str
    address: str | None
    request_id: str | None
    action: str
    repository: str | None
    target: str | None
    outcome: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What to show: None means any. Times in microseconds, `since` inclusive, `until` exclusive."""

    actor: str | None = None
    action: str | None = None
    repository: str | None = None
    since: int | None = None
    until: int | None = None


async def repository_lines(db: Database, *, prefix: str, last: str, limit: int) -> list[RepositoryLine]:
    """Repositories that hold a live manifest and whose name begins with `prefix`, after `last`, byte order."""
    # Names are ASCII below DEL, so every name with this prefix sorts below prefix + DEL.
    bounds = {"last": last, "begin": prefix, "end": prefix + "\x7f", "n": limit}
    rows = await db.all(_REPOSITORIES, bounds)
    if not rows:
        return []
    ids = {"ids": [row["id"] for row in rows]}
    tagged = {row["repo_id"]: row["many"] for row in await db.all(_TAG_COUNTS, ids)}
    held = {row["repo_id"]: row for row in await db.all(_MANIFEST_COUNTS, ids)}
    return [_repository_line(row, tagged.get(row["id"], 0), held.get(row["id"])) for row in rows]


async def last_push(db: Database, repo_id: int) -> int | None:
    """When a live manifest of this repository was last pushed."""
    row = await db.one(_MANIFEST_COUNTS, {"ids": [repo_id]})
    return None if row is None else row["pushed_at"]


async def manifest_lines(
    db: Database, repository: str, *, untagged: bool, before: int, limit: int
) -> list[ManifestLine]:
    """Live manifests with ids below `before`, newest first. NameUnknown where there is no such repository."""
    statement = _UNTAGGED if untagged else _MANIFESTS
    rows = await db.all(statement, {"repository": repository, "before": before, "n": limit})
    if not rows:
        if not await repository_exists(db, repository):
            raise NameUnknown(f"repository {repository} is not known here")
        return []
    names = await _tags_of(db, [row["id"] for row in rows])
    return [_manifest_line(row, names) for row in rows]


async def get_manifest_record(db: Database, repository: str, digest: Digest) -> ManifestRecord:
    """NameUnknown, ManifestUnknown."""
    row = await db.one(_MANIFEST, {"repository": repository, "digest": digest.packed})
    if row is None:
        if not await repository_exists(db, repository):
            raise NameUnknown(f"repository {repository} is not known here")
        raise ManifestUnknown(f"{digest} is not known in {repository}")
    own = {"manifest": row["id"]}
    absent = {Digest.unpack(blob["digest"]): blob["absent"] for blob in await db.all(_ABSENT_BLOBS, own)}
    for edge in await db.all(_ABSENT_CHILDREN, own):
        absent[Digest.unpack(edge["child_digest"])] = edge["absent"]
    around = {"repo": row["repo_id"], "digest": digest.packed}
    return ManifestRecord(
        line=_manifest_line(row, await _tags_of(db, [row["id"]])),
        payload=bytes(row["payload"]),
        absent=absent,
        parents=tuple(Digest.unpack(parent["digest"]) for parent in await db.all(_PARENTS, own)),
        referrers=tuple(
            (Digest.unpack(found["digest"]), found["artifact_type"]) for found in await db.all(_REFERRERS, around)
        ),
    )


async def config_object(db: Database, manifest_id: int) -> tuple[str, int] | None:
    """Key and size in bytes of the config a manifest names; None where it has none or it is not here."""
    row = await db.one(_CONFIG, {"manifest": manifest_id})
    return None if row is None else (row["key"], row["size"])


async def audit_lines(db: Database, wanted: AuditFilter, *, before: int, limit: int) -> list[AuditLine]:
    """Audit rows with ids below `before`, newest first."""
    columns = audit_events.c
    conditions: list[sa.ColumnElement[bool]] = [columns.id < bindparam("before")]
    params: dict[str, Any] = {"before": before, "n": limit}
    for name, condition in (
        ("actor", columns.actor == bindparam("wanted_actor")),
        ("action", columns.action == bindparam("wanted_action")),
        ("repository", columns.repository == bindparam("wanted_repository")),
        ("since", columns.at >= bindparam("wanted_since")),
        ("until", columns.at < bindparam("wanted_until")),
    ):
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(condition)
            params[f"wanted_{name}"] = value
    rows = await db.all(_audit_statement(tuple(sorted(params)), conditions), params)
    return [
        AuditLine(
            row["id"],
            row["at"],
            row["actor"],
            row["address"],
            row["request_id"],
            row["action"],
            row["repository"],
            row["target"],
            row["outcome"],
            json.loads(row["detail"]),
        )
        for row in rows
    ]


_audit_statements: dict[tuple[str, ...], sa.Select[Any]] = {}


def _audit_statement(names: tuple[str, ...], conditions: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    # One statement for each set of filters (32 at most), built once: compiled statements are kept by identity.
    statement = _audit_statements.get(names)
    if statement is None:
        statement = sa.select(audit_events).where(*conditions).order_by(_AUDIT_ORDER).limit(bindparam("n"))
        _audit_statements[names] = statement
    return statement


async def _tags_of(db: Database, manifest_ids: Sequence[int]) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for row in await db.all(_TAGS_OF, {"ids": list(manifest_ids)}):
        names.setdefault(row["manifest_id"], []).append(row["name"])
    return names


def _repository_line(row: Row, tagged: int, held: Row | None) -> RepositoryLine:
    return RepositoryLine(
        name=row["name"],
        created_at=row["created_at"],
        pushed_at=None if held is None else held["pushed_at"],
        tags=tagged,
        manifests=0 if held is None else held["many"],
    )


def _manifest_line(row: Row, names: Mapping[int, Sequence[str]]) -> ManifestLine:
    return ManifestLine(
        id=row["id"],
        digest=Digest.unpack(row["digest"]),
        media_type=row["media_type"],
        artifact_type=row["artifact_type"],
        size=row["size"],
        subject=Digest.unpack(row["subject"]) if row["subject"] else None,
        pushed_at=row["pushed_at"],
        pushed_by=row["pushed_by"],
        tags=tuple(names.get(row["id"], ())),
    )
