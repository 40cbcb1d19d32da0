"""Replicas whose clocks are wrong by an hour, one in each direction: only the database's clock decides.

The clock is put wrong inside the process, by a `sitecustomize` that shifts `time.time` and `time.time_ns` before
Tenure is imported; a whole machine's clock is nothing a test may touch. `datetime`, by which requests to S3 are
signed, stays right: a store refuses signatures that are off by more than 15 minutes, and such a replica does not
start. So the bytes lie in a folder here, and the facts in Postgres.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import asyncpg
import pytest

from faults.machines import SETTINGS, Replica
from helpers.oci import put_image
from helpers.postgres import PostgresServer
from helpers.wire import connect, exchange, head, hear
from tenure.core.clock import DAY, MINUTE
from tenure.core.digest import Digest

HOUR_SECONDS = 3600
CONTENT = random.Random(41).randbytes(500_000)
DIGEST = Digest.of(CONTENT)
_HOOK = """
import os, time
shift, seconds, nanoseconds = int(os.environ["CLOCK_SHIFT"]), time.time, time.time_ns
time.time = lambda: seconds() + shift
time.time_ns = lambda: nanoseconds() + shift * 10**9
"""
_ULID = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(slots=True)
class Wrong:
    """A replica an hour ahead, one an hour behind, and the database they share."""

    ahead: Replica
    behind: Replica
    connection: asyncpg.Connection


@pytest.fixture(scope="module")
async def wrong(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wrong]:
    folder = tmp_path_factory.mktemp("clocks")
    hook = folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(_HOOK)
    async with AsyncExitStack() as stack:
        postgres = await asyncio.to_thread(PostgresServer)
        stack.callback(postgres.stop)
        settings = {
            **SETTINGS,
            "TENURE_DATABASE_URL": postgres.url(),
            "TENURE_BLOBS_URL": f"file://{folder}/shared",
            "PYTHONPATH": os.pathsep.join([str(hook), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        replicas = []
        for name, shift in (("ahead", HOUR_SECONDS), ("behind", -HOUR_SECONDS)):
            replica = Replica(folder / name, {**settings, "CLOCK_SHIFT": str(shift)})
            stack.callback(replica.kill)
            await replica.start()
            replicas.append(replica)
        connection = await asyncpg.connect(postgres.url())
        stack.push_async_callback(connection.close)
        yield Wrong(*replicas, connection)


async def since_now(wrong: Wrong, statement: str) -> list[int]:
    """Times in rows, as microseconds from the database's now."""
    now = await wrong.connection.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    return [row[0] - now for row in await wrong.connection.fetch(statement)]


async def begun(replica: Replica) -> str:
    answer = await exchange(replica.url, "POST", "/v2/app/clock/blobs/uploads/", sent=b"")
    assert answer.status == 202
    return answer["Location"]


async def test_the_clocks_are_wrong(wrong: Wrong) -> None:
    """Keys hold the time of the process that made them, for order only: there the shift shows."""
    made = []
    for replica in (wrong.ahead, wrong.behind):
        await begun(replica)
        key = await wrong.connection.fetchval("SELECT key FROM objects ORDER BY id DESC LIMIT 1")
        milliseconds = sum(_ULID.index(letter) << 5 * place for place, letter in enumerate(reversed(key[5:15])))
        made.append(milliseconds // 1000)
    assert abs(made[0] - made[1] - 2 * HOUR_SECONDS) < 600


async def test_deadlines_and_leases_are_the_databases(wrong: Wrong) -> None:
    for replica in (wrong.ahead, wrong.behind):
        await begun(replica)
        await put_image(replica.url, "app/leases", replica.address.replace(":", "-"), seed=replica.address)
    for statement in (
        "SELECT deadline FROM uploads WHERE deadline IS NOT NULL",
        "SELECT lease_until FROM repo_blobs",
        "SELECT write_deadline FROM objects WHERE state = 1",
    ):
        left = await since_now(wrong, statement)
        assert len(left) >= 2 and all(DAY - 10 * MINUTE < one <= DAY for one in left), (statement, left)
    # Twice the worker's round: nobody takes for old what the other made.
    sessions = await wrong.connection.fetchval("SELECT count(*) FROM uploads")
    await asyncio.sleep(3)
    assert await wrong.connection.fetchval("SELECT count(*) FROM uploads") == sessions
    assert await since_now(wrong, "SELECT due_at FROM jobs WHERE due_at > 10 * 60 * 1000000::bigint + "
        "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint") == []  # fmt: skip


async def test_nobody_takes_a_running_upload_from_the_other(wrong: Wrong) -> None:
    """For the one ahead every claim of the other looks an hour over; it waits all the same."""
    for owner, other in ((wrong.ahead, wrong.behind), (wrong.behind, wrong.ahead)):
        location = await begun(owner)
        reader, writer = await connect(owner.url)
        writer.write(head(owner.url, "PATCH", location, [("Content-Length", str(len(CONTENT)))]))
        writer.write(CONTENT[:100_000])
        await writer.drain()
        held = "SELECT count(*) FROM uploads WHERE session = $1 AND owner IS NOT NULL"
        for _ in range(600):
            if await wrong.connection.fetchval(held, location.rpartition("/")[2]):
                break
            await asyncio.sleep(0.1)
        wish = exchange(other.url, "PATCH", location, [("Content-Range", "0-9")], sent=bytes(10))
        waiting = asyncio.create_task(wish)
        await asyncio.sleep(1)
        assert not waiting.done()
        writer.write(CONTENT[100_000:])
        first = await asyncio.wait_for(hear(reader, "PATCH"), 60)
        assert (first.status, first["Range"]) == (202, f"0-{len(CONTENT) - 1}")
        writer.close()
        second = await asyncio.wait_for(waiting, 60)
        assert (second.status, second["Range"]) == (416, f"0-{len(CONTENT) - 1}")
        assert (await exchange(other.url, "PUT", f"{location}?digest={DIGEST}", sent=b"")).status == 201
        for replica in (owner, other):
            assert (await exchange(replica.url, "GET", f"/v2/app/clock/blobs/{DIGEST}")).body == CONTENT
