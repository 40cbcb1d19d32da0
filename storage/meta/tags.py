"""Tags: list, move, delete; every move is an event in the tag's history."""

from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import Digest
from tenure.core.errors import ManifestUnknown, NameUnknown, PreconditionFailed
from tenure.core.origin import Origin
from tenure.core.page import PageRequest
from tenure.storage.meta.database import Database, Row, Session
from tenure.storage.meta.events import audit, emit, record_tag_move
from tenure.storage.meta.manifests import TRASH_PERSON
from tenure.storage.meta.queue import QueueKind, enqueue_review
from tenure.storage.meta.records import tag_events
from tenure.storage.meta.refusals import retried
from tenure.storage.meta.repositories import lock_repository, repository_exists
from tenure.storage.meta.statements import insert
from tenure.storage.meta.tables import manifests, repos, tags
from tenure.storage.meta.trash import trash_names

_HERE = (repos.c.name == bindparam("repository"), repos.c.live == 1)
_LIST = (
    sa.select(tags.c.name)
    .join(repos, repos.c.id == tags.c.repo_id)
    .where(*_HERE, tags.c.name > bindparam("last"))
    .order_by(tags.c.name)
    .limit(bindparam("n"))
)
_ROWS = (
    sa.select(
        tags.c.name, tags.c.version, tags.c.moved_at, manifests.c.digest, manifests.c.media_type, manifests.c.size
    )
    .select_from(tags.join(repos, repos.c.id == tags.c.repo_id).join(manifests, manifests.c.id == tags.c.manifest_id))
    .where(*_HERE)
)
_ROW = _ROWS.where(tags.c.name == bindparam("tag"))
_ROW_PAGE = _ROWS.where(tags.c.name > bindparam("last")).order_by(tags.c.name).limit(bindparam("n"))
# By name, over all repositories that ever bore it: what was moved does not cease to have been moved.
_HISTORY = (
    sa.select(tag_events)
    .join(repos, repos.c.id == tag_events.c.repo_id)
    .where(repos.c.name == bindparam("repository"), tag_events.c.id < bindparam("before"))
    .order_by(tag_events.c.id.desc())
    .limit(bindparam("n"))
)
_HISTORY_OF = _HISTORY.where(tag_events.c.tag == bindparam("tag"))
# One table alone. After waiting for a lock Postgres looks at the new version of the locked row and at the old ones of
# whatever is joined to it: the row of a tag that has moved would be gone from the answer.
_LOCK = (
    sa.select(tags.c.manifest_id, tags.c.version)
    .where(tags.c.repo_id == bindparam("repo"), tags.c.name == bindparam("tag"))
    .with_for_update()
)
_DIGEST = sa.select(manifests.c.digest).where(manifests.c.id == bindparam("manifest"))
_CREATE = insert(tags).on_conflict_do_nothing(index_elements=["repo_id", "name"])
_MOVE = (
    sa.update(tags)
    .values(manifest_id=bindparam("target"), version=tags.c.version + 1, moved_at=bindparam("now"))
    .where(tags.c.repo_id == bindparam("repo"), tags.c.name == bindparam("tag"))
)
_DROP = sa.delete(tags).where(tags.c.repo_id == bindparam("repo"), tags.c.name == bindparam("tag"))
_LIVE_MANIFEST = (
    sa.select(manifests.c.id)
    .where(manifests.c.repo_id == bindparam("repo"), manifests.c.digest == bindparam("digest"), manifests.c.live == 1)
    .with_for_update(read=True, key_share=True)
)
_LAST_ID = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag and what it points at. `version` counts its moves."""

    name: str
    digest: Digest
    media_type: str
    size: int
    moved_at: int
    version: int


class _Held(NamedTuple):
    """A tag's row, locked."""

    manifest_id: int
    version: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class TagEvent:
    """One move: None in `old` is a birth, in `new` an end. cause: push, retag, delete, expire, restore, ..."""

    id: int
    tag: str
    old: Digest | None
    new: Digest | None
    actor: str
    cause: str
    request_id: str | None
    at: int


async def list_tags(db: Database, repository: str, page: PageRequest) -> list[str]:
    """Names after `page.last` in byte order, `page.n` at most. NameUnknown where there is no such repository."""
    rows = await db.all(_LIST, {"repository": repository, "last": page.last, "n": page.n})
    if not rows and not await repository_exists(db, repository):
        raise NameUnknown(f"repository {repository} is not known here")
    return [row["name"] for row in rows]


async def get_tag(db: Database, repository: str, tag: str) -> Tag | None:
    row = await db.one(_ROW, {"repository": repository, "tag": tag})
    return None if row is None else _tag(row)


async def list_tag_rows(db: Database, repository: str, page: PageRequest) -> list[Tag]:
    """As list_tags, with what each points at."""
    rows = await db.all(_ROW_PAGE, {"repository": repository, "last": page.last, "n": page.n})
    if not rows and not await repository_exists(db, repository):
        raise NameUnknown(f"repository {repository} is not known here")
    return [_tag(row) for row in rows]


async def tag_history(
    db: Database, repository: str, tag: str | None, *, limit: int, before: int | None
) -> list[TagEvent]:
    """Moves of one tag, or of all of a repository, newest first, with ids below `before`.

    Those of a repository of that name that was deleted are among them. NameUnknown where there never was one.
    """
    params = {"repository": repository, "n": limit, "before": _LAST_ID if before is None else before}
    rows = await (db.all(_HISTORY, params) if tag is None else db.all(_HISTORY_OF, {**params, "tag": tag}))
    if not rows and not await repository_exists(db, repository):
        raise NameUnknown(f"repository {repository} is not known here")
    return [
        TagEvent(
            row["id"],
            row["tag"],
            Digest.unpack(row["old_digest"]) if row["old_digest"] else None,
            Digest.unpack(row["new_digest"]) if row["new_digest"] else None,
            row["actor"],
            row["cause"],
            row["request_id"],
            row["at"],
        )
        for row in rows
    ]


