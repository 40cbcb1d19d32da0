"""Every constraint that protects is the one that does: without it the mistake it stands against is accepted.

So the other tests of the schema can fail, and no constraint is there for nothing.
"""

from dataclasses import dataclass

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.pool import NullPool

from helpers.databases import KINDS, NewDatabaseUrl, open_url
from helpers.raw_schema import (
    REFUSED,
    Step,
    condemn_object,
    edge,
    hold,
    image,
    judge,
    lacks,
    lacks_child,
    link,
    manifest,
    manifest_digest,
    names,
    purge,
    put_object,
    repository,
    session,
    tag,
    take,
    trash,
    unlink,
    upload,
)
from safety.sequences import does
from tenure.storage.meta import records
from tenure.storage.meta.tables import metadata

SETUP = does(
    "two repositories, four blobs, two images and their index",
    repository(1, "r1"), repository(2, "r2"),
    *upload(1), *upload(2), *upload(3), *upload(4),
    *image(10, 1, 2), *image(11, 1, 3), manifest(12), edge(12, 10), edge(12, 11), manifest(13),
)  # fmt: skip


@dataclass(frozen=True)
class Mistake:
    """What code might do wrong on top of SETUP and `before`."""

    statement: str
    before: tuple[str, ...] = ()


_GONE_REPO = "DELETE FROM repos WHERE id = 2"
_TAIL = "UPDATE uploads SET tail_object_id = 71, t_state = {} WHERE id = 1"
_UPLOAD = (put_object(70), session(1, 70), put_object(71))
_LYING_EDGE = (
    "INSERT INTO manifest_edges (parent_id, repo_id, p_live, kind, child_digest, child_id) "
    f"VALUES (13, 1, 0, 1, {manifest_digest(10)}, 10)"
)
_LYING_BLOB = "INSERT INTO blobs (id, digest, size, object_id, o_state) VALUES (70, x'0170', 1, 70, {})"
_LYING_HOLD = "INSERT INTO holds (kind, digest, source, manifest_id, m_live) VALUES (1, x'01', 'c', 13, {})"

MISTAKES = {
    "blobs_object_id_o_state_fk": Mistake(condemn_object(4)),
    "blobs_o_state_ck": Mistake(_LYING_BLOB.format(4), (put_object(70, state=4),)),
    "uploads_object_id_o_state_fk": Mistake(condemn_object(70), _UPLOAD),
    "uploads_tail_object_id_t_state_fk": Mistake(condemn_object(71), (*_UPLOAD, _TAIL.format(1))),
    "uploads_o_state_ck": Mistake(
        "INSERT INTO uploads (session, repo_id, object_id, o_state) VALUES ('s', 1, 70, 4)", (put_object(70, state=4),)
    ),
    "uploads_t_state_ck": Mistake(_TAIL.format(4), (*_UPLOAD, condemn_object(71))),
    "uploads_tail_ck": Mistake(_TAIL.format("NULL"), _UPLOAD),
    "uploads_repo_id_fk": Mistake(_GONE_REPO, (put_object(70), session(1, 70, repo=2))),
    "upload_parts_upload_id_fk": Mistake(
        "INSERT INTO upload_parts (upload_id, part_no, etag, size) VALUES (9, 1, '', 1)"
    ),
    "repo_blobs_repo_id_fk": Mistake(_GONE_REPO, (link(2, 1),)),
    "repo_blobs_blob_id_fk": Mistake("DELETE FROM blobs WHERE id = 4"),
    "manifests_repo_id_fk": Mistake(_GONE_REPO, (manifest(14, repo=2),)),
    "manifest_blobs_manifest_id_repo_id_m_live_fk": Mistake(names(13, 4, live=0)),
    "manifest_blobs_blob_id_fk": Mistake("DELETE FROM blobs WHERE id = 4", (names(13, 4), trash(13), unlink(1, 4))),
    "manifest_blobs_link_repo_blob_id_fk": Mistake(unlink(1, 2)),
    "manifest_blobs_absent_says_why_ck": Mistake(lacks(13, "x'01f1'", 0)),
    "manifest_edges_parent_id_repo_id_p_live_fk": Mistake(_LYING_EDGE),
    "manifest_edges_absent_says_why_ck": Mistake(lacks_child(13, 99, absent=0)),
    "edge_child": Mistake(purge(10), (trash(12, 10),)),
    "edge_child_live": Mistake(trash(10)),
    "tags_manifest_id_repo_id_m_live_fk": Mistake(trash(12), (tag("t", 12),)),
    "tags_m_live_ck": Mistake(
        "INSERT INTO tags (repo_id, name, manifest_id, m_live) VALUES (1, 't', 13, 0)", (trash(13),)
    ),
    "trashed_tags_manifest_id_fk": Mistake(
        "INSERT INTO trashed_tags (repo_id, name, manifest_id, trash, purge_at) VALUES (1, 't', 99, 1, 1)"
    ),
    "holds_manifest_id_m_live_fk": Mistake(trash(13), (hold(1, 13),)),
    "holds_m_live_ck": Mistake(_LYING_HOLD.format(0), (trash(13),)),
    "holds_resolved_ck": Mistake(_LYING_HOLD.format("NULL")),
    "manifests_live_or_trash_ck": Mistake("UPDATE manifests SET trash = 1 WHERE id = 13"),
    "manifests_purge_ck": Mistake("UPDATE manifests SET live = 0, trash = 1 WHERE id = 13"),
    "digest_aliases_manifest_id_fk": Mistake(
        "INSERT INTO digest_aliases (digest, manifest_id, role) VALUES (x'01', 99, 1)"
    ),
    "image_chains_manifest_id_fk": Mistake(
        "INSERT INTO image_chains (manifest_id, depth, node_id) VALUES (99, 1, 1)",
        ("INSERT INTO chain_nodes (id, chain_id) VALUES (1, x'01')",),
    ),
    "image_chains_node_id_fk": Mistake("INSERT INTO image_chains (manifest_id, depth, node_id) VALUES (13, 1, 99)"),
}  # fmt: skip


