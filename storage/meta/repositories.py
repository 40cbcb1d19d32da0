"""Repositories: names in use. A name is unique among the living; an id is never used again."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.errors import NameUnknown
from tenure.core.page import PageRequest
from tenure.storage.meta.database import Database, Session
from tenure.storage.meta.statements import insert
from tenure.storage.meta.tables import manifest_blobs, manifests, repo_blobs, repos, tags

_LIVE = sa.and_(repos.c.name == bindparam("repository"), repos.c.live == 1)
_FIND = sa.select(repos.c.id).where(_LIVE)
_SHARE = _FIND.with_for_update(read=True, key_share=True)
_ALONE = _FIND.with_for_update()
_CREATE = (
    insert(repos).on_conflict_do_nothing(index_elements=["name"], index_where=sa.text("live = 1")).returning(repos.c.id)
)
_LIST = (
    sa.select(repos.c.name)
    .where(
        repos.c.live == 1,
        repos.c.name > bindparam("last"),
        sa.exists().where(manifests.c.repo_id == repos.c.id, manifests.c.live == 1),
    )
    .order_by(repos.c.name)
    .limit(bindparam("n"))
)
_SIZE = (
    sa.select(sa.func.coalesce(sa.func.sum(manifest_blobs.c.size), 0))
    .where(
        manifest_blobs.c.repo_id == repos.c.id,
        manifest_blobs.c.m_live == 1,
        manifest_blobs.c.manifest_id
        == sa.select(sa.func.min(sa.literal_column("other.manifest_id")))
        .select_from(manifest_blobs.alias("other"))
        .where(
            sa.literal_column("other.repo_id") == manifest_blobs.c.repo_id,
            sa.literal_column("other.digest") == manifest_blobs.c.digest,
            sa.literal_column("other.m_live") == 1,
        )
        .correlate(manifest_blobs)
        .scalar_subquery(),
    )
    .correlate(repos)
    .scalar_subquery()
)
_SHOW = sa.select(
    repos.c.id,
    repos.c.name,
    repos.c.created_at,
    sa.select(sa.func.count())
    .select_from(tags)
    .where(tags.c.repo_id == repos.c.id)
    .correlate(repos)
    .scalar_subquery()
    .label("tags"),
    sa.select(sa.func.count())
    .select_from(manifests)
    .where(manifests.c.repo_id == repos.c.id, manifests.c.live == 1)
    .correlate(repos)
    .scalar_subquery()
    .label("manifests"),
    _SIZE.label("size"),
).where(_LIVE)
_HOLDS_ANYTHING = sa.select(sa.literal(1).label("one")).where(
    sa.exists().where(repo_blobs.c.repo_id == bindparam("repo_id"))
)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository and what it holds: `size` counts each blob named by a live manifest once, in bytes."""

    id: int
    name: str
    created_at: int
    tags: int
    manifests: int
    size: int


async def repository_exists(db: Database, name: str) -> bool:
    return await db.one(_FIND, {"repository": name}) is not None


async def list_repositories(db: Database, page: PageRequest) -> list[str]:
    """Names after `page.last`, `page.n` at most, byte order; only those that hold a live manifest."""
    rows = await db.all(_LIST, {"last": page.last, "n": page.n})
    return [row["name"] for row in rows]


async def get_repository(db: Database, name: str) -> Repository:
    """NameUnknown where there is none."""
    row = await db.one(_SHOW, {"repository": name})
    if row is None:
        raise NameUnknown(f"repository {name} is not known here")
    return Repository(row["id"], row["name"], row["created_at"], row["tags"], row["manifests"], int(row["size"]))


async def lock_repository(session: Session, name: str, *, create: bool = False, alone: bool = False) -> int:
    """The id, locked against deletion; with `alone` against every other writer of this repository too.

    First in the lock order: repos, manifests, repo_blobs, blobs, objects, tags and holds, gc_queue.
    """
    statement = _ALONE if alone else _SHARE
    row = await session.one(statement, {"repository": name})
    if row is None and create:
        # Two first pushes may meet here: the loser of the insert finds the winner's row.
        await session.one(_CREATE, {"name": name, "created_at": await session.now()})
        row = await session.one(statement, {"repository": name})
    if row is None:
        raise NameUnknown(f"repository {name} is not known here")
    return int(row["id"])
