"""Questions that go to Postgres together get the answers that each would have got alone."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from helpers.images import SOMEBODY, put_blob, put_image
from tenure.core.digest import Digest
from tenure.core.errors import StorageUnavailable
from tenure.storage.meta.blobs import find_blob, unlink_blob
from tenure.storage.meta.database import Database, Row
from tenure.storage.meta.gather import Gatherer, gathered_text
from tenure.storage.meta.manifests import find_manifest
from tenure.storage.meta.postgres import PostgresDatabase
from tenure.storage.meta.statements import HOT, Compiled, postgres_compiler

NOTES = sa.Table("notes", sa.MetaData(), sa.Column("id", sa.BigInteger), sa.Column("text", sa.Text))
FIND = sa.select(NOTES.c.text).where(NOTES.c.id == sa.bindparam("note"))
COMPILED = postgres_compiler()(FIND.execution_options(**HOT), {})


def test_only_marked_statements_gather() -> None:
    compile_ = postgres_compiler()
    assert compile_(FIND.execution_options(**HOT), {}).gathers and not compile_(FIND, {}).gathers


def test_each_parameter_becomes_an_array_of_its_type_once() -> None:
    text = gathered_text('SELECT x FROM t WHERE a = $1::VARCHAR COLLATE "C" AND b = $2::BYTEA AND c > $1::VARCHAR')
    assert "unnest($1::VARCHAR[], $2::BYTEA[]) WITH ORDINALITY AS gathered(p1, p2, n)" in text
    assert 'a = gathered.p1 COLLATE "C" AND b = gathered.p2 AND c > gathered.p1' in text


async def test_many_at_once_hear_what_each_would_hear_alone(pg: Database) -> None:
    assert isinstance(pg, PostgresDatabase)
    blobs = [await put_blob(pg, f"team/{number % 3}", b"blob %d" % number) for number in range(24)]
    asked = [(f"team/{repository}", blob) for repository in range(4) for blob in [*blobs, Digest.of(b"nowhere")]]
    alone = [await find_blob(pg, *question) for question in asked]
    before = pg.round_trips
    together = await asyncio.gather(*(find_blob(pg, *question) for question in asked))
    assert [_facts(one) for one in together] == [_facts(one) for one in alone]
    assert sum(one is not None for one in together) == 24
    assert pg.round_trips - before <= 10, "100 questions"
    made = await put_image(pg, "app", "v1", seed="x")
    tags = ["v1", "none", made.digest, Digest.of(b"none")]
    found = await asyncio.gather(*(find_manifest(pg, "app", tag, payload=True) for tag in tags * 5))
    assert [one.payload if one else None for one in found] == [made.payload, None, made.payload, None] * 5


async def test_a_question_sees_what_was_committed_before_it(pg: Database) -> None:
    """Readers never stop; whoever asks after the commit must see it."""
    blob = await put_blob(pg, "app", b"comes and goes")
    stop = False

    async def keep_asking() -> None:
        while not stop:
            await find_blob(pg, "app", blob)

    readers = [asyncio.create_task(keep_asking()) for _ in range(12)]
    for _ in range(15):
        assert await find_blob(pg, "app", blob) is not None
        await unlink_blob(pg, "app", blob, SOMEBODY)
        assert await find_blob(pg, "app", blob) is None
        await put_blob(pg, "app", b"comes and goes")
    stop = True
    await asyncio.gather(*readers)


async def test_what_one_asks_wrongly_does_not_reach_the_others(pg: Database) -> None:
    blob = await put_blob(pg, "app", b"here")
    names: list[Any] = ["app", "nul \0 byte", "app", 77, "app"]
    found = await asyncio.gather(*(find_blob(pg, name, blob) for name in names), return_exceptions=True)
    assert [isinstance(one, Exception) for one in found] == [False, True, False, True, False]
    assert all(one is not None for one in found)


class Slow:
    """A database whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Sequence[Any]]] = []
        self.answers: list[asyncio.Future[Sequence[Row]]] = []

    async def __call__(self, text: str, values: Sequence[Any]) -> Sequence[Row]:
        self.asked.append((text, values))
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


def ask(gatherer: Gatherer, *notes: int, compiled: Compiled = COMPILED) -> "list[asyncio.Task[Row | None]]":
    return [asyncio.create_task(gatherer.one(compiled, [note])) for note in notes]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_while_two_are_under_way_the_next_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    gatherer = Gatherer(slow)
    first = ask(gatherer, 1)
    await turns()
    second = ask(gatherer, 2)
    await turns()
    third = ask(gatherer, *range(3, 40))
    await turns()
    assert [values for _, values in slow.asked] == [[1], [2]]
    slow.answers[0].set_result([{"text": "one"}])  # type: ignore[list-item]
    assert await first[0] == {"text": "one"}
    await turns()
    assert slow.asked[2][1] == [list(range(3, 19))], "16 at once"
    slow.answers[1].set_result([])
    assert await second[0] is None
    await turns()
    assert slow.asked[3][1] == [list(range(19, 35))]
    for answer in slow.answers[2:4]:
        answer.set_result([{"gathered_n": 16, "text": "last"}])  # type: ignore[list-item]
    await turns(8)
    slow.answers[4].set_result([])
    assert [row["text"] if row else None for row in await asyncio.gather(*third)][15] == "last"
    assert gatherer._kinds[id(COMPILED)].under_way == 0


async def test_a_statement_that_does_not_end_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.storage.meta.gather._OVERDUE", 0.01)
    slow = Slow()
    gatherer = Gatherer(slow)
    stuck = ask(gatherer, 1)
    await turns()
    stuck += ask(gatherer, 2)
    await turns()
    later = ask(gatherer, 3, 4)
    async with asyncio.timeout(5):
        while len(slow.asked) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    slow.answers[2].set_result([])
    assert await asyncio.gather(*later) == [None, None]
    for answer in slow.answers[:2]:
        answer.set_result([])
    await asyncio.gather(*stuck)


async def test_who_is_cancelled_is_not_asked_for_and_hurts_nobody() -> None:
    slow = Slow()
    gatherer = Gatherer(slow)
    tasks = ask(gatherer, 1, 2, 3)
    await asyncio.sleep(0)
    tasks[1].cancel()
    await turns()
    assert slow.asked[0][1] in ([[1, 3]], [[1, 2, 3]])
    slow.answers[0].set_result([])
    assert await tasks[0] is None and await tasks[2] is None
    assert tasks[1].cancelled()


async def test_a_database_that_is_away_is_told_to_all() -> None:
    slow = Slow()
    gatherer = Gatherer(slow)
    tasks = ask(gatherer, 1, 2, 3)
    await turns()
    slow.answers[0].set_exception(StorageUnavailable("away"))
    heard = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in heard] == [StorageUnavailable] * 3
    assert len(slow.asked) == 1


def _facts(blob: Any) -> Any:
    return None if blob is None else blob[:-1]  # all but the clock
