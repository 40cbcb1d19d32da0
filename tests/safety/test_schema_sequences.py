"""Each of the 65 transactions of `sequences.py` comes out as it must, on both databases."""

from collections.abc import AsyncIterator

import pytest

from helpers.databases import KINDS, Databases, open_url
from helpers.raw_schema import Outcome, judge, take
from safety.sequences import BEFORE, SEQUENCES
from tenure.storage.meta.database import Database


class Replay:
    """The sequence so far: a step is taken after all before it, once."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._outcomes: list[Outcome] = []

    async def outcome(self, number: int) -> Outcome:
        if not self._outcomes:
            judge(self.db, BEFORE, await take(self.db, BEFORE))
        while len(self._outcomes) < number:
            self._outcomes.append(await take(self.db, SEQUENCES[len(self._outcomes)]))
        return self._outcomes[number - 1]


@pytest.fixture(scope="module", params=KINDS)
async def replay(request: pytest.FixtureRequest, databases: Databases) -> AsyncIterator[Replay]:
    url = await databases.new(request.param)
    db = await open_url(url)
    yield Replay(db)
    await db.close()
    await databases.drop(url)


@pytest.mark.parametrize("number", [pytest.param(number, id=f"seq-{number}") for number in range(1, 66)])
async def test_sequence(replay: Replay, number: int) -> None:
    judge(replay.db, SEQUENCES[number - 1], await replay.outcome(number))
