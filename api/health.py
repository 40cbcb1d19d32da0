"""Whether the process lives, whether it should get requests, and its metrics."""

import msgspec
from aiohttp import web

from tenure.api.context import AdminContext

_JSON = {"Content-Type": "application/json", "Cache-Control": "no-store"}


def add_health_routes(app: web.Application, context: AdminContext) -> None:
    """`/livez` touches nothing outside the process; `/readyz` is 503 while requests should go elsewhere."""

    async def alive(request: web.Request) -> web.Response:
        return web.Response(body=b'{"live":true}', headers=_JSON)

    async def ready(request: web.Request) -> web.Response:
        found = context.ready()
        status = 200 if found.get("ready", False) else 503
        return web.Response(status=status, body=msgspec.json.encode(found), headers=_JSON)

    async def metrics(request: web.Request) -> web.Response:
        if context.metrics is None:
            raise web.HTTPNotFound
        body, content_type = context.metrics()
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    for path, handler in (("/livez", alive), ("/readyz", ready), ("/healthz", ready), ("/metrics", metrics)):
        app.router.add_get(path, handler)