_PREPARER = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]


def table_of(constraint: str) -> sa.Table:
    for table in metadata.tables.values():
        if any(_name(one) == constraint for one in table.constraints):
            return table
    raise LookupError(constraint)


def _name(constraint: sa.Constraint) -> str:
    return str(_PREPARER.format_constraint(constraint) or "")


async def database_without(constraint: str, kind: str, new_database_url: NewDatabaseUrl) -> str:
    """A database with the whole schema but one constraint."""
    table = table_of(constraint)
    if kind == "postgresql":
        url = await new_database_url(kind)
        connection = await asyncpg.connect(url)
        await connection.execute(f"ALTER TABLE {table.name} DROP CONSTRAINT {constraint}")
        await connection.close()
        return url
    url = await new_database_url(kind, migrated=False)
    weaker = sa.MetaData(naming_convention=metadata.naming_convention)
    for original in metadata.tables.values():
        original.to_metadata(weaker)
    weak = weaker.tables[table.name]
    weak.constraints -= {one for one in weak.constraints if _name(one) == constraint}
    weaker.create_all(sa.create_engine(url, poolclass=NullPool))
    return url


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("constraint", MISTAKES)
async def test_the_constraint_is_what_refuses(constraint: str, kind: str, new_database_url: NewDatabaseUrl) -> None:
    mistake = MISTAKES[constraint]
    before = does("before", *mistake.before)
    whole = await open_url(await new_database_url(kind))
    weak = await open_url(await database_without(constraint, kind, new_database_url))
    for db in (whole, weak):
        judge(db, SETUP, await take(db, SETUP))
        judge(db, before, await take(db, before))
    refused = Step("with it", [mistake.statement], REFUSED, constraint)
    judge(whole, refused, await take(whole, refused))
    accepted = does("without it", mistake.statement)
    judge(weak, accepted, await take(weak, accepted))
    for db in (whole, weak):
        await db.close()


def test_no_foreign_key_is_left_out() -> None:
    assert records.gc_queue.metadata is metadata
    keys = {_name(key) for table in metadata.tables.values() for key in table.foreign_key_constraints}
    assert keys <= set(MISTAKES)
