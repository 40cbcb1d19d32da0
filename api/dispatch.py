"""One request through the admin API: find the route, check the right, read, do, answer.

The order is fixed: nothing of a request is looked at before its caller's right to be here is known, except
the path that says where "here" is. A change runs in one transaction with the condition it was asked under
and with the answer that is remembered for it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import structlog
from aiohttp import web

from tenure.api.context import AdminContext
from tenure.api.match import Matcher
from tenure.api.problems import problem
from tenure.api.reading import read_body, read_condition, read_idempotency_key, read_query
from tenure.api.route import Call, Reply, Route
from tenure.core.errors import BadRequest, PreconditionFailed, TenureError
from tenure.core.origin import Origin
from tenure.storage.meta.changes import change
from tenure.storage.meta.database import Database
from tenure.storage.meta.idempotency import Remembered, Reservation, release_key, reserve_key, store_answer

Condition = Sequence[str] | None


class Dispatcher:
    """Answers requests below a prefix from one table."""

    def __init__(self, context: AdminContext, routes: Sequence[Route], prefix: str) -> None:
        self._context = context
        self._routes = routes
        self._matcher = Matcher(routes)
        self._prefix = prefix
        self._log = structlog.get_logger("tenure.api")

    async def handle(self, request: web.Request) -> web.Response:
        origin = Origin()
        path = request.rel_url.raw_path
        try:
            origin = await self._context.identify(request)
            found = await self._answer(request, path, origin)
        except TenureError as error:
            return problem(error, path, origin.request_id)
        except Exception:
            self._log.exception("request failed", method=request.method, path=path, request_id=origin.request_id)
            return problem(TenureError(), path, origin.request_id)
        headers = {**found.headers, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        if origin.request_id:
            headers["X-Request-Id"] = origin.request_id
        return web.Response(status=found.status, body=found.body, headers=headers)

    async def _answer(self, request: web.Request, path: str, origin: Origin) -> Remembered:
        route, params = self._matcher.match(request.method, path.removeprefix(self._prefix))
        if route.action != "anyone":
            self._context.access.check(origin, route.action, params.get("repository"))
        query = read_query(route, request.rel_url.raw_query_string)
        raw, body = await read_body(route, request)
        call = Call(self._context, self._context.db, origin, params, query, body, self._routes)
        if not route.mutates:
            return _render(route, await route.handler(call))
        conditions = _conditions(route, request)
        key = read_idempotency_key(request)
        if key is None or call.query.dry_run:
            return await _change(route, call, conditions, None)
        # With its conditions: asked under another one, it is another request.
        said = (route.method, request.raw_path, repr(conditions))
        parts = (*(part.encode("utf-8", "surrogateescape") for part in said), raw)
        return await _once(route, call, conditions, key, hashlib.sha256(b"\0".join(parts)).digest())


async def _once(
    route: Route, call: Call, conditions: tuple[Condition, Condition], key: str, fingerprint: bytes
) -> Remembered:
    reserved = await reserve_key(call.db, call.origin.actor, key, fingerprint)
    if isinstance(reserved, Remembered):
        return replace(reserved, headers={**reserved.headers, "Idempotency-Replayed": "true"})
    done = False
    try:
        answer = await _change(route, call, conditions, reserved)
        done = True
        return answer
    finally:
        if not done:
            await release_key(call.db, reserved)


async def _change(
    route: Route, call: Call, conditions: tuple[Condition, Condition], reserved: Reservation | None
) -> Remembered:
    async def work(db: Database) -> Remembered:
        inside = replace(call, db=db)
        if route.etag is not None and conditions != (None, None):
            _check(await route.etag(inside), *conditions)
        answer = _render(route, await route.handler(inside))
        if reserved is not None:
            await store_answer(db, reserved, answer)
        return answer

    # A condition only holds until the commit when nobody else can change what it was about.
    alone = call.repository if conditions != (None, None) and "repository" in call.params else None
    return await change(call.db, work, keep=not call.query.dry_run, alone=alone)


def _conditions(route: Route, request: web.Request) -> tuple[Condition, Condition]:
    found = read_condition(request, "If-Match"), read_condition(request, "If-None-Match")
    if route.etag is None and found != (None, None):
        raise BadRequest("this address has no entity tag; leave out If-Match and If-None-Match")
    return found


def _check(current: str | None, if_match: Condition, if_none_match: Condition) -> None:
    if if_match is not None and not _matches(if_match, current):
        raise PreconditionFailed(f"If-Match does not fit: the entity tag is {current or 'not there'} now")
    if if_none_match is not None and _matches(if_none_match, current):
        raise PreconditionFailed(f"If-None-Match does not fit: the entity tag is {current} now")


def _matches(condition: Sequence[str], current: str | None) -> bool:
    # Weak tags compare like strong ones here: an entity tag names a state, not bytes.
    return current is not None and ("*" in condition or current in [tag.removeprefix("W/") for tag in condition])


def _render(route: Route, reply: Reply) -> Remembered:
    headers: Mapping[str, str] = {"Content-Type": "application/json", **reply.headers}
    if reply.etag is not None:
        headers = {**headers, "ETag": reply.etag}
    return Remembered(route.status, headers, msgspec.json.encode(reply.body))
