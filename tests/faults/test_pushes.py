"""Pushes with random kills and faults: what was acknowledged is there, nothing is half there, nothing is unnamed.

`make faults OPS=500 SEED=7` is the long form. A run prints its seed; the same seed draws the same images and the
same events, in an order that the machine's timing may shift.
"""

import asyncio
import os
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from faults.chaos import Chaos
from faults.machines import LARGE, SMALL, Installation, installation
from faults.pushing import Client, Tally
from helpers.oracle import Inventory, Ledger, facts, judge, unnamed

OPS = int(os.environ.get("TENURE_TEST_FAULT_OPS", "8"))
SEED = int(os.environ.get("TENURE_TEST_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
CLIENTS = 4
#: pushes between two events, about
PACE = max(4, OPS // 35)
#: seconds for the worker to remove what was left over
PATIENCE = 60.0


@dataclass(slots=True)
class Run:
    """One run, and what it has to tell."""

    system: Installation
    chaos: Chaos
    ledger: Ledger
    tally: Tally

    def report(self) -> str:
        tally = self.tally
        counted = [f"{count} x {what}" for what, count in sorted(self.chaos.counts.items())]
        met = [f"{count} x {what}" for what, count in self.chaos.faults().items()]
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(tally.statuses.items()))
        return "\n".join(
            [
                f"{self.system.profile}, seed {SEED}: {tally.pushes} pushes, {tally.acknowledged} acknowledged, "
                f"{tally.tries} tries, {tally.retried_requests} requests sent again, {tally.lost} answers lost",
                f"  {len(self.ledger.blobs)} blobs sent, {len(self.ledger.acknowledged)} acknowledged",
                f"  answers: {statuses}",
                f"  events: {'; '.join(counted)}",
                f"  faults met: {'; '.join(met)}",
            ]
        )


@pytest.mark.timeout(120 + 15 * OPS)
@pytest.mark.parametrize("profile", [SMALL, LARGE])
async def test_what_was_acknowledged_survives(profile: str, tmp_path: Path) -> None:
    rng = random.Random(f"{SEED} {profile}")
    async with installation(profile, tmp_path, replicas=2) as system:
        run = Run(system, Chaos(system, rng), Ledger(), Tally())
        async with told(run):
            await push_under_fire(run)
            complaints = run.tally.odd + await judged(run)
            complaints += await nothing_is_left_over(run)
            assert complaints == []
            assert run.tally.acknowledged >= OPS * 3 // 4, "too little got through to say anything"
            assert sum(run.chaos.counts.values()) >= 2


@asynccontextmanager
async def told(run: Run) -> AsyncIterator[None]:
    """Prints the counts; when it fails, the seed and the order of events too."""
    try:
        yield
    except BaseException:
        print(run.report())
        print("\n".join([f"seed {SEED}; events:", *run.chaos.events]))
        for replica in run.system.replicas:
            print(f"{replica.log.name}: {replica.log.read_text(errors='replace')[-3000:]}")
        raise
    print(f"\n{run.report()}")


async def push_under_fire(run: Run) -> None:
    numbers = iter(range(OPS))
    finished = 0
    done = asyncio.Event()

    async def client(number: int) -> None:
        nonlocal finished
        rng = random.Random(f"{SEED} client {number}")
        one = Client(number, rng, run.chaos.bases, run.ledger, run.tally)
        for push in numbers:
            acknowledged = await one.push(push)
            run.chaos.note(f"push {push} {'acknowledged' if acknowledged else 'given up'}")
            finished += 1

    async def storm() -> None:
        wanted = 1
        while not done.is_set():
            if finished >= wanted:
                await run.chaos.act()
                wanted = max(wanted + PACE, finished + 1)
            await asyncio.sleep(0.05)

    run.chaos.cheat()
    clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
    trouble = asyncio.create_task(storm())
    try:
        # Whoever fails first ends it: a server that does not come back would let the clients wait.
        await asyncio.wait({asyncio.ensure_future(asyncio.gather(*clients)), trouble}, return_when="FIRST_COMPLETED")
        done.set()
        await trouble
        await asyncio.gather(*clients)
    finally:
        done.set()
        for task in (*clients, trouble):
            task.cancel()
        await asyncio.gather(*clients, trouble, return_exceptions=True)
        run.chaos.behave()


async def judged(run: Run) -> list[str]:
    """Every replica gives the same answers; the store is looked at before the rows, which come first in life."""
    complaints = []
    for replica in run.system.replicas:
        complaints += await judge(replica.url, run.ledger)
    store = await run.system.inventory()
    return complaints + unnamed(await facts(run.system.database_url), store)


async def nothing_is_left_over(run: Run) -> list[str]:
    """Once its time is over, what was never acknowledged goes, and the store holds live objects only."""
    await _let_time_pass(run.system.database_url)
    loop = asyncio.get_running_loop()
    ends = loop.time() + PATIENCE
    while True:
        store = await run.system.inventory()
        known = await facts(run.system.database_url)
        complaints = unnamed(known, store)
        left = [f"{key} is in state {row[0]}" for key, row in known.objects.items() if row[0] not in (2, 5)]
        left += [f"{name} is left in tmp/" for name in store.unfinished]
        left += [f"{one} is left" for one in store.multiparts if one.parts]
        if complaints or not left:
            _say_what_is_harmless(store)
            return complaints + await judge(run.system.replicas[0].url, run.ledger)
        if loop.time() > ends:
            return left
        await asyncio.sleep(0.5)


def _say_what_is_harmless(store: Inventory) -> None:
    if store.scratch or store.multiparts:
        print(
            f"\nself-tests cut by a kill left {len(store.scratch)} files; multipart uploads whose initiation nobody "
            f"heard of, all empty: {len(store.multiparts)}"
        )


async def _let_time_pass(url: str) -> None:
    """Deadlines of sessions and of keys that nobody finished are over; what a delete failed on is tried again now."""
    statements = (
        "UPDATE uploads SET deadline = 0, owner = NULL, owner_until = NULL",
        "UPDATE objects SET write_deadline = 0, next_try = 0 WHERE state = 1",
        "UPDATE objects SET next_try = 0 WHERE state IN (3, 4)",
    )
    if url.startswith("sqlite:///"):
        await asyncio.to_thread(_change_file, url.removeprefix("sqlite:///"), statements)
        return
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _change_file(path: str, statements: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as file, file:
        for statement in statements:
            file.execute(statement)
