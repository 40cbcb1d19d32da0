"""Whatever is sent, and however it breaks off: no 500, no hang, and nothing left behind.

TENURE_TEST_FUZZ_OPS=100000 TENURE_TEST_FUZZ_SEED=7 pytest tests/replay/test_mutations.py -rP      (make fuzz)
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from helpers.mutate import Shot
from helpers.serving import Served, served
from helpers.wire import connect, exchange, head
from replay import fuzz
from replay.fuzz import Finding, Tally, episode, shortest, shots_of, smaller, storm, watched
from replay.tape import load, recordings
from tenure.core.digest import Digest
from tenure.registry.plane import Plane
from tenure.storage.meta.database import Database
from tenure.storage.meta.tables import uploads

SEED = os.environ.get("TENURE_TEST_FUZZ_SEED") or "1"
#: over all profiles and parts
OPS = int(os.environ.get("TENURE_TEST_FUZZ_OPS") or 10_000)
PARTS = 4
#: seconds for everything to end once nobody sends any more
SETTLE = 10.0

_IDLE = (
    sa.select(sa.column("query"))
    .select_from(sa.table("pg_stat_activity"))
    .where(
        sa.column("datname") == sa.func.current_database(), sa.column("state").like("idle in transaction%"),
    )
)  # fmt: skip

pytestmark = pytest.mark.timeout(120 + OPS // 40)


@pytest.fixture(scope="module")
def recorded() -> list[list[Shot]]:
    """Most pushes with small layers, some with the real ones."""
    loaded = [load(path) for path in recordings()]
    small = [shots_of(smaller(recording)) for recording in loaded]
    return [*small, *small, *small, *small, *small, *(shots_of(recording) for recording in loaded)]


@pytest.mark.parametrize("part", range(PARTS))
async def test_nothing_that_is_sent_breaks_the_registry(plane: Plane, recorded: list[list[Shot]], part: int) -> None:
    tally = Tally()
    started = time.monotonic()

    def episodes(number: int) -> list[Shot]:
        return episode(random.Random(f"{SEED}/{part}/{number}"), recorded)

    async with watched(plane, tally) as running:
        # Something to ask for, delete and mount.
        for shots in recorded[part::PARTS][:2]:
            assert await fuzz.Run(running.address, Tally()).play(shots) == ""
        finding = await storm(running.address, tally, episodes, OPS // (2 * PARTS))
        counts = ", ".join(f"{how} {count}" for how, count in sorted(tally.statuses.items()))
        print(f"fuzz: seed {SEED}, {plane.db.__class__.__name__}, part {part}, {tally.sent} requests, "
              f"{time.monotonic() - started:.1f} s: {counts}")  # fmt: skip
        left = await _left_behind(running, plane)
        assert finding is None, await _told(running.address, tally, finding)
        assert left == []
    assert tally.troubles == []


async def _told(base: str, tally: Tally, finding: Finding | None) -> str:
    assert finding is not None

    async def fails(shots: Sequence[Shot]) -> str:
        return await fuzz.Run(base, tally).play(shots)

    return f"seed {SEED}: {await shortest(finding, fails)}"


async def _left_behind(running: Served, plane: Plane, patience: float = SETTLE) -> list[str]:
    """What is still there although every client is gone."""
    server = running.server
    ends = time.monotonic() + patience
    while True:
        left = [f"{len(server.connections)} connections"] if server.connections else []
        left += [f"{server.inflight()} requests"] if server.inflight() else []
        left += await _claims(plane)
        if not left or time.monotonic() > ends:
            return left + await _cannot_write(running.address)
        await asyncio.sleep(0.05)


async def _claims(plane: Plane) -> list[str]:
    """Claims that nobody will give back, and transactions that nobody will end."""
    claimed = await plane.db.all(sa.select(uploads.c.session).where(uploads.c.owner.is_not(None)))
    found = [f"claim on {row['session']}" for row in claimed]
    if plane.db.dialect == "postgresql":
        found += [f"transaction: {row['query']}" for row in await plane.db.all(_IDLE)]
    return found


async def _cannot_write(base: str) -> list[str]:
    content = b"after the storm"
    digest = Digest.of(content)
    answer = await exchange(base, "POST", f"/v2/after/storm/blobs/uploads/?digest={digest}", sent=content)
    return [] if answer.status == 201 else [f"no push any more: {answer.status} {answer.body!r}"]


class _Broken:
    """A store that fails in its own way whatever it is asked."""

    def __init__(self, fail: Callable[[], Awaitable[None]]) -> None:
        self._fail = fail

    def __getattr__(self, name: str) -> Any:
        async def failing(*_: object, **__: object) -> None:
            await self._fail()

        return failing


async def _raise() -> None:
    raise RuntimeError("planted")


async def _hang() -> None:
    await asyncio.sleep(3600)


@pytest.mark.parametrize(("fail", "complaint"), [(_raise, "500"), (_hang, "no answer within")])
async def test_a_planted_failure_is_found_and_made_short(
    small_plane: Plane,
    recorded: list[list[Shot]],
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[[], Awaitable[None]],
    complaint: str,
) -> None:
    if fail is _hang:
        monkeypatch.setattr(fuzz, "HANG", 1.0)
    tally = Tally()
    broken = replace(small_plane, db=_Broken(fail))
    async with watched(broken, tally) as running:
        finding = await storm(running.address, tally, lambda n: episode(random.Random(n), recorded), 200, at_once=1)
        assert finding is not None
        assert complaint in finding.complaint
        told = await _told(running.address, tally, finding)
    assert told.count("  request ") == 1, told
    assert f"seed {SEED}" in told and "HTTP/1.1" in told
    assert (tally.troubles != []) == (fail is _raise)


async def test_a_connection_and_a_request_left_behind_are_found(small_plane: Plane) -> None:
    async with served(small_plane) as running:
        opened = await exchange(running.address, "POST", "/v2/left/behind/blobs/uploads/", sent=b"")
        _, writer = await connect(running.address)
        writer.write(head(running.address, "PATCH", opened["Location"], [("Content-Length", "9")]) + b"part")
        await asyncio.sleep(0.2)
        left = await _left_behind(running, small_plane, patience=0.2)
        assert [found.split(" on ")[0] for found in left] == ["1 connections", "1 requests", "claim"]
        writer.close()
        assert await _left_behind(running, small_plane) == []


async def test_a_transaction_left_open_is_found(small_plane: Plane, pg: Database, pg_dsn: str) -> None:
    plane = replace(small_plane, db=pg)
    assert await _claims(plane) == []
    connection = await asyncpg.connect(pg_dsn)
    try:
        await connection.execute("BEGIN")
        assert await _claims(plane) == ["transaction: BEGIN"]
    finally:
        await connection.close()
