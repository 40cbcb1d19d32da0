"""One tag, many hands: its history is an unbroken chain that ends where the tag points, whoever comes at once."""

import asyncio
from typing import Any

import pytest

from helpers.images import SOMEBODY, Made, push, put_image
from tenure.core.clock import DAY
from tenure.core.errors import ManifestUnknown, NameUnknown, PreconditionFailed
from tenure.storage.meta.database import Database
from tenure.storage.meta.removal import delete_repository
from tenure.storage.meta.tags import TagEvent, delete_tag, get_tag, move_tag, tag_history

ROUNDS = 12


async def made_ready(db: Database, count: int = 6) -> list[Made]:
    return [await put_image(db, "app", seed=f"image {number}") for number in range(count)]


async def chain(db: Database, tag: str) -> list[TagEvent]:
    """The events of a tag, oldest first, each beginning where the one before ended."""
    events = (await tag_history(db, "app", tag, limit=1000, before=None))[::-1]
    at = None
    for event in events:
        assert event.old == at, [(one.old, one.new) for one in events]
        assert event.old != event.new
        at = event.new
    here = await get_tag(db, "app", tag)
    assert (here.digest if here else None) == at, "the tag is not where its history ends"
    return events


async def test_pushes_that_create_one_tag_at_once_are_all_in_its_history(db: Database) -> None:
    images = await made_ready(db)
    for number in range(ROUNDS):
        tag = f"v{number}"
        await asyncio.gather(*(push(db, "app", image, tag) for image in images))
        events = await chain(db, tag)
        assert len(events) == len(images)
        here = await get_tag(db, "app", tag)
        assert here is not None and here.version == len(images)


async def test_moves_at_once_each_say_what_they_replaced(db: Database) -> None:
    images = await made_ready(db)
    await push(db, "app", images[0], "v")
    told: list[tuple[Any, Any]] = []
    for _ in range(ROUNDS):
        moves = [move_tag(db, "app", "v", image.digest, SOMEBODY, if_version=None) for image in images]
        replaced = [previous for _, previous in await asyncio.gather(*moves)]
        told += [(old, image.digest) for old, image in zip(replaced, images, strict=True) if old != image.digest]
    events = await chain(db, "v")
    assert sorted(map(str, told)) == sorted(str((event.old, event.new)) for event in events[1:])


async def test_a_tag_that_is_never_deleted_is_never_missed(db: Database) -> None:
    """If-Match: * holds while others move it, and its one deleter finds it."""
    images = await made_ready(db, 4)
    for number in range(ROUNDS):
        tag = f"v{number}"
        await push(db, "app", images[0], tag)
        await asyncio.gather(*(push(db, "app", image, tag, if_match="*") for image in images))
        await chain(db, tag)
        results = await asyncio.gather(
            delete_tag(db, "app", tag, SOMEBODY, trash_for=DAY),
            *(move_tag(db, "app", tag, image.digest, SOMEBODY, if_version=None) for image in images),
            return_exceptions=True,
        )
        assert results[0] is None, results[0]
        assert all(isinstance(one, (tuple, PreconditionFailed)) for one in results[1:]), results
        await chain(db, tag)


async def test_of_those_who_create_only_if_there_is_none_one_wins(db: Database) -> None:
    images = await made_ready(db)
    for number in range(ROUNDS):
        pushes = (push(db, "app", image, f"v{number}", if_none_match="*") for image in images)
        results = await asyncio.gather(*pushes, return_exceptions=True)
        assert sum(not isinstance(one, BaseException) for one in results) == 1
        assert sum(isinstance(one, PreconditionFailed) for one in results) == len(images) - 1
        assert len(await chain(db, f"v{number}")) == 1


async def test_created_and_deleted_at_once_every_push_is_done_or_undone(db: Database) -> None:
    images = await made_ready(db, 4)
    deleted = 0

    async def keep_deleting() -> int:
        count = 0
        for _ in range(8):
            try:
                await delete_tag(db, "app", "v", SOMEBODY, trash_for=DAY)
                count += 1
            except ManifestUnknown:
                await asyncio.sleep(0)
        return count

    for _ in range(ROUNDS):
        results = await asyncio.gather(*(push(db, "app", image, "v") for image in images), keep_deleting())
        deleted += results[-1]
    events = await chain(db, "v")
    assert sum(event.new is None for event in events) == deleted


async def test_history_outlives_its_repository(db: Database) -> None:
    first = await put_image(db, "app", "v1", seed="first life")
    await delete_repository(db, "app", SOMEBODY, trash_for=DAY)
    events = await tag_history(db, "app", "v1", limit=10, before=None)
    assert [(event.old, event.new) for event in events] == [(first.digest, None), (None, first.digest)]
    second = await put_image(db, "app", "v1", seed="second life")
    events = await tag_history(db, "app", "v1", limit=10, before=None)
    assert [event.new for event in events] == [second.digest, None, first.digest]
    with pytest.raises(NameUnknown):
        await tag_history(db, "never", None, limit=10, before=None)
