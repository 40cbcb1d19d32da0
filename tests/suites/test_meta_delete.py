"""Deletes by people, on both databases: gone at once, nothing in use, everything restorable."""

import asyncio

import pytest
import sqlalchemy as sa

from helpers.images import SOMEBODY, image, index, push, put_blob, put_image
from tenure.core.clock import DAY
from tenure.core.digest import Digest
from tenure.core.errors import BlobUnknown, DeleteDenied, ManifestUnknown, NameUnknown
from tenure.core.page import PageRequest
from tenure.storage.meta.blobs import find_blob, mount_blob, unlink_blob
from tenure.storage.meta.database import Database, Session
from tenure.storage.meta.manifests import delete_manifest, find_manifest
from tenure.storage.meta.protection import HoldKind, reasons
from tenure.storage.meta.records import audit_events, gc_queue
from tenure.storage.meta.removal import delete_repository
from tenure.storage.meta.repositories import get_repository, list_repositories, repository_exists
from tenure.storage.meta.tables import holds, manifests, trashed_tags
from tenure.storage.meta.tags import delete_tag, list_tags, move_tag, tag_history


async def delete(db: Database, digest: Digest, *, sever: bool = False) -> None:
    await delete_manifest(db, "app", digest, SOMEBODY, sever=sever, trash_for=DAY)


async def hold(db: Database, digest: Digest, kind: HoldKind, expires_at: int | None = None) -> None:
    row = await db.one(sa.select(manifests.c.id).where(manifests.c.digest == digest.packed))
    assert row is not None
    values = {
        "kind": int(kind), "digest": digest.packed, "source": "prod/web", "manifest_id": row["id"], "m_live": 1,
        "expires_at": expires_at,
    }  # fmt: skip

    async def work(session: Session) -> None:
        await session.run(sa.insert(holds), values)

    await db.transact(work)


async def test_a_deleted_image_is_gone_with_its_tags(db: Database) -> None:
    made = await put_image(db, "app", "v1", "latest")
    await delete(db, made.digest)
    assert await find_manifest(db, "app", "v1", payload=False) is None
    assert await list_tags(db, "app", PageRequest(10)) == []
    assert len(await db.all(sa.select(trashed_tags.c.name))) == 2
    assert (await tag_history(db, "app", "v1", limit=1, before=None))[0].cause == "delete"
    with pytest.raises(ManifestUnknown):
        await delete(db, made.digest)


async def test_what_was_trashed_and_pushed_again_can_be_trashed_again(db: Database) -> None:
    made = await put_image(db, "app", "v1")
    await delete_tag(db, "app", "v1", SOMEBODY, trash_for=DAY)
    for _ in range(3):
        await push(db, "app", made, "v1")
        await delete(db, made.digest)
    await push(db, "app", made, "v1")
    await delete_repository(db, "app", SOMEBODY, trash_for=DAY)
    assert len(await db.all(sa.select(trashed_tags.c.name))) == 1


async def test_a_delete_is_audited_and_queued_for_the_collector(db: Database) -> None:
    made = await put_image(db, "app", "v1")
    await delete(db, made.digest)
    audited = await db.all(sa.select(audit_events.c.action, audit_events.c.target, audit_events.c.actor))
    assert [tuple(row) for row in audited] == [("manifest.delete", str(made.digest), "somebody")]
    kinds = {row["kind"] for row in await db.all(sa.select(gc_queue.c.kind))}
    assert kinds == {1, 2}


async def test_a_child_of_a_live_index_is_refused_and_can_be_severed(db: Database) -> None:
    child = await put_image(db, "app")
    parent = index([child])
    await push(db, "app", parent, "multi")
    with pytest.raises(DeleteDenied, match=str(parent.digest)) as refused:
        await delete(db, child.digest)
    assert refused.value.status == 405 and refused.value.reasons
    await delete(db, child.digest, sever=True)
    assert await find_manifest(db, "app", "multi", payload=False) is not None
    await push(db, "app", child)
    with pytest.raises(DeleteDenied):
        await delete(db, child.digest)


