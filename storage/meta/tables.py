"""The tables and their constraints: what the database itself refuses.

The idea (docs/safety.md): *existence is liveness*. What protects content points at it with a foreign key,
and where a thing has two lives (a manifest and its trash, an object and its end) the state is part of the
referenced key: `manifests(id, live)`, `objects(id, state)`. So no code path, however wrong, can condemn what
is referenced. Times are microseconds since 1970 (BIGINT), digests one algorithm byte and the raw hash.
History, work queues and the rest of the operator's tables stand in `records.py`.
"""

import sqlalchemy as sa
from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_%(column_0_N_name)s_uq",
        "fk": "%(table_name)s_%(column_0_N_name)s_fk",
        "ck": "%(table_name)s_%(constraint_name)s_ck",
        "ix": "%(table_name)s_%(column_0_N_name)s_ix",
    }
)

#: 64 bits everywhere; SQLite numbers rows only for a column declared INTEGER.
Big = sa.BigInteger().with_variant(Integer, "sqlite")

#: Names sort byte by byte, on both databases and in every locale.
Name = Text(collation="C").with_variant(Text(), "sqlite")


def new_id() -> "Column[int]":
    """A row number that is never used twice (on SQLite only AUTOINCREMENT promises that)."""
    return Column("id", Big, sa.Identity(), primary_key=True)


def composite_key(
    local: list[str],
    remote: list[str],
    *,
    cascade: bool = False,
    name: str | None = None,
    defer: bool = False,
) -> sa.ForeignKeyConstraint:
    """A foreign key on several columns: NO ACTION, or CASCADE from the row that owns this one."""
    action = "CASCADE" if cascade else "NO ACTION"
    return sa.ForeignKeyConstraint(
        local, remote, name=name, onupdate=action, ondelete=action,
        deferrable=True if defer else None, initially="IMMEDIATE" if defer else None,
    )  # fmt: skip


repos = Table(
    "repos", metadata, new_id(),
    Column("name", Name, nullable=False),
    Column("live", SmallInteger, nullable=False, server_default=text("1")),
    Column("created_at", Big, nullable=False, server_default=text("0")),
    Column("deleted_at", Big),
    CheckConstraint("live IN (0,1)", name="live"),
    UniqueConstraint("id", "live"),
    sqlite_autoincrement=True,
)  # fmt: skip
Index(
    "repos_name_live",
    repos.c.name,
    unique=True,
    postgresql_where=text("live = 1"),
    sqlite_where=text("live = 1"),
)

#: The physical journal: one row for every key ever written, committed before the first byte.
#: state: 1 UPLOADING 2 LIVE 3 TRASHED 4 DELETING 5 GONE. kind: 1 content, 2 tail of an open upload.
objects = Table(
    "objects", metadata, new_id(),
    Column("key", Name, nullable=False),
    Column("kind", SmallInteger, nullable=False, server_default=text("1")),
    Column("digest", LargeBinary),
    Column("size", Big),
    Column("state", SmallInteger, nullable=False),
    Column("multipart_id", Text),
    Column("version_id", Text),
    Column("write_deadline", Big),
    Column("not_before", Big),
    Column("next_try", Big),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("last_error", Text),
    Column("reason", SmallInteger),
    Column("gc_run", Big),
    Column("created_at", Big),
    Column("changed_at", Big),
    CheckConstraint("kind IN (1,2)", name="kind"),
    CheckConstraint("state BETWEEN 1 AND 5", name="state"),
    UniqueConstraint("key"),
    UniqueConstraint("id", "state"),
    sqlite_autoincrement=True,
)  # fmt: skip
_OPEN_STATES = text("state IN (1,3,4)")
Index("objects_work", objects.c.next_try, postgresql_where=_OPEN_STATES, sqlite_where=_OPEN_STATES)

#: Open upload sessions. An object with an open session can be neither closed nor condemned (o_state).
uploads = Table(
    "uploads", metadata, new_id(),
    Column("session", Text, nullable=False),
    Column("repo_id", Big, ForeignKey("repos.id", ondelete="NO ACTION"), nullable=False),
    Column("object_id", Big, nullable=False),
    Column("o_state", SmallInteger, nullable=False, server_default=text("1")),
    Column("byte_offset", Big, nullable=False, server_default=text("0")),
    Column("algorithms", Text, nullable=False, server_default=text("'sha256'")),
    Column("hash_state", LargeBinary),
    Column("next_part", Integer, nullable=False, server_default=text("1")),
    Column("tail", LargeBinary),
    Column("tail_object_id", Big),
    Column("t_state", SmallInteger),
    Column("version", Big, nullable=False, server_default=text("0")),
    Column("owner", Text),
    Column("owner_until", Big),
    Column("deadline", Big),
    Column("actor", Text),
    Column("created_at", Big),
    UniqueConstraint("session"),
    UniqueConstraint("object_id"),
    UniqueConstraint("tail_object_id"),
    CheckConstraint("o_state = 1", name="o_state"),
    CheckConstraint("t_state = 1", name="t_state"),
    CheckConstraint("(tail_object_id IS NULL) = (t_state IS NULL)", name="tail"),
    composite_key(["object_id", "o_state"], ["objects.id", "objects.state"]),
    composite_key(["tail_object_id", "t_state"], ["objects.id", "objects.state"]),
    sqlite_autoincrement=True,
)  # fmt: skip
Index(None, uploads.c.repo_id)
Index(None, uploads.c.deadline)

