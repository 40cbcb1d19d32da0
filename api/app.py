"""The admin API as an aiohttp application."""

from collections.abc import Sequence

from aiohttp import web

from tenure.api.context import AdminContext
from tenure.api.dispatch import Dispatcher
from tenure.api.health import add_health_routes
from tenure.api.openapi import PREFIX
from tenure.api.route import Route, faults
from tenure.api.routes import ROUTES


def make_admin_app(context: AdminContext, routes: Sequence[Route] = ROUTES) -> web.Application:
    """`/api/v1` and the health addresses. ValueError for a table that does not say all it must.

    The application opens and closes nothing: the stores in `context` belong to the caller.
    """
    wrong = faults(routes)
    if wrong:
        raise ValueError("; ".join(wrong))
    app = web.Application()
    dispatcher = Dispatcher(context, routes, PREFIX)
    app.router.add_route("*", PREFIX, dispatcher.handle)
    # Not `.*`: aiohttp matches what it has decoded, and a newline must not lead past us.
    app.router.add_route("*", PREFIX + r"/{tail:[\s\S]*}", dispatcher.handle)
    add_health_routes(app, context)
    return app