async def test_index_then_children_then_blobs_go_one_by_one(db: Database) -> None:
    child = await put_image(db, "app", seed="c", layers=1)
    parent = index([child])
    await push(db, "app", parent, "multi")
    await delete_tag(db, "app", "multi", SOMEBODY, trash_for=DAY)
    await delete(db, parent.digest)
    await delete(db, child.digest)
    layer = Digest.of(b"c layer 0")
    await unlink_blob(db, "app", layer, SOMEBODY)
    assert await find_blob(db, "app", layer) is None


async def test_a_referrer_goes_while_its_subject_lives_and_the_reverse(db: Database) -> None:
    subject = await put_image(db, "app", "v1")
    await put_blob(db, "app", b"{}")
    first, second = image(b"{}", subject=subject), image(b"{}", subject=subject, annotations={"n": "2"})
    for one in (first, second):
        await push(db, "app", one)
    await delete(db, first.digest)
    await delete(db, subject.digest)
    assert await find_manifest(db, "app", second.digest, payload=False) is not None


async def test_a_blob_named_by_a_live_manifest_is_refused_with_the_manifests_name(db: Database) -> None:
    made = await put_image(db, "app", "v1", seed="b")
    with pytest.raises(DeleteDenied, match=f"app:v1@{made.digest}"):
        await unlink_blob(db, "app", Digest.of(b"b layer 0"), SOMEBODY)


async def test_an_unlinked_blob_stays_where_another_repository_shows_it(db: Database) -> None:
    digest = await put_blob(db, "app", b"shared")
    assert await mount_blob(db, "other", digest, "app", SOMEBODY, lease=DAY) is not None
    await unlink_blob(db, "app", digest, SOMEBODY)
    assert await find_blob(db, "app", digest) is None
    assert await find_blob(db, "other", digest) is not None
    with pytest.raises(BlobUnknown):
        await unlink_blob(db, "app", digest, SOMEBODY)


async def test_nothing_is_mounted_from_where_nothing_is(db: Database) -> None:
    digest = await put_blob(db, "app", b"mine")
    assert await mount_blob(db, "other", digest, "third", SOMEBODY, lease=DAY) is None
    assert await mount_blob(db, "other", Digest.of(b"unknown"), None, SOMEBODY, lease=DAY) is None
    assert await mount_blob(db, "other", digest, None, SOMEBODY, lease=DAY) is not None


@pytest.mark.parametrize("kind", list(HoldKind))
async def test_c22_holds_bind_people_or_only_automation(db: Database, kind: HoldKind) -> None:
    made = await put_image(db, "app", "v1")
    await hold(db, made.digest, kind)
    if kind.binds_people:
        with pytest.raises(DeleteDenied, match="prod/web"):
            await delete(db, made.digest)
    else:
        await delete(db, made.digest)


async def test_c22_a_push_a_second_ago_does_not_bind_the_person_who_deletes_it(db: Database) -> None:
    made = await put_image(db, "app", "v1")

    async def ask(session: Session) -> set[str]:
        row = await session.one(sa.select(manifests.c.id))
        assert row is not None
        return {reason.kind for reason in await reasons(session, [row["id"]])}

    assert await db.transact(ask) == {"tag", "push"}
    await delete(db, made.digest)


async def test_an_expired_hold_holds_nothing(db: Database) -> None:
    made = await put_image(db, "app")
    await hold(db, made.digest, HoldKind.LEASE, expires_at=1)
    await delete(db, made.digest)


async def test_c12_c13_what_a_policy_trashed_still_pulls_and_a_person_can_end_that(db: Database) -> None:
    made = await put_image(db, "app", "v1")

    async def by_policy(session: Session) -> None:
        await session.run(sa.text("INSERT INTO trashed_tags(repo_id,name,manifest_id,trash,trashed_at,purge_at) "
                                  "SELECT repo_id,name,manifest_id,1,1,9 FROM tags"))  # fmt: skip
        await session.run(sa.text("DELETE FROM tags"))
        await session.run(sa.update(manifests).values(live=0, trash=1, purge_at=9))

    await db.transact(by_policy)
    for reference in ("v1", made.digest):
        found = await find_manifest(db, "app", reference, payload=True)
        assert found is not None and found.trash == 1 and found.payload == made.payload
    assert await list_tags(db, "app", PageRequest(10)) == []
    await delete(db, made.digest)
    assert await find_manifest(db, "app", made.digest, payload=False) is None
    assert await find_manifest(db, "app", "v1", payload=False) is None


