"""Repositories, tags, manifests and the audit list over HTTP, on both databases."""

import json

import sqlalchemy as sa

from helpers.admin import APP, Admin, changed, dump, segment, store
from helpers.images import config_of, image, index, push, put_blob, put_image
from tenure.api.paging import next_cursor
from tenure.core import media
from tenure.core.digest import Digest
from tenure.storage.meta.tables import blobs, objects


async def test_repositories_are_listed_by_name_and_prefix(admin: Admin) -> None:
    for name in ("web", "team/app", "team/other", "zoo"):
        await put_image(admin.db, name, "v1", seed=name)
    await put_blob(admin.db, "only-a-blob", b"x")
    told = await admin.ask("GET", "/repositories")
    assert told.status == 200
    assert [item["name"] for item in told.body["items"]] == ["team/app", "team/other", "web", "zoo"]
    assert told.body["next"] is None
    told = await admin.ask("GET", "/repositories?prefix=team/")
    assert [item["name"] for item in told.body["items"]] == ["team/app", "team/other"]
    assert told.body["items"][0]["tags"] == 1
    assert told.body["items"][0]["manifests"] == 1
    assert told.body["items"][0]["pushed_at"].endswith("Z")


async def test_lists_are_paged_by_cursor(admin: Admin) -> None:
    names = [f"r{number}" for number in range(5)]
    for name in names:
        await put_image(admin.db, name, *(f"t{number}" for number in range(3)), seed=name)
    seen, cursor = [], ""
    while cursor is not None:
        told = await admin.ask("GET", f"/repositories?limit=2{cursor and '&cursor=' + cursor}")
        assert len(told.body["items"]) <= 2
        seen += [item["name"] for item in told.body["items"]]
        cursor = told.body["next"]
    assert seen == names
    first = (await admin.ask("GET", "/repositories/r0/tags?limit=2")).body
    second = (await admin.ask("GET", f"/repositories/r0/tags?limit=2&cursor={first['next']}")).body
    assert [tag["name"] for tag in first["items"] + second["items"]] == ["t0", "t1", "t2"]
    assert second["next"] is None


async def test_only_what_the_caller_may_pull_is_listed(admin: Admin) -> None:
    for name in ("mine", "yours"):
        await put_image(admin.db, name, "v1", seed=name)
    admin.gate.closed.add(("pull", "yours"))
    told = await admin.ask("GET", "/repositories")
    assert [item["name"] for item in told.body["items"]] == ["mine"]
    assert (await admin.ask("GET", "/repositories/yours")).status == 403


async def test_a_repository_tells_counts_and_bytes(admin: Admin) -> None:
    await put_image(admin.db, "team/app", "v1", "v2", seed="a", layers=3)
    told = await admin.ask("GET", APP)
    sizes = await admin.db.all(sa.select(blobs.c.size))
    assert told.body["size"] == sum(row["size"] for row in sizes)
    assert (told.body["tags"], told.body["manifests"]) == (2, 1)
    assert told.headers["etag"]
    assert told.headers["cache-control"] == "no-store"
    assert told.headers["x-request-id"] == "request-1"


async def test_deleting_a_repository_trashes_it_and_leaves_one_audit_row(admin: Admin) -> None:
    made = await put_image(admin.db, "team/app", "v1", "v2")
    told = await admin.ask("DELETE", APP)
    assert told.status == 200
    assert told.body["tags"] == ["v1", "v2"]
    assert (told.body["tag_count"], told.body["manifest_count"], told.body["dry_run"]) == (2, 1, False)
    assert told.body["restorable_until"] > (await _audit(admin, "repository.delete"))["at"]
    assert (await admin.ask("GET", APP)).status == 404
    assert (await admin.ask("GET", f"{APP}/manifests/{made.digest}")).status == 404


async def test_tags_are_shown_moved_and_deleted(admin: Admin) -> None:
    old = await put_image(admin.db, "team/app", "v1", seed="a")
    new = await put_image(admin.db, "team/app", "v2", seed="b")
    shown = await admin.ask("GET", f"{APP}/tags/v1")
    assert shown.body["digest"] == str(old.digest)
    assert shown.body["media_type"] == media.OCI_MANIFEST
    assert shown.body["size"] == len(old.payload)

    moved = await admin.ask("PUT", f"{APP}/tags/v1", {"digest": str(new.digest)})
    assert moved.status == 200
    assert moved.body["previous"] == str(old.digest)
    assert moved.body["tag"]["digest"] == str(new.digest)
    assert moved.headers["etag"] != shown.headers["etag"]
    assert (await _audit(admin, "tag.move"))["detail"] == {"digest": str(new.digest)}

    gone = await admin.ask("DELETE", f"{APP}/tags/v1")
    assert gone.body["tags"] == ["v1"] and gone.body["manifest_count"] == 0
    assert (await admin.ask("GET", f"{APP}/tags/v1")).status == 404
    assert (await admin.ask("GET", f"{APP}/manifests/{new.digest}")).status == 200
    assert (await _audit(admin, "tag.delete"))["target"] == "v1"


