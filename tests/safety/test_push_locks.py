"""What a push locks on a real Postgres: enough, in one order, and no more (rows C1, C10, C20, C21)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import sqlalchemy as sa
from sqlalchemy import bindparam

from helpers.images import SOMEBODY, image, index, push, put_blob, put_image
from tenure.core.clock import DAY
from tenure.core.errors import DeleteDenied, ManifestBlobUnknown, ManifestUnknown, NameUnknown
from tenure.storage.meta.database import ConstraintRefused, Database, Session
from tenure.storage.meta.manifests import delete_manifest, find_manifest
from tenure.storage.meta.removal import delete_repository
from tenure.storage.meta.statements import any_of
from tenure.storage.meta.tables import manifest_blobs, manifest_edges, manifests
from tenure.storage.meta.trash import deferred_edges


@asynccontextmanager
async def held_open(db: Database, work: Callable[[Session], Awaitable[object]]) -> AsyncIterator[None]:
    """A transaction that has done `work` and does not end before the block does."""
    done, release = asyncio.Event(), asyncio.Event()

    async def transaction(session: Session) -> None:
        await work(session)
        done.set()
        await release.wait()

    task = asyncio.create_task(db.transact(transaction))
    await asyncio.wait_for(done.wait(), 10)
    try:
        yield
    finally:
        release.set()
        await task


async def test_c20_pushing_again_does_not_wait_for_an_open_transaction_that_tags_the_manifest(pg: Database) -> None:
    made = await put_image(pg, "app", "v1")
    share = (
        sa.select(manifests.c.id)
        .where(manifests.c.digest == bindparam("digest"))
        .with_for_update(read=True, key_share=True)
    )

    async def tagging(session: Session) -> None:
        await session.one(share, {"digest": made.digest.packed})

    async with held_open(pg, tagging):
        again = await asyncio.wait_for(push(pg, "app", made, "v2"), 10)
    assert not again.created


async def test_c20_pushes_of_one_base_layer_do_not_queue_on_it(pg: Database) -> None:
    await put_blob(pg, "app", b"{}")
    await put_blob(pg, "app", b"base")
    named = sa.select(manifest_blobs.c.blob_id)

    async def other_push(session: Session) -> None:
        await session.all(named)

    async with held_open(pg, other_push):
        made = [image(b"{}", [b"base"], annotations={"n": str(number)}) for number in range(8)]
        await asyncio.wait_for(asyncio.gather(*(push(pg, "app", one) for one in made)), 20)


async def test_c21_pushes_that_restore_and_repository_deletes_never_deadlock(pg: Database) -> None:
    await put_blob(pg, "app", b"{}")
    children = [image(b"{}", annotations={"n": str(number)}) for number in range(4)]

    async def push_all() -> None:
        await put_blob(pg, "app", b"{}")
        for child in children:
            await push(pg, "app", child)
        await push(pg, "app", index(children), "multi")

    async def delete_all() -> None:
        await delete_repository(pg, "app", SOMEBODY, trash_for=DAY)

    for _ in range(10):
        results = await asyncio.wait_for(
            asyncio.gather(push_all(), push_all(), delete_all(), return_exceptions=True), 60
        )
        for result in results:
            assert result is None or isinstance(result, NameUnknown | ManifestBlobUnknown), result
    pg_deadlocks = await pg.one(sa.text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))
    assert pg_deadlocks is not None and pg_deadlocks["deadlocks"] == 0


async def test_an_index_and_the_delete_of_its_child_never_leave_a_hole(pg: Database) -> None:
    for number in range(20):
        child = await put_image(pg, "app", seed=str(number))
        parent = index([child])
        pushed, deleted = await asyncio.gather(
            push(pg, "app", parent, "multi", allow_missing="none"),
            delete_manifest(pg, "app", child.digest, SOMEBODY, sever=False, trash_for=DAY),
            return_exceptions=True,
        )
        gone = await find_manifest(pg, "app", child.digest, payload=False) is None
        if isinstance(pushed, BaseException):
            assert isinstance(pushed, ManifestBlobUnknown) and deleted is None and gone
        else:
            assert isinstance(deleted, DeleteDenied) and not gone


async def test_c1_a_trashed_index_lets_its_children_go_one_by_one(pg: Database) -> None:
    child = await put_image(pg, "app")
    parent = index([child])
    await push(pg, "app", parent)
    for made in (parent, child):
        await delete_manifest(pg, "app", made.digest, SOMEBODY, sever=False, trash_for=DAY)
        assert await find_manifest(pg, "app", made.digest, payload=False) is None


async def test_c10_a_pin_cycle_goes_as_a_set_and_never_one_by_one(pg: Database) -> None:
    await put_blob(pg, "app", b"{}")
    first = image(b"{}")
    signature = image(b"{}", subject=first)
    both = index([first], subject=signature.descriptor())
    for made in (first, signature, both):
        await push(pg, "app", made)
    assert len(await pg.all(sa.select(manifest_edges.c.child_id))) == 3
    trash = sa.update(manifests).values(live=0, trash=1, purge_at=1).where(any_of(manifests.c.id, "ids"))
    ids = [row["id"] for row in await pg.all(sa.select(manifests.c.id))]

    def trashing(chosen: list[int]) -> Callable[[Session], Awaitable[None]]:
        async def work(session: Session) -> None:
            async with deferred_edges(session):
                await session.run(trash, {"ids": chosen})

        return work

    for one in ids:
        try:
            await pg.transact(trashing([one]))
        except ConstraintRefused as refused:
            assert refused.kind == "foreign_key"
        else:
            raise AssertionError("a member of the cycle went alone")
    await pg.transact(trashing(ids))


async def test_two_deletes_of_one_manifest_end_in_one_delete(pg: Database) -> None:
    made = await put_image(pg, "app", "v1")
    results = await asyncio.gather(
        *(delete_manifest(pg, "app", made.digest, SOMEBODY, sever=False, trash_for=DAY) for _ in range(4)),
        return_exceptions=True,
    )
    assert sum(result is None for result in results) == 1
    assert all(isinstance(result, ManifestUnknown) for result in results if result is not None)