async def delete_tag(db: Database, repository: str, tag: str, origin: Origin, *, trash_for: int) -> None:
    """The name goes at once, its manifest stays. ManifestUnknown where there is no such tag."""

    async def work(session: Session) -> None:
        repo_id = await lock_repository(session, repository)
        held = await _lock(session, repo_id, tag)
        if held is None:
            raise ManifestUnknown(f"tag {tag} is not known in {repository}")
        now = await session.now()
        pairs = [(tag, held.manifest_id)]
        await trash_names(session, repo_id, pairs, trash=TRASH_PERSON, purge_at=now + trash_for)
        await session.run(_DROP, {"repo": repo_id, "tag": tag})
        await record_tag_move(session, origin, repo_id, tag, old=held.digest, new=None, cause="delete")
        await enqueue_review(session, QueueKind.MANIFEST, repo_id, [held.manifest_id], now)
        await audit(session, origin, action="tag.delete", repository=repository, target=tag,
                    detail={"digest": str(held.digest)})  # fmt: skip
        await emit(session, origin, "delete", repository, {"tag": tag, "digest": str(held.digest)})

    await retried(db, work)


async def move_tag(
    db: Database, repository: str, tag: str, digest: Digest, origin: Origin, *, if_version: int | None
) -> tuple[Tag, Digest | None]:
    """Point a tag at a manifest that is already here; `if_version` 0 means "only if there is no such tag".

    The tag, and what it pointed at before this very move. ManifestUnknown for an unknown digest,
    PreconditionFailed when the tag moved meanwhile.
    """

    async def work(session: Session) -> Digest | None:
        repo_id = await lock_repository(session, repository)
        target = await session.one(_LIVE_MANIFEST, {"repo": repo_id, "digest": digest.packed})
        if target is None:
            raise ManifestUnknown(f"{digest} is not known in {repository}")
        previous, moved = await set_tag(
            session, origin, repo_id, tag, target["id"], digest, cause="retag", if_version=if_version
        )
        if moved:
            await emit(session, origin, "push", repository, {"tag": tag, "digest": str(digest)})
        await audit(session, origin, action="tag.move", repository=repository, target=tag,
                    detail={"digest": str(digest)})  # fmt: skip
        return previous

    previous = await retried(db, work)
    moved = await get_tag(db, repository, tag)
    if moved is None:
        raise PreconditionFailed(f"tag {tag} was deleted meanwhile")
    return moved, previous


async def set_tag(
    session: Session, origin: Origin, repo_id: int, tag: str, manifest_id: int, digest: Digest,
    *, cause: str, if_match: str | None = None, if_none_match: str | None = None, if_version: int | None = None,
) -> tuple[Digest | None, bool]:  # fmt: skip
    """Inside the caller's transaction: create or move a tag, write its event.

    What it pointed at, and whether it moved: never without its row written and its event beside it. The conditions
    are those of RFC 9110 on the tag's ETag, the quoted digest it points at now.
    """
    now = await session.now()
    while True:
        held = await _lock(session, repo_id, tag)
        _check_conditions(tag, held.digest if held else None, if_match, if_none_match)
        version = held.version if held else 0
        if if_version is not None and if_version != version:
            raise PreconditionFailed(f"tag {tag} is at version {version} now")
        if held is not None:
            break
        row = {"repo_id": repo_id, "name": tag, "manifest_id": manifest_id, "moved_at": now}
        if await session.run(_CREATE, row):
            await record_tag_move(session, origin, repo_id, tag, old=None, new=digest, cause=cause)
            return None, True
        # Somebody created it between the look and the insert, and may have deleted it again: look once more.
    if held.manifest_id == manifest_id:
        return held.digest, False
    await session.run(_MOVE, {"repo": repo_id, "tag": tag, "target": manifest_id, "now": now})
    await enqueue_review(session, QueueKind.MANIFEST, repo_id, [held.manifest_id], now)
    await record_tag_move(session, origin, repo_id, tag, old=held.digest, new=digest, cause=cause)
    return held.digest, True


async def _lock(session: Session, repo_id: int, tag: str) -> _Held | None:
    row = await session.one(_LOCK, {"repo": repo_id, "tag": tag})
    if row is None:
        return None
    # The tag's foreign key keeps the manifest, and a manifest's digest never changes.
    manifest = await session.one(_DIGEST, {"manifest": row["manifest_id"]})
    assert manifest is not None
    return _Held(row["manifest_id"], row["version"], Digest.unpack(manifest["digest"]))


def _check_conditions(tag: str, current: Digest | None, if_match: str | None, if_none_match: str | None) -> None:
    if if_match is not None and not _matches(if_match, current):
        raise PreconditionFailed(f"tag {tag} does not point at what If-Match names; it is at {current or 'nothing'}")
    if if_none_match is not None and _matches(if_none_match, current):
        raise PreconditionFailed(f"tag {tag} exists already and points at {current}")


def _matches(condition: str, current: Digest | None) -> bool:
    if current is None:
        return False
    wanted = [part.strip().removeprefix("W/").strip('"') for part in condition.split(",")]
    return "*" in wanted or str(current) in wanted


def _tag(row: Row) -> Tag:
    return Tag(
        row["name"],
        Digest.unpack(row["digest"]),
        row["media_type"],
        row["size"],
        row["moved_at"],
        row["version"],
    )