async def test_every_change_is_told_to_the_world_in_its_transaction(admin: Admin) -> None:
    made = await put_image(admin.db, "team/app", "v1")
    before = await dump(admin.db)
    await admin.ask("PUT", f"{APP}/tags/v2", {"digest": str(made.digest)})
    after_move = await dump(admin.db)
    await admin.ask("DELETE", f"{APP}/tags/v2")
    after_delete = await dump(admin.db)
    await admin.ask("DELETE", f"{APP}/manifests/{made.digest}")
    after_manifest = await dump(admin.db)
    await put_image(admin.db, "team/app", "v3", seed="c")
    filled = await dump(admin.db)
    await admin.ask("DELETE", APP)
    states = [(before, after_move), (after_move, after_delete), (after_delete, after_manifest)]
    for earlier, later in [*states, (filled, await dump(admin.db))]:
        assert {"audit_events", "outbox_events", "tag_events"} <= changed(earlier, later)
        for table in ("audit_events", "outbox_events"):
            assert len(later[table]) == len(earlier[table]) + 1


async def test_history_names_every_move_with_actor_and_cause(admin: Admin) -> None:
    first = await put_image(admin.db, "team/app", "v1", seed="a")
    second = await put_image(admin.db, "team/app", "other", seed="b")
    await admin.ask("PUT", f"{APP}/tags/v1", {"digest": str(second.digest)}, {"X-Test-Actor": "eve"})
    await admin.ask("DELETE", f"{APP}/tags/v1")
    events = (await admin.ask("GET", f"{APP}/tags/v1/history")).body["items"]
    assert [(event["cause"], event["actor"]) for event in events] == [
        ("delete", "tester"),
        ("retag", "eve"),
        ("push", "somebody"),
    ]
    assert [(event["old"], event["new"]) for event in events] == [
        (str(second.digest), None),
        (str(first.digest), str(second.digest)),
        (None, str(first.digest)),
    ]
    whole = (await admin.ask("GET", f"{APP}/history?limit=3")).body
    assert [event["tag"] for event in whole["items"]] == ["v1", "v1", "other"]
    rest = (await admin.ask("GET", f"{APP}/history?limit=3&cursor={whole['next']}")).body
    assert [event["tag"] for event in rest["items"]] == ["v1"] and rest["next"] is None


async def test_a_tag_that_never_was_has_no_history_to_show(admin: Admin) -> None:
    await put_image(admin.db, "team/app", "v1")
    told = await admin.ask("GET", f"{APP}/tags/v7/history")
    assert (told.status, told.body["code"]) == (404, "MANIFEST_UNKNOWN")
    assert told.body["detail"] == "tag v7 is not known in team/app and never was"
    page = (await admin.ask("GET", f"{APP}/tags/v1/history")).body
    behind = f"limit=1&cursor={next_cursor(page['items'][-1]['id'])}"
    assert (await admin.ask("GET", f"{APP}/tags/v1/history?{behind}")).body == {"items": [], "next": None}


async def test_a_tag_goes_back_to_a_point_of_its_history(admin: Admin) -> None:
    first = await put_image(admin.db, "team/app", "v1", seed="a")
    second = await put_image(admin.db, "team/app", seed="b")
    await admin.ask("PUT", f"{APP}/tags/v1", {"digest": str(second.digest)})
    await admin.ask("DELETE", f"{APP}/tags/v1")
    events = (await admin.ask("GET", f"{APP}/tags/v1/history")).body["items"]
    told = await admin.ask("POST", f"{APP}/tags/v1/restore", {"event": events[0]["id"]})
    assert told.body["tag"]["digest"] == str(second.digest) and told.body["previous"] is None
    told = await admin.ask("POST", f"{APP}/tags/v1/restore", {"event": events[2]["id"]})
    assert told.body["tag"]["digest"] == str(first.digest)
    assert (await admin.ask("POST", f"{APP}/tags/v2/restore", {"event": events[0]["id"]})).status == 404


async def test_manifests_are_listed_newest_first(admin: Admin) -> None:
    made = [await put_image(admin.db, "team/app", *tags, seed=seed) for seed, tags in (("a", ["v1"]), ("b", []))]
    listed = (await admin.ask("GET", f"{APP}/manifests")).body["items"]
    assert [item["digest"] for item in listed] == [str(made[1].digest), str(made[0].digest)]
    assert [item["tags"] for item in listed] == [[], ["v1"]]
    assert listed[0]["pushed_by"] == "somebody"
    untagged = (await admin.ask("GET", f"{APP}/manifests?untagged=1")).body["items"]
    assert [item["digest"] for item in untagged] == [str(made[1].digest)]


