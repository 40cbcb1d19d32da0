"""Manifest push, on both databases."""

import asyncio
import json

import pytest
import sqlalchemy as sa

from helpers.images import (
    SOMEBODY,
    config_of,
    descriptor,
    image,
    index,
    make,
    push,
    put_blob,
    put_image,
)
from tenure.core import media
from tenure.core.chain import chain_ids
from tenure.core.clock import DAY
from tenure.core.digest import Digest
from tenure.core.errors import BlobUnknown, DeleteDenied, ManifestBlobUnknown, ManifestInvalid, PreconditionFailed
from tenure.storage.meta.blobs import unlink_blob
from tenure.storage.meta.database import Database
from tenure.storage.meta.lineage import ancestors, descendants
from tenure.storage.meta.manifests import delete_manifest, find_manifest
from tenure.storage.meta.records import digest_aliases, outbox_events
from tenure.storage.meta.tables import holds, manifest_blobs, manifest_edges, manifests
from tenure.storage.meta.tags import tag_history


async def edges(db: Database) -> list[tuple[int, int | None, int]]:
    rows = await db.all(sa.select(manifest_edges.c.kind, manifest_edges.c.child_id, manifest_edges.c.absent))
    return [(row["kind"], row["child_id"], row["absent"]) for row in rows]


async def test_a_pushed_image_is_found_by_tag_and_by_digest_byte_for_byte(db: Database) -> None:
    made = await put_image(db, "team/app", "v1")
    for reference in ("v1", made.digest):
        found = await find_manifest(db, "team/app", reference, payload=True)
        assert found is not None
        assert (found.payload, found.media_type, found.digest) == (made.payload, made.media_type, made.digest)
    assert await find_manifest(db, "team/other", made.digest, payload=False) is None


async def test_pushing_again_creates_nothing_and_moves_no_tag(db: Database) -> None:
    made = await put_image(db, "app", "v1")
    again = await push(db, "app", made, "v1")
    assert not again.created
    assert len(await tag_history(db, "app", "v1", limit=10, before=None)) == 1


async def test_every_move_of_a_tag_is_told_with_actor_and_cause(db: Database) -> None:
    first = await put_image(db, "app", "latest", seed="1")
    second = await put_image(db, "app", "latest", seed="2")
    history = await tag_history(db, "app", "latest", limit=10, before=None)
    assert [(event.old, event.new, event.cause, event.actor) for event in history] == [
        (first.digest, second.digest, "push", SOMEBODY.actor),
        (None, first.digest, "push", SOMEBODY.actor),
    ]


async def test_missing_layers_are_refused_by_name(db: Database) -> None:
    config = await put_blob(db, "app", b"{}")
    made = image(b"{}", [b"never pushed"])
    with pytest.raises(ManifestBlobUnknown, match=str(Digest.of(b"never pushed"))):
        await push(db, "app", made)
    assert config and await find_manifest(db, "app", made.digest, payload=False) is None


async def test_a_foreign_layer_may_always_be_absent(db: Database) -> None:
    await put_blob(db, "app", b"{}")
    layer = descriptor(b"elsewhere", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
    made = make(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": descriptor(b"{}", media.OCI_CONFIG),
            "layers": [layer | {"urls": ["https://example.com/layer"]}],
        }
    )
    pushed = await push(db, "app", made, allow_missing="none")
    assert pushed.missing == (layer["digest"],)
    row = await db.one(sa.select(manifest_blobs.c.absent).where(manifest_blobs.c.blob_id.is_(None)))
    assert row is not None and row["absent"] == 1


async def test_a_sparse_image_heals_when_its_layer_arrives(db: Database) -> None:
    await put_blob(db, "app", b"{}")
    pushed = await push(db, "app", image(b"{}", [b"late"]), allow_missing="all")
    assert pushed.missing == (str(Digest.of(b"late")),)
    await put_blob(db, "app", b"late")
    assert await db.one(sa.select(manifest_blobs.c.digest).where(manifest_blobs.c.absent > 0)) is None
    with pytest.raises(DeleteDenied):
        await unlink_blob(db, "app", Digest.of(b"late"), SOMEBODY)


async def test_a_sparse_index_heals_when_its_child_arrives(db: Database) -> None:
    await put_blob(db, "app", b"{}")
    child = image(b"{}")
    parent = index([child])
    assert (await push(db, "app", parent, "multi")).missing == (str(child.digest),)
    await push(db, "app", child)
    assert all(absent == 0 for _, _, absent in await edges(db))
    with pytest.raises(DeleteDenied, match=str(parent.digest)):
        await delete_manifest(db, "app", child.digest, SOMEBODY, sever=False, trash_for=DAY)