upload_parts = Table(
    "upload_parts", metadata,
    Column("upload_id", Big, ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("part_no", Integer, primary_key=True),
    Column("etag", Text, nullable=False),
    Column("size", Big, nullable=False),
)  # fmt: skip

#: Content that exists: one row a digest. Its object must be LIVE (o_state) as long as the row is there.
blobs = Table(
    "blobs", metadata, new_id(),
    Column("digest", LargeBinary, nullable=False),
    Column("size", Big, nullable=False),
    Column("object_id", Big, nullable=False),
    Column("o_state", SmallInteger, nullable=False, server_default=text("2")),
    Column("verified_at", Big),
    Column("damaged", SmallInteger, nullable=False, server_default=text("0")),
    UniqueConstraint("digest"),
    UniqueConstraint("object_id"),
    CheckConstraint("o_state = 2", name="o_state"),
    composite_key(["object_id", "o_state"], ["objects.id", "objects.state"]),
    sqlite_autoincrement=True,
)  # fmt: skip

#: A blob is visible in a repository by this link; the lease keeps "we said 200" true for a while.
repo_blobs = Table(
    "repo_blobs", metadata,
    Column("repo_id", Big, ForeignKey("repos.id", ondelete="NO ACTION"), primary_key=True),
    Column("blob_id", Big, ForeignKey("blobs.id", ondelete="NO ACTION"), primary_key=True),
    Column("lease_until", Big, nullable=False),
)  # fmt: skip
Index(None, repo_blobs.c.blob_id)

#: trash: 0 none, 1 by policy (still pullable), 2 by a person (hidden), 3 erased.
manifests = Table(
    "manifests", metadata, new_id(),
    Column("repo_id", Big, ForeignKey("repos.id", ondelete="NO ACTION"), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("artifact_type", Text),
    Column("size", Big, nullable=False, server_default=text("0")),
    Column("payload", LargeBinary, nullable=False),
    Column("subject", LargeBinary),
    Column("live", SmallInteger, nullable=False, server_default=text("1")),
    Column("trash", SmallInteger, nullable=False, server_default=text("0")),
    Column("trash_batch", Big),
    Column("trashed_at", Big),
    Column("purge_at", Big),
    Column("lease_until", Big),
    Column("pushed_at", Big),
    Column("pushed_by", Text),
    CheckConstraint("live IN (0,1)", name="live"),
    CheckConstraint("trash IN (0,1,2,3)", name="trash"),
    CheckConstraint("(live = 1) = (trash = 0)", name="live_or_trash"),
    CheckConstraint("live = 1 OR purge_at IS NOT NULL", name="purge"),
    UniqueConstraint("repo_id", "digest"),
    UniqueConstraint("id", "live"),
    UniqueConstraint("id", "repo_id", "live"),
    sqlite_autoincrement=True,
)  # fmt: skip
Index("manifests_subject", manifests.c.repo_id, manifests.c.subject,
      postgresql_where=text("subject IS NOT NULL"), sqlite_where=text("subject IS NOT NULL"))  # fmt: skip
Index(None, manifests.c.digest)
Index("manifests_purge", manifests.c.purge_at, postgresql_where=text("live = 0"), sqlite_where=text("live = 0"))

#: What a manifest names. Bytes are pinned by blob_id always, also in trash; the visible link only while the
#: manifest lives (link_repo is NULL in trash). absent: 0 present, 1 foreign, 2 sparse, 3 erased.
manifest_blobs = Table(
    "manifest_blobs", metadata,
    Column("manifest_id", Big, primary_key=True, autoincrement=False),
    Column("repo_id", Big, nullable=False),
    Column("m_live", SmallInteger, nullable=False),
    Column("digest", LargeBinary, primary_key=True),
    Column("role", SmallInteger, nullable=False),
    Column("size", Big, nullable=False, server_default=text("0")),
    Column("blob_id", Big, ForeignKey("blobs.id", ondelete="NO ACTION")),
    Column("absent", SmallInteger, nullable=False, server_default=text("0")),
    Column("link_repo", Big, Computed("CASE WHEN m_live = 1 THEN repo_id END", persisted=True)),
    CheckConstraint("(blob_id IS NULL) = (absent > 0)", name="absent_says_why"),
    composite_key(["manifest_id", "repo_id", "m_live"],
                  ["manifests.id", "manifests.repo_id", "manifests.live"], cascade=True),
    composite_key(["link_repo", "blob_id"], ["repo_blobs.repo_id", "repo_blobs.blob_id"]),
)  # fmt: skip
Index("manifest_blobs_link", manifest_blobs.c.blob_id, manifest_blobs.c.link_repo)
Index("manifest_blobs_repo", manifest_blobs.c.repo_id, manifest_blobs.c.blob_id)
Index("manifest_blobs_missing", manifest_blobs.c.repo_id, manifest_blobs.c.digest,
      postgresql_where=text("blob_id IS NULL"), sqlite_where=text("blob_id IS NULL"))  # fmt: skip

#: kind: 1 an index and its child, 2 a subject and its referrer. While the parent lives the child must live
#: (need_live). absent: 0 present, 2 sparse, 3 erased, 4 severed.
manifest_edges = Table(
    "manifest_edges", metadata,
    Column("parent_id", Big, primary_key=True, autoincrement=False),
    Column("repo_id", Big, nullable=False),
    Column("p_live", SmallInteger, nullable=False),
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),
    Column("child_digest", LargeBinary, primary_key=True),
    Column("child_id", Big),
    Column("absent", SmallInteger, nullable=False, server_default=text("0")),
    Column("need_live", SmallInteger, Computed("CASE WHEN p_live = 1 THEN 1 END", persisted=True)),
    CheckConstraint("kind IN (1,2)", name="kind"),
    CheckConstraint("(child_id IS NULL) = (absent > 0)", name="absent_says_why"),
    composite_key(["parent_id", "repo_id", "p_live"],
                  ["manifests.id", "manifests.repo_id", "manifests.live"], cascade=True),
    composite_key(["child_id"], ["manifests.id"], name="edge_child", defer=True),
    composite_key(["child_id", "need_live"], ["manifests.id", "manifests.live"], name="edge_child_live", defer=True),
)  # fmt: skip
Index("manifest_edges_child", manifest_edges.c.child_id, manifest_edges.c.need_live)
Index("manifest_edges_missing", manifest_edges.c.repo_id, manifest_edges.c.child_digest,
      postgresql_where=text("child_id IS NULL"), sqlite_where=text("child_id IS NULL"))  # fmt: skip

tags = Table(
    "tags", metadata,
    Column("repo_id", Big, primary_key=True, autoincrement=False),
    Column("name", Name, primary_key=True),
    Column("manifest_id", Big, nullable=False),
    Column("m_live", SmallInteger, nullable=False, server_default=text("1")),
    Column("version", Big, nullable=False, server_default=text("1")),
    Column("moved_at", Big),
    CheckConstraint("m_live = 1", name="m_live"),
    composite_key(["manifest_id", "repo_id", "m_live"], ["manifests.id", "manifests.repo_id", "manifests.live"]),
)  # fmt: skip
Index(None, tags.c.manifest_id)

trashed_tags = Table(
    "trashed_tags", metadata,
    Column("repo_id", Big, nullable=False),
    Column("manifest_id", Big, ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("trash", SmallInteger, nullable=False),
    Column("trash_batch", Big),
    Column("trashed_at", Big),
    Column("purge_at", Big, nullable=False),
)  # fmt: skip
Index("trashed_tags_name", trashed_tags.c.repo_id, trashed_tags.c.name)

#: Protection by a person or a reporter. kind: see protection.HoldKind.
holds = Table(
    "holds", metadata, new_id(),
    Column("kind", SmallInteger, nullable=False),
    Column("repo_id", Big),
    Column("digest", LargeBinary, nullable=False),
    Column("source", Text, nullable=False),
    Column("actor", Text),
    Column("reason", Text),
    Column("ticket", Text),
    Column("created_at", Big),
    Column("expires_at", Big),
    Column("manifest_id", Big),
    Column("m_live", SmallInteger),
    CheckConstraint("m_live = 1", name="m_live"),
    CheckConstraint("(manifest_id IS NULL) = (m_live IS NULL)", name="resolved"),
    composite_key(["manifest_id", "m_live"], ["manifests.id", "manifests.live"]),
    sqlite_autoincrement=True,
)  # fmt: skip
Index(None, holds.c.manifest_id)
Index("holds_digest", holds.c.digest,
      postgresql_where=text("manifest_id IS NULL"), sqlite_where=text("manifest_id IS NULL"))  # fmt: skip