async def test_c15_a_repository_goes_whole_and_its_name_is_free_at_once(db: Database) -> None:
    child = await put_image(db, "app", "v1")
    await push(db, "app", index([child]), "multi")
    assert await delete_repository(db, "app", SOMEBODY, trash_for=DAY) == 2
    assert not await repository_exists(db, "app")
    with pytest.raises(NameUnknown):
        await list_tags(db, "app", PageRequest(10))
    await put_image(db, "app", "v1")
    assert await list_tags(db, "app", PageRequest(10)) == ["v1"]
    with pytest.raises(NameUnknown):
        await delete_repository(db, "nothing", SOMEBODY, trash_for=DAY)


async def test_a_repository_with_an_image_in_use_is_refused(db: Database) -> None:
    made = await put_image(db, "app", "v1")
    await hold(db, made.digest, HoldKind.RUNNING)
    with pytest.raises(DeleteDenied, match="running"):
        await delete_repository(db, "app", SOMEBODY, trash_for=DAY)
    assert await list_tags(db, "app", PageRequest(10)) == ["v1"]


async def test_tags_page_in_byte_order(db: Database) -> None:
    made = await put_image(db, "app", "b", "B", "a-1", "a.1", "a_1")
    assert made
    assert await list_tags(db, "app", PageRequest(2)) == ["B", "a-1"]
    assert await list_tags(db, "app", PageRequest(9, "a-1")) == ["a.1", "a_1", "b"]


async def test_repositories_show_what_they_hold(db: Database) -> None:
    await put_image(db, "team/app", "v1", "v2", seed="a", layers=1)
    await put_blob(db, "empty", b"x")
    shown = await get_repository(db, "team/app")
    assert (shown.tags, shown.manifests, shown.size) == (2, 1, len(b'{"seed": "a"}') + len(b"a layer 0"))
    assert await list_repositories(db, PageRequest(10)) == ["team/app"]


async def test_a_tag_moves_to_what_is_here_and_only_from_the_version_seen(db: Database) -> None:
    first = await put_image(db, "app", "v1", seed="1")
    second = await put_image(db, "app", seed="2")
    moved, previous = await move_tag(db, "app", "v1", second.digest, SOMEBODY, if_version=1)
    assert previous == first.digest
    assert (moved.digest, moved.version) == (second.digest, 2)
    history = await tag_history(db, "app", "v1", limit=1, before=None)
    assert (history[0].cause, history[0].old, history[0].new) == ("retag", first.digest, second.digest)
    with pytest.raises(ManifestUnknown):
        await move_tag(db, "app", "v1", Digest.of(b"?"), SOMEBODY, if_version=None)


async def test_a_delete_and_a_push_of_an_index_over_it_end_in_one_of_two_worlds(db: Database) -> None:
    for number in range(10):
        child = await put_image(db, "app", seed=f"race {number}")
        parent = index([child])
        results = await asyncio.gather(
            push(db, "app", parent, f"multi-{number}", allow_missing="none"),
            delete(db, child.digest),
            return_exceptions=True,
        )
        here = await find_manifest(db, "app", child.digest, payload=False) is not None
        assert here == (not isinstance(results[0], Exception)) or isinstance(results[0], Exception), results
        if not isinstance(results[0], Exception):
            assert isinstance(results[1], DeleteDenied) and here


async def test_c14_asking_for_a_deleted_blob_or_mounting_it_never_brings_it_back(db: Database) -> None:
    made = await put_image(db, "app", "v1", seed="h", layers=1)
    layer = Digest.of(b"h layer 0")
    await delete(db, made.digest)
    await unlink_blob(db, "app", layer, SOMEBODY)
    assert await find_blob(db, "app", layer) is None
    for source in ("app", None):
        assert await mount_blob(db, "other", layer, source, SOMEBODY, lease=DAY) is None
    assert await find_blob(db, "app", layer) is None