async def test_a_missing_child_is_refused_where_nothing_may_be_missing(db: Database) -> None:
    with pytest.raises(ManifestBlobUnknown):
        await push(db, "app", index([image(b"{}")]), allow_missing="none")


async def test_layers_that_arrive_while_their_sparse_image_is_pushed_are_never_missed(db: Database) -> None:
    for number in range(12):
        repository = f"race/{number}"
        await put_blob(db, repository, b"{}")
        made = image(b"{}", [b"meanwhile"])
        await asyncio.gather(push(db, repository, made, allow_missing="all"), put_blob(db, repository, b"meanwhile"))
    assert await db.one(sa.select(manifest_blobs.c.digest).where(manifest_blobs.c.absent > 0)) is None


async def test_a_child_that_arrives_while_its_index_is_pushed_is_never_missed(db: Database) -> None:
    for number in range(12):
        repository = f"race/{number}"
        await put_blob(db, repository, b"{}")
        child = image(b"{}")
        await asyncio.gather(push(db, repository, index([child])), push(db, repository, child))
    assert all(absent == 0 for _, _, absent in await edges(db))


async def test_a_referrer_and_its_subject_meet_in_either_order_and_at_once(db: Database) -> None:
    for number in range(12):
        repository = f"race/{number}"
        await put_blob(db, repository, b"{}")
        subject = image(b"{}")
        signature = image(b"{}", subject=subject, artifactType="application/signature")
        pushes = [push(db, repository, subject), push(db, repository, signature)]
        if number < 4:
            for one in pushes if number < 2 else reversed(pushes):
                await one
        else:
            await asyncio.gather(*pushes)
    found = await edges(db)
    assert len(found) == 12 and all(kind == 2 and absent == 0 for kind, _, absent in found)


async def test_config_and_layer_may_be_one_digest(db: Database) -> None:
    await put_blob(db, "app", b"{}")
    await push(db, "app", image(b"{}", [b"{}", b"{}"]), "v1")
    assert len(await db.all(sa.select(manifest_blobs.c.digest))) == 1


async def test_an_index_of_blobs_pins_them_as_blobs(db: Database) -> None:
    await put_blob(db, "app", b"cache layer")
    cache = index([descriptor(b"cache layer", "application/vnd.oci.image.layer.v1.tar+gzip")])
    await push(db, "app", cache, "cache", allow_missing="none")
    with pytest.raises(DeleteDenied, match="cache"):
        await unlink_blob(db, "app", Digest.of(b"cache layer"), SOMEBODY)


async def test_the_media_type_of_stored_bytes_cannot_be_changed(db: Database) -> None:
    await put_blob(db, "app", b"{}")
    payload = json.dumps({"schemaVersion": 2, "config": descriptor(b"{}", media.OCI_CONFIG), "layers": []}).encode()
    from tenure.core.manifest import parse_manifest
    from tenure.storage.meta.push import PushRequest, push_manifest

    def request(content_type: str) -> PushRequest:
        return PushRequest("app", Digest.of(payload), payload, parse_manifest(payload, content_type), (), "index", DAY)

    await push_manifest(db, request(media.OCI_MANIFEST), SOMEBODY)
    with pytest.raises(ManifestInvalid):
        await push_manifest(db, request(media.DOCKER_MANIFEST), SOMEBODY)


async def test_conditions_on_a_tag(db: Database) -> None:
    first = await put_image(db, "app", "v1", seed="1")
    second = await put_image(db, "app", seed="2")
    with pytest.raises(PreconditionFailed):
        await push(db, "app", second, "v1", if_none_match="*")
    with pytest.raises(PreconditionFailed):
        await push(db, "app", second, "v1", if_match=f'"{second.digest}"')
    await push(db, "app", second, "v1", if_match=f'"{first.digest}"')
    found = await find_manifest(db, "app", "v1", payload=False)
    assert found is not None and found.digest == second.digest


async def test_of_two_creators_of_a_tag_exactly_one_wins(db: Database) -> None:
    made = [await put_image(db, "app", seed=str(number)) for number in range(4)]
    results = await asyncio.gather(
        *(push(db, "app", one, "v1", if_none_match="*") for one in made), return_exceptions=True
    )
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert all(isinstance(r, PreconditionFailed) for r in results if isinstance(r, Exception))
    assert len(await tag_history(db, "app", "v1", limit=10, before=None)) == 1


async def test_pushing_again_brings_back_what_a_person_deleted(db: Database) -> None:
    made = await put_image(db, "app", "v1")
    await delete_manifest(db, "app", made.digest, SOMEBODY, sever=False, trash_for=DAY)
    assert await find_manifest(db, "app", made.digest, payload=False) is None
    assert (await push(db, "app", made, "v1")).created
    assert await find_manifest(db, "app", "v1", payload=False) is not None