async def test_a_manifest_is_shown_with_all_around_it(admin: Admin) -> None:
    config = json.dumps({"os": "linux", "architecture": "arm64", "variant": "v8"}).encode()
    for content in (config, b"layer"):
        await put_blob(admin.db, "team/app", content)
    row = await admin.db.one(
        sa.select(objects.c.key)
        .join(blobs, blobs.c.object_id == objects.c.id)
        .where(blobs.c.digest == Digest.of(config).packed)
    )
    assert row is not None
    await store(admin.driver, config, row["key"])
    made = image(config, [b"layer"], annotations={"org.example": "yes"})
    await push(admin.db, "team/app", made, "v1")
    absent = {"mediaType": media.OCI_MANIFEST, "digest": "sha256:" + "0" * 64, "size": 3}
    both = index([{**made.descriptor(), "platform": {"os": "linux", "architecture": "arm64"}}, absent])
    await push(admin.db, "team/app", both, "multi")
    signature = image(config, [b"layer"], subject=made, artifactType="application/vnd.sig")
    await push(admin.db, "team/app", signature)

    told = await admin.ask("GET", f"{APP}/manifests/{made.digest}")
    shown = told.body
    assert told.headers["etag"] == f'"{made.digest}"'
    assert shown["platform"] == {"os": "linux", "architecture": "arm64", "variant": "v8", "os_version": None}
    assert [(blob["role"], blob["size"], blob["absent"]) for blob in shown["blobs"]] == [
        ("config", len(config), None),
        ("layer", 5, None),
    ]
    assert shown["content_size"] == len(config) + 5
    assert shown["tags"] == ["v1"] and shown["annotations"] == {"org.example": "yes"}
    assert shown["parents"] == [str(both.digest)]
    assert shown["referrers"] == [{"digest": str(signature.digest), "artifact_type": "application/vnd.sig"}]

    parent = (await admin.ask("GET", f"{APP}/manifests/{both.digest}")).body
    assert [(child["digest"], child["absent"]) for child in parent["children"]] == [
        (str(made.digest), None),
        (absent["digest"], "sparse"),
    ]
    assert parent["children"][0]["platform"]["architecture"] == "arm64" and parent["blobs"] == []
    assert (await admin.ask("GET", f"{APP}/manifests/{signature.digest}")).body["subject"] == str(made.digest)


async def test_a_child_of_an_index_is_kept_and_the_refusal_names_the_index(admin: Admin) -> None:
    child = await put_image(admin.db, "team/app", seed="a")
    parent = index([child])
    await push(admin.db, "team/app", parent, "v1")
    before = await dump(admin.db)
    told = await admin.ask("DELETE", f"{APP}/manifests/{child.digest}")
    assert told.status == 409
    assert told.headers["content-type"] == "application/problem+json"
    assert told.body["code"] == "DENIED"
    assert any(str(parent.digest) in reason for reason in told.body["reasons"])
    assert changed(before, await dump(admin.db)) == set()
    told = await admin.ask("DELETE", f"{APP}/manifests/{parent.digest}")
    assert told.status == 200 and told.body["tags"] == ["v1"]


async def test_lineage_names_what_is_built_on_what(admin: Admin) -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    chain = (Digest.parse(one), Digest.of(f"{one} {two}".encode()))
    digests = {}
    for name, depth in (("app", 2), ("base", 1)):
        config = config_of(*[one, two][:depth])
        await put_blob(admin.db, name, config)
        made = image(config)
        await push(admin.db, name, made, "v1", chain=chain[:depth])
        digests[name] = made.digest
    below = (await admin.ask("GET", f"/repositories/app/manifests/{digests['app']}/ancestors")).body
    assert below["items"] == [{"repository": "base", "digest": str(digests["base"]), "layers": 1}]
    path = f"/repositories/base/manifests/{digests['base']}/descendants"
    above = (await admin.ask("GET", path)).body
    assert [kin["repository"] for kin in above["items"]] == ["app"]
    admin.gate.closed.add(("pull", "app"))
    assert (await admin.ask("GET", path)).body["items"] == []


async def test_the_audit_list_is_filtered(admin: Admin) -> None:
    made = await put_image(admin.db, "team/app", "v1")
    for tag, actor in (("a", "ann"), ("b", "bob"), ("c", "ann")):
        await admin.ask("PUT", f"{APP}/tags/{tag}", {"digest": str(made.digest)}, {"X-Test-Actor": actor})
    events = (await admin.ask("GET", "/audit?actor=ann&action=tag.move")).body["items"]
    assert [event["target"] for event in events] == ["c", "a"]
    assert {event["address"] for event in events} == {"127.0.0.1"}
    later = (await admin.ask("GET", f"/audit?since={segment(events[0]['at'])}")).body["items"]
    assert [event["target"] for event in later] == ["c"]
    earlier = (await admin.ask("GET", f"/audit?until={segment(events[0]['at'])}&repository=team/app")).body["items"]
    assert "c" not in [event["target"] for event in earlier]
    page = (await admin.ask("GET", "/audit?limit=1")).body
    assert (await admin.ask("GET", f"/audit?limit=1&cursor={page['next']}")).body["items"][0]["target"] == "b"
    admin.gate.closed.add(("admin", None))
    assert (await admin.ask("GET", "/audit")).status == 403


async def _audit(admin: Admin, action: str) -> dict[str, object]:
    """The only audit event of an action."""
    (event,) = (await admin.ask("GET", f"/audit?action={action}")).body["items"]
    assert event["actor"] == "tester" and event["repository"] == "team/app"
    return dict(event)
