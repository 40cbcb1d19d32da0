"""The tables beside the proof: queues, the control row, history, lineage, audit, outbox, jobs.

Same metadata as `tables.py`. Rows here never protect content, so they carry few foreign keys; history
outlives what it tells of.
"""

from sqlalchemy import (
    CheckConstraint,
    Column,
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

from tenure.storage.meta.tables import Big, Name, metadata, new_id

#: What the collector should look at. kind: 1 manifest, 2 link, 3 blob. Every enqueue does seq = seq + 1.
gc_queue = Table(
    "gc_queue", metadata,
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),
    Column("repo_id", Big, primary_key=True, autoincrement=False, server_default=text("0")),
    Column("target_id", Big, primary_key=True, autoincrement=False),
    Column("due_at", Big, nullable=False),
    Column("seq", Big, nullable=False, server_default=text("1")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("reason", SmallInteger),
)  # fmt: skip
Index("gc_queue_due", gc_queue.c.kind, gc_queue.c.due_at)

#: One row, id 1: which installation this is and whether collection may run.
gc_control = Table(
    "gc_control", metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("installation", Text, nullable=False),
    Column("epoch", Big, nullable=False, server_default=text("1")),
    Column("db_system", Text),
    Column("db_timeline", Big),
    Column("paused", SmallInteger, nullable=False, server_default=text("0")),
    Column("pause_reason", Text),
    Column("audited_at", Big),
    Column("created_at", Big, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)  # fmt: skip

#: Every move of every tag. cause: push, retag, delete, expire, restore, replicate.
tag_events = Table(
    "tag_events", metadata, new_id(),
    Column("repo_id", Big, nullable=False),
    Column("tag", Name, nullable=False),
    Column("old_digest", LargeBinary),
    Column("new_digest", LargeBinary),
    Column("actor", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("request_id", Text),
    Column("plan_id", Big),
    Column("at", Big, nullable=False),
    sqlite_autoincrement=True,
)  # fmt: skip
Index("tag_events_tag", tag_events.c.repo_id, tag_events.c.tag, tag_events.c.id)

#: Which manifests a digest stands for. role: 1 the manifest itself, 2 its config.
digest_aliases = Table(
    "digest_aliases", metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("manifest_id", Big, ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True),
    Column("role", SmallInteger, primary_key=True, autoincrement=False),
)  # fmt: skip
Index(None, digest_aliases.c.manifest_id)

#: ChainIDs (image-spec config.md, layer chain id), numbered.
chain_nodes = Table(
    "chain_nodes", metadata, new_id(),
    Column("chain_id", LargeBinary, nullable=False),
    UniqueConstraint("chain_id"),
    sqlite_autoincrement=True,
)  # fmt: skip

#: The chain of each image, one row a layer; `whole` marks the last, the image's own filesystem.
image_chains = Table(
    "image_chains", metadata,
    Column("manifest_id", Big, ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True),
    Column("depth", Integer, primary_key=True, autoincrement=False),
    Column("node_id", Big, ForeignKey("chain_nodes.id", ondelete="NO ACTION"), nullable=False),
    Column("whole", SmallInteger, nullable=False, server_default=text("0")),
)  # fmt: skip
Index("image_chains_node", image_chains.c.node_id, image_chains.c.depth, image_chains.c.whole)

#: Who did what; sealed into a hash chain in batches by a job (seal_id).
audit_events = Table(
    "audit_events", metadata, new_id(),
    Column("at", Big, nullable=False),
    Column("actor", Text, nullable=False),
    Column("address", Text),
    Column("request_id", Text),
    Column("action", Text, nullable=False),
    Column("repository", Text),
    Column("target", Text),
    Column("outcome", Text, nullable=False, server_default=text("'ok'")),
    Column("detail", Text, nullable=False, server_default=text("'{}'")),
    Column("seal_id", Big),
    sqlite_autoincrement=True,
)  # fmt: skip
Index("audit_events_at", audit_events.c.at)

#: Events to tell the world, written in the transaction that made them true. body is JSON.
outbox_events = Table(
    "outbox_events", metadata, new_id(),
    Column("event_id", Text, nullable=False),
    Column("at", Big, nullable=False),
    Column("action", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("event_id"),
    sqlite_autoincrement=True,
)  # fmt: skip

#: Background work, taken under a lease by any replica. (kind, key) is unique: asking twice is asking once.
jobs = Table(
    "jobs", metadata, new_id(),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("payload", Text, nullable=False, server_default=text("'{}'")),
    Column("due_at", Big, nullable=False),
    Column("owner", Text),
    Column("lease_until", Big),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("seq", Big, nullable=False, server_default=text("1")),
    Column("progress", Text),
    Column("last_error", Text),
    Column("created_at", Big, nullable=False),
    UniqueConstraint("kind", "key"),
    sqlite_autoincrement=True,
)  # fmt: skip
Index("jobs_due", jobs.c.due_at)

#: Answers already given to requests with an Idempotency-Key on /api/v1.
idempotency_keys = Table(
    "idempotency_keys", metadata,
    Column("actor", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", Integer),
    Column("headers", Text),
    Column("body", LargeBinary),
    Column("created_at", Big, nullable=False),
    Column("expires_at", Big, nullable=False),
)  # fmt: skip
Index(None, idempotency_keys.c.expires_at)