async def test_a_restored_push_needs_its_layers_again(db: Database) -> None:
    made = await put_image(db, "app", seed="x", layers=1)
    await delete_manifest(db, "app", made.digest, SOMEBODY, sever=False, trash_for=DAY)
    await unlink_blob(db, "app", Digest.of(b"x layer 0"), SOMEBODY)
    with pytest.raises(BlobUnknown):
        await unlink_blob(db, "app", Digest.of(b"x layer 0"), SOMEBODY)
    with pytest.raises(ManifestBlobUnknown):
        await push(db, "app", made)
    await put_blob(db, "app", b"x layer 0")
    assert (await push(db, "app", made)).created


async def test_a_new_index_takes_a_child_back_from_a_policys_trash(db: Database) -> None:
    child = await put_image(db, "app")
    trash = sa.update(manifests).values(live=0, trash=1, purge_at=1)

    async def by_policy(session) -> None:  # type: ignore[no-untyped-def]
        await session.run(trash)

    await db.transact(by_policy)
    await push(db, "app", index([child]), "multi", allow_missing="none")
    assert await db.one(sa.select(manifests.c.id).where(manifests.c.live == 0)) is None


@pytest.mark.parametrize("base_first", [True, False])
async def test_the_chain_index_answers_built_on_this_one(db: Database, base_first: bool) -> None:
    diffs = [str(Digest.of(name)) for name in (b"os", b"libs", b"app")]
    configs = {"base": config_of(*diffs[:2]), "app": config_of(*diffs)}
    made = {}
    for name in ("base", "app") if base_first else ("app", "base"):
        await put_blob(db, name, configs[name])
        made[name] = image(configs[name])
        await push(db, name, made[name], "v1", chain=chain_ids(configs[name]))
    assert [(kin.repository, kin.digest) for kin in await descendants(db, "base", made["base"].digest)] == [
        ("app", made["app"].digest)
    ]
    assert [(kin.repository, kin.layers) for kin in await ancestors(db, "app", made["app"].digest)] == [("base", 2)]
    assert await ancestors(db, "base", made["base"].digest) == []


async def test_equal_and_repeated_chains_are_no_conflict(db: Database) -> None:
    nothing = str(Digest.of(b""))
    for number in range(2):
        config = config_of(nothing, nothing, nothing) + b" " * number
        await put_blob(db, "app", config)
        await push(db, "app", image(config), f"v{number}", chain=chain_ids(config))


async def test_aliases_lead_from_config_and_own_digest(db: Database) -> None:
    made = await put_image(db, "app", "v1")
    rows = await db.all(sa.select(digest_aliases.c.digest, digest_aliases.c.role))
    assert (made.digest.packed, 1) in {(bytes(row["digest"]), row["role"]) for row in rows}
    assert {row["role"] for row in rows} == {1, 2}


async def test_each_push_leaves_an_event_for_the_world(db: Database) -> None:
    made = await put_image(db, "app", "v1")
    rows = await db.all(sa.select(outbox_events.c.action, outbox_events.c.body))
    target = json.loads(rows[-1]["body"])["target"]
    assert (rows[-1]["action"], target["tag"], target["digest"]) == ("push", "v1", str(made.digest))


async def test_a_hold_on_an_unknown_digest_takes_hold_when_it_is_pushed(db: Database) -> None:
    await put_blob(db, "app", b"{}")
    made = image(b"{}")

    async def hold(session) -> None:  # type: ignore[no-untyped-def]
        await session.run(
            sa.insert(holds), {"kind": 1, "digest": made.digest.packed, "source": "prod/web", "created_at": 0}
        )

    await db.transact(hold)
    await push(db, "app", made)
    with pytest.raises(DeleteDenied, match="running: prod/web"):
        await delete_manifest(db, "app", made.digest, SOMEBODY, sever=False, trash_for=DAY)
    await put_blob(db, "copy", b"{}")
    await push(db, "copy", made)
    with pytest.raises(DeleteDenied):
        await delete_manifest(db, "copy", made.digest, SOMEBODY, sever=False, trash_for=DAY)


@pytest.mark.parametrize("subject_first", [True, False])
async def test_a_fallback_tag_ties_what_it_lists_to_its_subject(db: Database, subject_first: bool) -> None:
    await put_blob(db, "app", b"{}")
    subject, signature = image(b"{}"), image(b"{}", annotations={"a": "signature"})
    await push(db, "app", signature)
    tag = f"sha256-{subject.digest.hex}"
    steps = [push(db, "app", subject, "v1"), push(db, "app", index([signature]), tag)]
    for step in steps if subject_first else reversed(steps):
        await step
    assert sorted(kind for kind, _, _ in await edges(db)) == [1, 2, 2]
