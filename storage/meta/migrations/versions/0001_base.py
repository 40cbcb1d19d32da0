"""The base schema: every table of tables.py and records.py as it was when the data plane was done.

Frozen. Written out in full, so that later changes of those files do not change what this revision makes.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from tenure.core.ids import new_ulid
from tenure.storage.meta.statements import database_time

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Name = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def new_id() -> sa.Column[int]:
    return sa.Column("id", Big, sa.Identity(always=False), nullable=False)


def only(condition: str) -> dict[str, Any]:
    """A partial index, on both databases."""
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def upgrade() -> None:
    op.create_table(
        "audit_events",
        new_id(),
        sa.Column("at", Big, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("address", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("repository", sa.Text()),
        sa.Column("target", sa.Text()),
        sa.Column("outcome", sa.Text(), server_default=sa.text("'ok'"), nullable=False),
        sa.Column("detail", sa.Text(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("seal_id", Big),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_events_pk")),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_events_at", "audit_events", ["at"], unique=False)
    op.create_table(
        "chain_nodes",
        new_id(),
        sa.Column("chain_id", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("chain_nodes_pk")),
        sa.UniqueConstraint("chain_id", name=op.f("chain_nodes_chain_id_uq")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "gc_control",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("installation", sa.Text(), nullable=False),
        sa.Column("epoch", Big, server_default=sa.text("1"), nullable=False),
        sa.Column("db_system", sa.Text()),
        sa.Column("db_timeline", Big),
        sa.Column("paused", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pause_reason", sa.Text()),
        sa.Column("audited_at", Big),
        sa.Column("created_at", Big, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("gc_control_one_row_ck")),
        sa.PrimaryKeyConstraint("id", name=op.f("gc_control_pk")),
    )
    op.create_table(
        "gc_queue",
        sa.Column("kind", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("repo_id", Big, server_default=sa.text("0"), autoincrement=False, nullable=False),
        sa.Column("target_id", Big, autoincrement=False, nullable=False),
        sa.Column("due_at", Big, nullable=False),
        sa.Column("seq", Big, server_default=sa.text("1"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("reason", sa.SmallInteger()),
        sa.PrimaryKeyConstraint("kind", "repo_id", "target_id", name=op.f("gc_queue_pk")),
    )
    op.create_index("gc_queue_due", "gc_queue", ["kind", "due_at"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("headers", sa.Text()),
        sa.Column("body", sa.LargeBinary()),
        sa.Column("created_at", Big, nullable=False),
        sa.Column("expires_at", Big, nullable=False),
        sa.PrimaryKeyConstraint("actor", "key", name=op.f("idempotency_keys_pk")),
    )
    op.create_index(op.f("idempotency_keys_expires_at_ix"), "idempotency_keys", ["expires_at"], unique=False)
    op.create_table(
        "jobs",
        new_id(),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("due_at", Big, nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("lease_until", Big),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("seq", Big, server_default=sa.text("1"), nullable=False),
        sa.Column("progress", sa.Text()),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", Big, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("jobs_pk")),
        sa.UniqueConstraint("kind", "key", name=op.f("jobs_kind_key_uq")),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_due", "jobs", ["due_at"], unique=False)
    op.create_table(
        "objects",
        new_id(),
        sa.Column("key", Name, nullable=False),
        sa.Column("kind", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("digest", sa.LargeBinary()),
        sa.Column("size", Big),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("multipart_id", sa.Text()),
        sa.Column("version_id", sa.Text()),
        sa.Column("write_deadline", Big),
        sa.Column("not_before", Big),
        sa.Column("next_try", Big),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("reason", sa.SmallInteger()),
        sa.Column("gc_run", Big),
        sa.Column("created_at", Big),
        sa.Column("changed_at", Big),
        sa.CheckConstraint("kind IN (1,2)", name=op.f("objects_kind_ck")),
        sa.CheckConstraint("state BETWEEN 1 AND 5", name=op.f("objects_state_ck")),
        sa.PrimaryKeyConstraint("id", name=op.f("objects_pk")),
        sa.UniqueConstraint("id", "state", name=op.f("objects_id_state_uq")),
        sa.UniqueConstraint("key", name=op.f("objects_key_uq")),
        sqlite_autoincrement=True,
    )
    op.create_index("objects_work", "objects", ["next_try"], unique=False, **only("state IN (1,3,4)"))
    op.create_table(
        "outbox_events",
        new_id(),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("at", Big, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_events_pk")),
        sa.UniqueConstraint("event_id", name=op.f("outbox_events_event_id_uq")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "repos",
        new_id(),
        sa.Column("name", Name, nullable=False),
        sa.Column("live", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", Big, server_default=sa.text("0"), nullable=False),
        sa.Column("deleted_at", Big),
        sa.CheckConstraint("live IN (0,1)", name=op.f("repos_live_ck")),
        sa.PrimaryKeyConstraint("id", name=op.f("repos_pk")),
        sa.UniqueConstraint("id", "live", name=op.f("repos_id_live_uq")),
        sqlite_autoincrement=True,
    )
    op.create_index("repos_name_live", "repos", ["name"], unique=True, **only("live = 1"))
    op.create_table(
        "tag_events",
        new_id(),
        sa.Column("repo_id", Big, nullable=False),
        sa.Column("tag", Name, nullable=False),
        sa.Column("old_digest", sa.LargeBinary()),
        sa.Column("new_digest", sa.LargeBinary()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text()),
        sa.Column("plan_id", Big),
        sa.Column("at", Big, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("tag_events_pk")),
        sqlite_autoincrement=True,
    )
    op.create_index("tag_events_tag", "tag_events", ["repo_id", "tag", "id"], unique=False)
    op.create_table(
        "blobs",
        new_id(),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("size", Big, nullable=False),
        sa.Column("object_id", Big, nullable=False),
        sa.Column("o_state", sa.SmallInteger(), server_default=sa.text("2"), nullable=False),
        sa.Column("verified_at", Big),
        sa.Column("damaged", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("o_state = 2", name=op.f("blobs_o_state_ck")),
        sa.ForeignKeyConstraint(
            ["object_id", "o_state"],
            ["objects.id", "objects.state"],
            name=op.f("blobs_object_id_o_state_fk"),
            onupdate="NO ACTION",
            ondelete="NO ACTION",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("blobs_pk")),
        sa.UniqueConstraint("digest", name=op.f("blobs_digest_uq")),
        sa.UniqueConstraint("object_id", name=op.f("blobs_object_id_uq")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "manifests",
        new_id(),
        sa.Column("repo_id", Big, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("artifact_type", sa.Text()),
        sa.Column("size", Big, server_default=sa.text("0"), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("subject", sa.LargeBinary()),
        sa.Column("live", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("trash", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("trash_batch", Big),
        sa.Column("trashed_at", Big),
        sa.Column("purge_at", Big),
        sa.Column("lease_until", Big),
        sa.Column("pushed_at", Big),
        sa.Column("pushed_by", sa.Text()),
        sa.CheckConstraint("(live = 1) = (trash = 0)", name=op.f("manifests_live_or_trash_ck")),
        sa.CheckConstraint("live = 1 OR purge_at IS NOT NULL", name=op.f("manifests_purge_ck")),
        sa.CheckConstraint("live IN (0,1)", name=op.f("manifests_live_ck")),
        sa.CheckConstraint("trash IN (0,1,2,3)", name=op.f("manifests_trash_ck")),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("manifests_repo_id_fk"), ondelete="NO ACTION"),
        sa.PrimaryKeyConstraint("id", name=op.f("manifests_pk")),
        sa.UniqueConstraint("id", "live", name=op.f("manifests_id_live_uq")),
        sa.UniqueConstraint("id", "repo_id", "live", name=op.f("manifests_id_repo_id_live_uq")),
        sa.UniqueConstraint("repo_id", "digest", name=op.f("manifests_repo_id_digest_uq")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("manifests_digest_ix"), "manifests", ["digest"], unique=False)
    op.create_index("manifests_purge", "manifests", ["purge_at"], unique=False, **only("live = 0"))
    op.create_index(
        "manifests_subject", "manifests", ["repo_id", "subject"], unique=False, **only("subject IS NOT NULL")
    )
    op.create_table(
        "uploads",
        new_id(),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("repo_id", Big, nullable=False),
        sa.Column("object_id", Big, nullable=False),
        sa.Column("o_state", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("byte_offset", Big, server_default=sa.text("0"), nullable=False),
        sa.Column("algorithms", sa.Text(), server_default=sa.text("'sha256'"), nullable=False),
        sa.Column("hash_state", sa.LargeBinary()),
        sa.Column("next_part", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tail", sa.LargeBinary()),
        sa.Column("tail_object_id", Big),
        sa.Column("t_state", sa.SmallInteger()),
        sa.Column("version", Big, server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("owner_until", Big),
        sa.Column("deadline", Big),
        sa.Column("actor", sa.Text()),
        sa.Column("created_at", Big),
        sa.CheckConstraint("(tail_object_id IS NULL) = (t_state IS NULL)", name=op.f("uploads_tail_ck")),
        sa.CheckConstraint("o_state = 1", name=op.f("uploads_o_state_ck")),
        sa.CheckConstraint("t_state = 1", name=op.f("uploads_t_state_ck")),
        sa.ForeignKeyConstraint(
            ["object_id", "o_state"],
            ["objects.id", "objects.state"],
            name=op.f("uploads_object_id_o_state_fk"),
            onupdate="NO ACTION",
            ondelete="NO ACTION",
        ),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("uploads_repo_id_fk"), ondelete="NO ACTION"),
        sa.ForeignKeyConstraint(
            ["tail_object_id", "t_state"],
            ["objects.id", "objects.state"],
            name=op.f("uploads_tail_object_id_t_state_fk"),
            onupdate="NO ACTION",
            ondelete="NO ACTION",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("uploads_pk")),
        sa.UniqueConstraint("object_id", name=op.f("uploads_object_id_uq")),
        sa.UniqueConstraint("session", name=op.f("uploads_session_uq")),
        sa.UniqueConstraint("tail_object_id", name=op.f("uploads_tail_object_id_uq")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("uploads_deadline_ix"), "uploads", ["deadline"], unique=False)
    op.create_index(op.f("uploads_repo_id_ix"), "uploads", ["repo_id"], unique=False)
    op.create_table(
        "digest_aliases",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("manifest_id", Big, nullable=False),
        sa.Column("role", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["manifest_id"], ["manifests.id"], name=op.f("digest_aliases_manifest_id_fk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", "manifest_id", "role", name=op.f("digest_aliases_pk")),
    )
    op.create_index(op.f("digest_aliases_manifest_id_ix"), "digest_aliases", ["manifest_id"], unique=False)
    op.create_table(
        "holds",
        new_id(),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("repo_id", Big),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("ticket", sa.Text()),
        sa.Column("created_at", Big),
        sa.Column("expires_at", Big),
        sa.Column("manifest_id", Big),
        sa.Column("m_live", sa.SmallInteger()),
        sa.CheckConstraint("(manifest_id IS NULL) = (m_live IS NULL)", name=op.f("holds_resolved_ck")),
        sa.CheckConstraint("m_live = 1", name=op.f("holds_m_live_ck")),
        sa.ForeignKeyConstraint(
            ["manifest_id", "m_live"],
            ["manifests.id", "manifests.live"],
            name=op.f("holds_manifest_id_m_live_fk"),
            onupdate="NO ACTION",
            ondelete="NO ACTION",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("holds_pk")),
        sqlite_autoincrement=True,
    )
    op.create_index("holds_digest", "holds", ["digest"], unique=False, **only("manifest_id IS NULL"))
    op.create_index(op.f("holds_manifest_id_ix"), "holds", ["manifest_id"], unique=False)
    op.create_table(
        "image_chains",
        sa.Column("manifest_id", Big, nullable=False),
        sa.Column("depth", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("node_id", Big, nullable=False),
        sa.Column("whole", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["manifest_id"], ["manifests.id"], name=op.f("image_chains_manifest_id_fk"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["node_id"], ["chain_nodes.id"], name=op.f("image_chains_node_id_fk"), ondelete="NO ACTION"
        ),
        sa.PrimaryKeyConstraint("manifest_id", "depth", name=op.f("image_chains_pk")),
    )
    op.create_index("image_chains_node", "image_chains", ["node_id", "depth", "whole"], unique=False)
    op.create_table(
        "manifest_edges",
        sa.Column("parent_id", Big, autoincrement=False, nullable=False),
        sa.Column("repo_id", Big, nullable=False),
        sa.Column("p_live", sa.SmallInteger(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("child_digest", sa.LargeBinary(), nullable=False),
        sa.Column("child_id", Big),
        sa.Column("absent", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("need_live", sa.SmallInteger(), sa.Computed("CASE WHEN p_live = 1 THEN 1 END", persisted=True)),
        sa.CheckConstraint("(child_id IS NULL) = (absent > 0)", name=op.f("manifest_edges_absent_says_why_ck")),
        sa.CheckConstraint("kind IN (1,2)", name=op.f("manifest_edges_kind_ck")),
        sa.ForeignKeyConstraint(
            ["child_id", "need_live"],
            ["manifests.id", "manifests.live"],
            name="edge_child_live",
            onupdate="NO ACTION",
            ondelete="NO ACTION",
            initially="IMMEDIATE",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["child_id"],
            ["manifests.id"],
            name="edge_child",
            onupdate="NO ACTION",
            ondelete="NO ACTION",
            initially="IMMEDIATE",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["parent_id", "repo_id", "p_live"],
            ["manifests.id", "manifests.repo_id", "manifests.live"],
            name=op.f("manifest_edges_parent_id_repo_id_p_live_fk"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("parent_id", "kind", "child_digest", name=op.f("manifest_edges_pk")),
    )
    op.create_index("manifest_edges_child", "manifest_edges", ["child_id", "need_live"], unique=False)
    op.create_index(
        "manifest_edges_missing",
        "manifest_edges",
        ["repo_id", "child_digest"],
        unique=False,
        **only("child_id IS NULL"),
    )
    op.create_table(
        "repo_blobs",
        sa.Column("repo_id", Big, nullable=False),
        sa.Column("blob_id", Big, nullable=False),
        sa.Column("lease_until", Big, nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("repo_blobs_blob_id_fk"), ondelete="NO ACTION"),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("repo_blobs_repo_id_fk"), ondelete="NO ACTION"),
        sa.PrimaryKeyConstraint("repo_id", "blob_id", name=op.f("repo_blobs_pk")),
    )
    op.create_index(op.f("repo_blobs_blob_id_ix"), "repo_blobs", ["blob_id"], unique=False)
    op.create_table(
        "tags",
        sa.Column("repo_id", Big, autoincrement=False, nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("manifest_id", Big, nullable=False),
        sa.Column("m_live", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("version", Big, server_default=sa.text("1"), nullable=False),
        sa.Column("moved_at", Big),
        sa.CheckConstraint("m_live = 1", name=op.f("tags_m_live_ck")),
        sa.ForeignKeyConstraint(
            ["manifest_id", "repo_id", "m_live"],
            ["manifests.id", "manifests.repo_id", "manifests.live"],
            name=op.f("tags_manifest_id_repo_id_m_live_fk"),
            onupdate="NO ACTION",
            ondelete="NO ACTION",
        ),
        sa.PrimaryKeyConstraint("repo_id", "name", name=op.f("tags_pk")),
    )
    op.create_index(op.f("tags_manifest_id_ix"), "tags", ["manifest_id"], unique=False)
    op.create_table(
        "trashed_tags",
        sa.Column("repo_id", Big, nullable=False),
        sa.Column("manifest_id", Big, nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("trash", sa.SmallInteger(), nullable=False),
        sa.Column("trash_batch", Big),
        sa.Column("trashed_at", Big),
        sa.Column("purge_at", Big, nullable=False),
        sa.ForeignKeyConstraint(
            ["manifest_id"], ["manifests.id"], name=op.f("trashed_tags_manifest_id_fk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("manifest_id", "name", name=op.f("trashed_tags_pk")),
    )
    op.create_index("trashed_tags_name", "trashed_tags", ["repo_id", "name"], unique=False)
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", Big, nullable=False),
        sa.Column("part_no", sa.Integer(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("size", Big, nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["uploads.id"], name=op.f("upload_parts_upload_id_fk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("upload_id", "part_no", name=op.f("upload_parts_pk")),
    )
    op.create_table(
        "manifest_blobs",
        sa.Column("manifest_id", Big, autoincrement=False, nullable=False),
        sa.Column("repo_id", Big, nullable=False),
        sa.Column("m_live", sa.SmallInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.SmallInteger(), nullable=False),
        sa.Column("size", Big, server_default=sa.text("0"), nullable=False),
        sa.Column("blob_id", Big),
        sa.Column("absent", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("link_repo", Big, sa.Computed("CASE WHEN m_live = 1 THEN repo_id END", persisted=True)),
        sa.CheckConstraint("(blob_id IS NULL) = (absent > 0)", name=op.f("manifest_blobs_absent_says_why_ck")),
        sa.ForeignKeyConstraint(
            ["blob_id"], ["blobs.id"], name=op.f("manifest_blobs_blob_id_fk"), ondelete="NO ACTION"
        ),
        sa.ForeignKeyConstraint(
            ["link_repo", "blob_id"],
            ["repo_blobs.repo_id", "repo_blobs.blob_id"],
            name=op.f("manifest_blobs_link_repo_blob_id_fk"),
            onupdate="NO ACTION",
            ondelete="NO ACTION",
        ),
        sa.ForeignKeyConstraint(
            ["manifest_id", "repo_id", "m_live"],
            ["manifests.id", "manifests.repo_id", "manifests.live"],
            name=op.f("manifest_blobs_manifest_id_repo_id_m_live_fk"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("manifest_id", "digest", name=op.f("manifest_blobs_pk")),
    )
    op.create_index("manifest_blobs_link", "manifest_blobs", ["blob_id", "link_repo"], unique=False)
    op.create_index(
        "manifest_blobs_missing", "manifest_blobs", ["repo_id", "digest"], unique=False, **only("blob_id IS NULL")
    )
    op.create_index("manifest_blobs_repo", "manifest_blobs", ["repo_id", "blob_id"], unique=False)

    control = sa.table("gc_control", *(sa.column(name) for name in ("id", "installation", "created_at")))
    now = op.get_bind().scalar(sa.select(database_time()))
    op.bulk_insert(control, [{"id": 1, "installation": new_ulid(), "created_at": now}])
