"""Plain SQL against the bare schema, as code that makes every mistake would send it.

Numbers are chosen by the caller: manifest 10 has the digest 01 aa 00 0a, blob 2 the digest 01 02.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tenure.storage.meta.database import ConstraintRefused, Database, Session

OK, REFUSED = "ok", "refused"

#: those that can be deferred are the two of the edges
_DEFER = sa.text("SET CONSTRAINTS ALL DEFERRED")
_CHECK = sa.text("SET CONSTRAINTS ALL IMMEDIATE")


@dataclass(frozen=True)
class Step:
    """Statements of one transaction and what must come of them.

    `by`: the constraint that must refuse, as Postgres names it. `rows`: what the last statement must return.
    """

    title: str
    statements: Sequence[str]
    wanted: str = OK
    by: str = ""
    rows: tuple[tuple[Any, ...], ...] | None = None


@dataclass(frozen=True)
class Outcome:
    """`refused` is the refusal; None when the transaction was committed."""

    refused: ConstraintRefused | None
    rows: tuple[tuple[Any, ...], ...]


async def take(db: Database, step: Step) -> Outcome:
    """Run the statements in one transaction, edges checked at its end as set operations do."""

    async def work(session: Session) -> tuple[tuple[Any, ...], ...]:
        found: Sequence[Any] = ()
        if db.dialect == "postgresql":
            await session.run(_DEFER)
        for statement in step.statements:
            found = await session.all(sa.text(portable(statement, db.dialect)))
        if db.dialect == "postgresql":
            await session.run(_CHECK)
        return tuple(tuple(row) for row in found)

    try:
        return Outcome(None, await db.transact(work))
    except ConstraintRefused as refused:
        return Outcome(refused, ())


def judge(db: Database, step: Step, outcome: Outcome) -> None:
    """Fail unless the outcome is what the step wants."""
    got = REFUSED if outcome.refused else OK
    assert got == step.wanted, f"{step.title}: {got} ({outcome.refused})"
    if step.by and outcome.refused and db.dialect == "postgresql":
        assert outcome.refused.constraint == step.by
    if step.rows is not None:
        assert outcome.rows == step.rows


def portable(statement: str, dialect: str) -> str:
    """SQLite's x'0a' as Postgres writes it."""
    return re.sub(r"x'([0-9a-f]*)'", r"'\\x\1'::bytea", statement) if dialect == "postgresql" else statement


# What stands in the rows.


def blob_digest(blob: int) -> str:
    return f"x'01{blob:02x}'"


def manifest_digest(manifest: int) -> str:
    return f"x'01aa{manifest:04x}'"


# The usual steps.


def repository(repo: int, name: str) -> str:
    return f"INSERT INTO repos (id, name) VALUES ({repo}, '{name}')"


def put_object(number: int, state: int = 1) -> str:
    return f"INSERT INTO objects (id, key, state) VALUES ({number}, 'k{number}', {state})"


def new_blob(blob: int, digest: str) -> str:
    return f"INSERT INTO blobs (id, digest, size, object_id) VALUES ({blob}, {digest}, 1, {blob})"


def link(repo: int, blob: int) -> str:
    return f"INSERT INTO repo_blobs (repo_id, blob_id, lease_until) VALUES ({repo}, {blob}, 100)"


def upload(blob: int, repo: int = 1, digest: str = "") -> list[str]:
    """An upload from the journal row to the visible link."""
    stored = digest or blob_digest(blob)
    return [
        put_object(blob),
        f"UPDATE objects SET state = 2, size = 1, digest = {stored} WHERE id = {blob} AND state = 1",
        new_blob(blob, stored),
        link(repo, blob),
    ]


def manifest(number: int, repo: int = 1, digest: str = "") -> str:
    return (
        "INSERT INTO manifests (id, repo_id, digest, media_type, payload) "
        f"VALUES ({number}, {repo}, {digest or manifest_digest(number)}, 'm', x'00')"
    )


def names(number: int, blob: int, repo: int = 1, live: int = 1) -> str:
    """Manifest `number` names a blob that is here."""
    return (
        "INSERT INTO manifest_blobs (manifest_id, repo_id, m_live, digest, role, blob_id) "
        f"VALUES ({number}, {repo}, {live}, {blob_digest(blob)}, 1, {blob})"
    )


def lacks(number: int, digest: str, absent: int, repo: int = 1) -> str:
    """Manifest `number` names a blob that is not here, for the reason `absent`."""
    return (
        "INSERT INTO manifest_blobs (manifest_id, repo_id, m_live, digest, role, absent) "
        f"VALUES ({number}, {repo}, 1, {digest}, 2, {absent})"
    )


def image(number: int, *blobs: int, repo: int = 1) -> list[str]:
    return [manifest(number, repo), *(names(number, blob, repo) for blob in blobs)]


def edge(parent: int, child: int, kind: int = 1, repo: int = 1) -> str:
    """kind 1: an index and its child; 2: a subject and its referrer."""
    return (
        "INSERT INTO manifest_edges (parent_id, repo_id, p_live, kind, child_digest, child_id) "
        f"VALUES ({parent}, {repo}, 1, {kind}, {manifest_digest(child)}, {child})"
    )


def lacks_child(parent: int, child: int, absent: int = 2, repo: int = 1) -> str:
    return (
        "INSERT INTO manifest_edges (parent_id, repo_id, p_live, kind, child_digest, absent) "
        f"VALUES ({parent}, {repo}, 1, 1, {manifest_digest(child)}, {absent})"
    )


def resolve(child: int, repo: int = 1) -> str:
    return (
        f"UPDATE manifest_edges SET child_id = {child}, absent = 0 "
        f"WHERE repo_id = {repo} AND child_digest = {manifest_digest(child)} AND child_id IS NULL"
    )


def tag(name: str, number: int, repo: int = 1) -> str:
    return f"INSERT INTO tags (repo_id, name, manifest_id) VALUES ({repo}, '{name}', {number})"


def untag(name: str, repo: int = 1) -> str:
    return f"DELETE FROM tags WHERE repo_id = {repo} AND name = '{name}'"


def trash(*numbers: int | str, kind: int = 2) -> str:
    """kind 1: by policy, 2: by a person. All in one batch, by one statement."""
    which = ", ".join(map(str, numbers))
    return f"UPDATE manifests SET live = 0, trash = {kind}, purge_at = 99, trash_batch = 1 WHERE id IN ({which})"


def restore(*numbers: int) -> str:
    which = ", ".join(map(str, numbers))
    return f"UPDATE manifests SET live = 1, trash = 0, purge_at = NULL WHERE id IN ({which})"


def purge(*numbers: int) -> str:
    return f"DELETE FROM manifests WHERE id IN ({', '.join(map(str, numbers))})"


def unlink(repo: int, blob: int) -> str:
    return f"DELETE FROM repo_blobs WHERE repo_id = {repo} AND blob_id = {blob}"


def condemn_object(number: int, state: int = 4) -> str:
    return f"UPDATE objects SET state = {state} WHERE id = {number}"


def session(number: int, object_id: int, repo: int = 1) -> str:
    return f"INSERT INTO uploads (id, session, repo_id, object_id) VALUES ({number}, 's{number}', {repo}, {object_id})"


def hold(number: int, manifest_id: int) -> str:
    return (
        "INSERT INTO holds (id, kind, digest, source, manifest_id, m_live) "
        f"VALUES ({number}, 1, {manifest_digest(manifest_id)}, 'c', {manifest_id}, 1)"
    )
