"""What every address of the admin API has in common: refusals, conditions, idempotency keys, rehearsals."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from helpers.admin import APP, Admin, changed, dump, serving
from helpers.images import put_image
from tenure.api.app import make_admin_app
from tenure.api.openapi import document
from tenure.api.route import Call, Reply
from tenure.api.routes import ROUTES
from tenure.core.clock import DAY, MINUTE
from tenure.core.errors import Conflict
from tenure.storage.meta.idempotency import Remembered, Reservation, forget_expired_keys, reserve_key, store_answer
from tenure.storage.meta.records import idempotency_keys

NOBODY = "sha256:" + "0" * 64


async def _problem(admin: Admin, status: int, method: str, path: str, *more: Any) -> dict[str, Any]:
    told = await admin.ask(method, path, *more)
    assert told.status == status, told.body
    assert told.headers["content-type"] == "application/problem+json"
    assert told.headers["cache-control"] == "no-store"
    assert told.body["status"] == status
    assert told.body["request_id"] == told.headers["x-request-id"] == "request-1"
    assert told.body["title"] and told.body["type"].startswith("urn:tenure:problem:")
    return dict(told.body)


async def test_refusals_are_problem_details_with_a_sentence(admin: Admin) -> None:
    found = await _problem(admin, 404, "GET", "/repositories/nothing")
    assert found["code"] == "NAME_UNKNOWN" and "nothing" in found["detail"]
    assert found["instance"] == "/api/v1/repositories/nothing" and found["reasons"] == []
    assert (await _problem(admin, 404, "GET", "/nonsense"))["code"] == "NOT_FOUND"
    assert (await _problem(admin, 404, "GET", "//api/v1"))["code"] == "NOT_FOUND"
    assert (await _problem(admin, 400, "GET", "/repositories/UPPER"))["code"] == "NAME_INVALID"
    assert (await _problem(admin, 400, "GET", "/repositories/a%0Ab%0D"))["code"] == "NAME_INVALID"
    assert (await _problem(admin, 405, "PATCH", APP))["code"] == "UNSUPPORTED"
    assert (await admin.ask("PATCH", APP)).headers["allow"] == "DELETE, GET, HEAD"
    admin.gate.closed.add(("pull", "team/app"))
    assert (await _problem(admin, 403, "GET", APP))["code"] == "DENIED"


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("limt=3", "the query parameter limt is not known here"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=abc", "limit"),
        ("limit=1&limit=2", "the query parameter limit is given twice"),
        ("cursor=%00", "cursor"),
        ("cursor=W10", "cursor"),
        ("cursor=WyJcdWQ4MDAiXQ", "cursor"),
        ("cursor=WyJcdTAwMDAiXQ", "cursor"),
        ("cursor=Wy0xXQ", "cursor"),
        ("prefix=%ff", "the query is not percent-encoded UTF-8"),
        ("prefix=%00", "the query parameter prefix: must have only a-z 0-9 . _ - and /"),
        ("&".join(f"p{number}=1" for number in range(101)), "100 parameters"),
    ],
)
async def test_bad_queries_are_refused_by_name(admin: Admin, query: str, sentence: str) -> None:
    assert sentence in (await _problem(admin, 400, "GET", f"/repositories?{query}"))["detail"]


@pytest.mark.parametrize("cursor", ["WyJhIl0", "W3RydWVd", "WzFlMzBd", "WzkyMjMzNzIwMzY4NTQ3NzU4MDhd"])
async def test_cursors_of_other_lists_are_refused(admin: Admin, cursor: str) -> None:
    await _problem(admin, 400, "GET", f"/audit?cursor={cursor}")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff", "JSON"),
        (b'{"digest": ' + b"[" * 100_000, "the field digest"),
        (b"[]", "the body"),
        (b"{}", "the field digest is missing"),
        (b'{"digest": 3}', "the field digest"),
        (b'{"digest": "%s", "digest": "%s"}' % (NOBODY.encode(), NOBODY.encode()), "twice"),
        (b'{"digest": "sha256:short"}', "the field digest: must be sha256: and 64, or sha512: and 128 lower-case hex"),
        (b'{"digest": "%s", "force": true}' % NOBODY.encode(), "the field force is not known here"),
    ],
)
async def test_bad_bodies_are_refused_by_name(admin: Admin, body: bytes, sentence: str) -> None:
    told = await admin.send("PUT", f"{APP}/tags/v1", body, {"Content-Type": "application/json"})
    assert told.status == 400
    assert sentence in told.body["detail"]


async def test_bodies_are_json_of_one_mebibyte_at_most(admin: Admin) -> None:
    path, plain = f"{APP}/tags/v1", b'{"digest": "%s"}' % NOBODY.encode()
    for headers, found in (
        ({}, "this one has none"),
        ({"Content-Type": "text/plain"}, "this one says 'text/plain'"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "says 'application/x-www-form-urlencoded'"),
        ({"Content-Type": "bäd"}, "this one says '"),
    ):
        told = await admin.send("PUT", path, plain, headers)
        assert (told.status, told.headers["content-type"]) == (415, "application/problem+json")
        assert "is sent with Content-Type: application/json; " in told.body["detail"] and found in told.body["detail"]
    json_type = {"Content-Type": "application/json; charset=utf-8"}
    assert (await admin.send("PUT", path, plain, json_type)).status == 404
    assert (await admin.send("PUT", path, plain, {**json_type, "Content-Encoding": "gzip"})).status == 415
    large = plain + b" " * (1 << 20)
    assert (await admin.send("PUT", path, large, json_type)).status == 413
    assert (await admin.send("PUT", path, large, json_type, chunked=True)).status == 413
    assert (await admin.send("PUT", path, plain + b" " * 1000, json_type, chunked=True)).status == 404
    assert (await admin.send("DELETE", APP, b"x", {})).status == 400


async def test_entity_tags_guard_every_change(admin: Admin) -> None:
    first = await put_image(admin.db, "team/app", "v1", seed="a")
    second = await put_image(admin.db, "team/app", "v2", seed="b")
    for path, body in (
        (f"{APP}/tags/v1", {"digest": str(second.digest)}),
        (f"{APP}/tags/v2", None),
        (f"{APP}/manifests/{first.digest}", None),
        (APP, None),
    ):
        method = "DELETE" if body is None else "PUT"
        seen = (await admin.ask("GET", path)).headers["etag"]
        before = await dump(admin.db)
        for refused in ({"If-Match": '"other"'}, {"If-None-Match": "*"}, {"If-None-Match": seen}):
            await _problem(admin, 412, method, path, body, refused)
        await _problem(admin, 400, method, path, body, {"If-Match": "unquoted"})
        assert changed(before, await dump(admin.db)) == set()
        told = await admin.ask(method, path, body, {"If-Match": f'"x", {seen}'})
        assert told.status == 200, told.body


async def test_a_tag_made_anew_is_another_one(admin: Admin) -> None:
    await put_image(admin.db, "team/app", "v1", seed="a")
    seen = (await admin.ask("GET", f"{APP}/tags/v1")).headers["etag"]
    await admin.ask("DELETE", f"{APP}/tags/v1")
    other = await put_image(admin.db, "team/app", "v1", seed="b")
    await _problem(admin, 412, "DELETE", f"{APP}/tags/v1", None, {"If-Match": seen})
    new = {"digest": str(other.digest)}
    assert (await admin.ask("PUT", f"{APP}/tags/v9", new, {"If-None-Match": "*"})).status == 200
    await _problem(admin, 412, "PUT", f"{APP}/tags/v9", new, {"If-None-Match": "*"})
    await _problem(admin, 412, "PUT", f"{APP}/tags/v8", new, {"If-Match": "*"})


async def test_of_many_who_saw_the_same_one_wins(admin: Admin) -> None:
    await put_image(admin.db, "team/app", "v1", seed="a")
    targets = [await put_image(admin.db, "team/app", seed=f"b{number}") for number in range(6)]
    seen = {"If-Match": (await admin.ask("GET", f"{APP}/tags/v1")).headers["etag"]}
    told = await asyncio.gather(
        *(admin.ask("PUT", f"{APP}/tags/v1", {"digest": str(made.digest)}, seen) for made in targets)
    )
    assert sorted(answer.status for answer in told) == [200, 412, 412, 412, 412, 412]


async def test_a_key_gives_the_first_answer_again(admin: Admin) -> None:
    path, body = await _restorable(admin)
    key = {"Idempotency-Key": "run-42"}
    first = await admin.ask("POST", path, body, key)
    before = await dump(admin.db)
    again = await admin.ask("POST", path, body, key)
    assert (again.status, again.heard.body) == (first.status, first.heard.body) == (200, first.heard.body)
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["idempotency-replayed"] == "true" and "idempotency-replayed" not in first.headers
    assert changed(before, await dump(admin.db)) == set()


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_key_works_on_every_changing_method(admin: Admin, method: str) -> None:
    """The lost answer is given again, though the tag has been moved or made anew by somebody else since."""
    first = await put_image(admin.db, "team/app", "v1", seed="a")
    second = await put_image(admin.db, "team/app", "v2", seed="b")
    path, body = f"{APP}/tags/v1", {"digest": str(second.digest)} if method == "PUT" else None
    seen = (await admin.ask("GET", path)).headers["etag"]
    key = {"Idempotency-Key": "run-42", "If-Match": seen}
    told = await admin.ask(method, path, body, key)
    assert told.status == 200
    assert (await admin.ask("PUT", path, {"digest": str(first.digest)})).status == 200
    before = await dump(admin.db)
    again = await admin.ask(method, path, body, key)
    assert (again.status, again.heard.body) == (200, told.heard.body)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers.get("etag") == told.headers.get("etag")
    assert changed(before, await dump(admin.db)) == set()
    # Asked under another condition it is another request.
    await _problem(admin, 422, method, path, body, {"Idempotency-Key": "run-42"})
    await _problem(admin, 422, method, path, body, {"Idempotency-Key": "run-42", "If-Match": '"other"'})
    await _problem(admin, 400, method, path, body, {"Idempotency-Key": "two words"})


async def test_a_repository_is_deleted_once_under_a_key(admin: Admin) -> None:
    await put_image(admin.db, "team/app", "v1", seed="a")
    told = await admin.ask("DELETE", APP, None, {"Idempotency-Key": "k"})
    await put_image(admin.db, "team/app", "v9", seed="b")
    again = await admin.ask("DELETE", APP, None, {"Idempotency-Key": "k"})
    assert (again.status, again.body) == (200, told.body)
    assert (await admin.ask("GET", f"{APP}/tags/v9")).status == 200
    await _problem(admin, 404, "DELETE", "/repositories/none", None, {"Idempotency-Key": "other"})
    assert (await admin.ask("DELETE", APP, None, {"Idempotency-Key": "other"})).status == 200


async def test_a_key_belongs_to_one_request_of_one_actor(admin: Admin) -> None:
    path, body = await _restorable(admin)
    key = {"Idempotency-Key": "run-42"}
    await admin.ask("POST", path, body, key)
    assert (await _problem(admin, 422, "POST", path, {"event": 77}, key))["code"] == "IDEMPOTENCY_MISMATCH"
    await _problem(admin, 422, "POST", path.replace("v1", "v2"), body, key)
    other = await admin.ask("POST", path, body, {**key, "X-Test-Actor": "eve"})
    assert other.status == 200 and "idempotency-replayed" not in other.headers
    await _problem(admin, 400, "POST", path, body, {"Idempotency-Key": "two words"})


async def test_one_of_many_with_the_same_key_does_it(admin: Admin) -> None:
    path, body = await _restorable(admin)
    before = await dump(admin.db)
    told = await asyncio.gather(*(admin.ask("POST", path, body, {"Idempotency-Key": "k"}) for _ in range(8)))
    assert {answer.status for answer in told} <= {200, 409}
    assert len({answer.heard.body for answer in told if answer.status == 200}) == 1
    after = await dump(admin.db)
    assert len(after["tag_events"]) == len(before["tag_events"]) + 1


async def test_a_running_request_keeps_its_key_until_its_time_is_up(admin: Admin) -> None:
    path, body = await _restorable(admin)
    reserved = await reserve_key(admin.db, "tester", "k", b"\0" * 32)
    assert isinstance(reserved, Reservation)
    with pytest.raises(Conflict):
        await reserve_key(admin.db, "tester", "k", b"\0" * 32)
    await _problem(admin, 422, "POST", path, body, {"Idempotency-Key": "k"})
    admin.db.clock_offset += 6 * MINUTE  # type: ignore[attr-defined]
    assert (await admin.ask("POST", path, body, {"Idempotency-Key": "k"})).status == 200
    # The one that was taken for dead comes back: what it wanted to commit is refused with its answer.
    with pytest.raises(Conflict):
        await store_answer(admin.db, reserved, Remembered(200, {}, b""))


async def test_a_refused_request_gives_its_key_back(admin: Admin) -> None:
    path, body = await _restorable(admin)
    key = {"Idempotency-Key": "k"}
    await _problem(admin, 404, "POST", path, {"event": 99_999}, key)
    assert (await dump(admin.db))["idempotency_keys"] == []
    assert (await admin.ask("POST", path, body, key)).status == 200


async def test_keys_are_forgotten_after_a_day(admin: Admin) -> None:
    path, body = await _restorable(admin)
    key = {"Idempotency-Key": "k"}
    await admin.ask("POST", path, body, key)
    assert await forget_expired_keys(admin.db, limit=10) == 0
    admin.db.clock_offset += DAY + MINUTE  # type: ignore[attr-defined]
    assert "idempotency-replayed" not in (await admin.ask("POST", path, body, key)).headers
    admin.db.clock_offset += DAY + MINUTE  # type: ignore[attr-defined]
    assert await forget_expired_keys(admin.db, limit=10) == 1
    assert await admin.db.all(sa.select(idempotency_keys)) == []


async def test_every_change_can_be_rehearsed_and_leaves_nothing(admin: Admin) -> None:
    made = await put_image(admin.db, "team/app", "v1", seed="a")
    other = await put_image(admin.db, "team/app", "v2", seed="b")
    event = (await admin.ask("GET", f"{APP}/tags/v2/history")).body["items"][0]["id"]
    bodies = {"tag.move": {"digest": str(other.digest)}, "tag.restore": {"event": event}}
    names = {"repository": "team%2Fapp", "digest": str(made.digest)}
    changes = [route for route in ROUTES if route.mutates]
    rehearsed: dict[str, Any] = {}
    for route in changes:
        path = route.path.format(**names, tag="v2" if route.name == "tag.restore" else "v1")
        before = await dump(admin.db)
        told = await admin.ask(route.method, path + "?dry_run=1", bodies.get(route.name), {"Idempotency-Key": "k"})
        assert told.status == route.status, (route.name, told.body)
        assert told.body["dry_run"] is True
        assert changed(before, await dump(admin.db)) == set(), route.name
        rehearsed[route.name] = told.body
    assert rehearsed["tag.move"]["tag"]["digest"] == str(other.digest)
    assert rehearsed["repository.delete"]["manifest_count"] == 2
    # Done in earnest it says the same, but for the time.
    for route in sorted(changes, key=lambda route: route.name == "repository.delete"):
        if route.name in ("repository.delete", "manifest.delete"):
            continue
        path = route.path.format(**names, tag="v2" if route.name == "tag.restore" else "v1")
        told = await admin.ask(route.method, path, bodies.get(route.name))
        assert told.body["dry_run"] is False
        assert _timeless(told.body) == _timeless(rehearsed[route.name]), route.name


async def test_a_rehearsal_is_refused_like_the_real_thing(admin: Admin) -> None:
    await put_image(admin.db, "team/app", "v1")
    await _problem(admin, 404, "PUT", f"{APP}/tags/v1?dry_run=true", {"digest": NOBODY})
    await _problem(admin, 412, "DELETE", f"{APP}/tags/v1?dry_run=1", None, {"If-Match": '"no"'})
    await _problem(admin, 400, "DELETE", f"{APP}/tags/v1?dry_run=maybe")
    admin.gate.closed.add(("delete", "team/app"))
    await _problem(admin, 403, "DELETE", f"{APP}/tags/v1?dry_run=1")


async def test_the_document_is_served(admin: Admin) -> None:
    told = await admin.ask("GET", "/openapi.json")
    assert told.body == document(ROUTES)
    assert told.headers["content-type"] == "application/json"


async def test_head_tells_what_get_would(admin: Admin) -> None:
    await put_image(admin.db, "team/app", "v1")
    told, head = await admin.ask("GET", APP), await admin.ask("HEAD", APP)
    assert (head.status, head.heard.body) == (200, b"")
    assert head.headers["etag"] == told.headers["etag"]
    assert head.headers["content-length"] == str(len(told.heard.body))


async def test_health_addresses(admin: Admin) -> None:
    assert (await admin.ask("GET", "//livez")).status == 200
    assert (await admin.ask("GET", "//readyz")).body == {"ready": True}
    admin.ready = {"ready": False, "status": "draining"}
    told = await admin.ask("GET", "//readyz")
    assert (told.status, told.body["status"]) == (503, "draining")
    assert (await admin.ask("GET", "//livez")).status == 200
    assert (await admin.ask("GET", "//metrics")).heard.body == b"up 1\n"


async def test_a_mistake_of_ours_is_a_problem_too(admin: Admin) -> None:
    async def broken(call: Call) -> Reply:
        raise RuntimeError("secret detail")

    routes = [replace(route, handler=broken) if route.name == "audit.list" else route for route in ROUTES]
    assert admin.context is not None
    async with serving(make_admin_app(admin.context, routes)) as address:
        admin.address = address
        found = await _problem(admin, 500, "GET", "/audit")
    assert "secret" not in str(found)


async def _restorable(admin: Admin) -> tuple[str, dict[str, int]]:
    """A POST that moves a tag back, so that doing it twice would be seen in the history."""
    made = await put_image(admin.db, "team/app", "v1", seed="a")
    await put_image(admin.db, "team/app", "v1", seed="b")
    events = (await admin.ask("GET", f"{APP}/tags/v1/history")).body["items"]
    assert events[1]["new"] == str(made.digest)
    return f"{APP}/tags/v1/restore", {"event": events[1]["id"]}


def _timeless(body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    return {
        key: _timeless(value) for key, value in body.items() if key not in ("dry_run", "restorable_until", "moved_at")
    }
