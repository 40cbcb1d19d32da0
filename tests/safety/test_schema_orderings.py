"""Two transactions that must not both commit, in both orders, on a real Postgres.

The second one waits for the first, which is seen in pg_blocking_pids and not guessed by sleeping, and is then
refused by a foreign key. SQLite has one writer; there the sequences say it all.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from helpers.raw_schema import (
    condemn_object,
    edge,
    image,
    link,
    manifest,
    names,
    new_blob,
    portable,
    put_object,
    repository,
    restore,
    tag,
    trash,
    unlink,
)

DEFER = "SET CONSTRAINTS edge_child, edge_child_live DEFERRED"
CHECK = "SET CONSTRAINTS edge_child, edge_child_live IMMEDIATE"
SETUP = [
    repository(1, "r1"),
    *(put_object(blob, state=2) for blob in (1, 2)),
    new_blob(1, "x'0101'"),
    link(1, 1),
    *image(10),
    *image(11),
    manifest(12),
]


@dataclass(frozen=True)
class Pair:
    """Two pieces of work that exclude each other; `before` prepares them."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    by: str
    before: tuple[str, ...] = ()


_NAMES = (names(10, 1),)
_INDEXES = (edge(12, 10),)
_SET_TRASH = (DEFER, trash(10, kind=1), CHECK)

PAIRS = {
    "tag, trash": Pair((tag("t", 10),), (trash(10),), "tags_manifest_id_repo_id_m_live_fk"),
    "name a blob, unlink it": Pair(_NAMES, (unlink(1, 1),), "manifest_blobs_link_repo_blob_id_fk"),
    "restore, unlink": Pair(
        (restore(10),), (unlink(1, 1),), "manifest_blobs_link_repo_blob_id_fk", (*_NAMES, trash(10))
    ),
    "push an index, trash its child": Pair(_INDEXES, (trash(10),), "edge_child_live"),
    "restore an index, trash its child": Pair((restore(12),), (trash(10),), "edge_child_live", (*_INDEXES, trash(12))),
    "push an index, trash its child in a set": Pair(_INDEXES, _SET_TRASH, "edge_child_live"),
    "blob on an object, condemn the object": Pair(
        (new_blob(2, "x'0102'"),), (condemn_object(2),), "blobs_object_id_o_state_fk"
    ),
}
ORDERINGS = [
    pytest.param(title, turned, id=f"{' then '.join(reversed(title.split(', ')) if turned else title.split(', '))}")
    for title in PAIRS
    for turned in (False, True)
]


@dataclass(frozen=True)
class Sessions:
    """Two sessions that race and one that looks on."""

    first: asyncpg.Connection
    second: asyncpg.Connection
    onlooker: asyncpg.Connection

    async def second_waits_for_first(self) -> bool:
        blocked_by = "SELECT pg_blocking_pids($1), wait_event_type FROM pg_stat_activity WHERE pid = $1"
        pids, wait = await self.onlooker.fetchrow(blocked_by, self.second.get_server_pid())
        return wait == "Lock" and self.first.get_server_pid() in pids


@pytest.fixture
async def sessions(pg_dsn: str) -> AsyncIterator[Sessions]:
    connections = [await asyncpg.connect(pg_dsn) for _ in range(3)]
    yield Sessions(*connections)
    for connection in connections:
        await connection.close()


async def run(connection: asyncpg.Connection, statements: tuple[str, ...] | list[str]) -> None:
    for statement in statements:
        await connection.execute(portable(statement, "postgresql"))


@dataclass(frozen=True)
class Race:
    """`waited`: the second session was seen to wait for the first. `refused`: the key that refused it."""

    waited: bool
    refused: str | None


async def race(sessions: Sessions, pair: Pair, turned: bool) -> Race:
    """Let the second session run into the first one's open transaction, then commit that."""
    await run(sessions.onlooker, [*SETUP, *pair.before])
    first, second = (pair.second, pair.first) if turned else (pair.first, pair.second)
    await run(sessions.first, ("BEGIN", *first))
    await sessions.second.execute("BEGIN")
    racing = asyncio.ensure_future(run(sessions.second, second))
    waited = False
    while not racing.done() and not waited:
        waited = await sessions.second_waits_for_first()
    await sessions.first.execute("COMMIT")
    try:
        await racing
        await sessions.second.execute("COMMIT")
    except asyncpg.ForeignKeyViolationError as refusal:
        return Race(waited, refusal.constraint_name)
    return Race(waited, None)


@pytest.mark.parametrize(("title", "turned"), ORDERINGS)
async def test_the_second_waits_and_is_refused(sessions: Sessions, title: str, turned: bool) -> None:
    pair = PAIRS[title]
    assert await race(sessions, pair, turned) == Race(waited=True, refused=pair.by)


async def test_without_its_key_the_race_is_lost(sessions: Sessions) -> None:
    """The tests above can fail: with a plain state column both commit, and bytes in use are condemned."""
    await sessions.onlooker.execute("ALTER TABLE blobs DROP CONSTRAINT blobs_object_id_o_state_fk")
    pair = PAIRS["blob on an object, condemn the object"]
    assert await race(sessions, pair, turned=False) == Race(waited=False, refused=None)
    state = "SELECT objects.state FROM blobs JOIN objects ON objects.id = blobs.object_id WHERE blobs.id = 2"
    assert await sessions.onlooker.fetchval(state) == 4
