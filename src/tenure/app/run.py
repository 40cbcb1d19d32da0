"""From settings to a process that serves until it is asked to stop.

The order of the end is the reverse of the order of the start: unready, no new connections, running requests
finish, background work is given back, stores close.
"""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from tenure import __version__
from tenure.api.app import make_admin_app
from tenure.api.context import AdminContext
from tenure.api.health import add_health_routes
from tenure.app.banner import banner, warning
from tenure.app.drain import drain
from tenure.app.health import Health
from tenure.app.listening import CannotListen, Listener
from tenure.app.signals import asked_to_stop
from tenure.app.stores import Stores, open_stores
from tenure.app.tls import Certificate, CertificateUnusable
from tenure.auth.access import OpenAccess
from tenure.config.tree import Settings
from tenure.core.clock import SECOND
from tenure.core.origin import Origin
from tenure.gc.duties import DUTIES
from tenure.gc.worker import Worker
from tenure.obs.log import Outlet, access_log
from tenure.obs.metrics import Metrics
from tenure.registry.plane import Plane
from tenure.registry.server import ORIGIN, Limits, RegistryServer, make_server

_log = structlog.get_logger("tenure.app")


class CannotServe(Exception):
    """The process cannot start, or cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Process:
    """What the parts of a running process share. `metrics` None: switched off."""

    settings: Settings
    stores: Stores
    health: Health
    metrics: Metrics | None


async def serve_until_asked(settings: Settings) -> int:
    """Starts what server.role asks for and runs until SIGTERM or SIGINT; the exit code.

    Raises CannotServe, and the errors of `open_stores`, when it cannot start.
    """
    _raise_file_limit()
    stop = asked_to_stop()
    metrics = Metrics(__version__) if settings.metrics.enabled else None
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(open_stores(settings, metrics))
        probes = {"database": stores.db.ping, "schema": stores.probe_schema, "store": stores.probe_store}
        process = Process(settings, stores, Health(probes), metrics)
        await process.health.ask()
        background = [process.health.watch()]
        if settings.server.role != "api":
            background.append(Worker(stores.db, stores.driver, settings.gc, DUTIES).run())
        tasks = [asyncio.create_task(one) for one in background]
        stack.push_async_callback(_end, tasks)
        try:
            await stack.enter_async_context(_listening(process))
        except (CannotListen, CertificateUnusable) as error:
            raise CannotServe(str(error)) from None
        return await _until(stop, tasks)


async def _until(stop: asyncio.Event, tasks: list["asyncio.Task[None]"]) -> int:
    """Waits for `stop`; a background task that ends by itself ends the process, for something to start it anew."""
    asked = asyncio.create_task(stop.wait())
    await asyncio.wait([asked, *tasks], return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    for task in tasks:
        if task.done() and not task.cancelled():
            _log.error("background work ended", exc_info=task.exception())
            return 1
    return 0


@asynccontextmanager
async def _listening(process: Process) -> AsyncIterator[None]:
    """Everything that listens, by role; at the end it drains."""
    settings = process.settings
    server: RegistryServer | None = None
    async with AsyncExitStack() as stack:
        certificate = _certificate(settings)
        if certificate:
            watching = asyncio.create_task(certificate.watch())
            stack.push_async_callback(_end, [watching])
        if settings.metrics.listen:
            await stack.enter_async_context(_health_only(process, settings.metrics.listen, None))
        if settings.server.role == "worker":
            await stack.enter_async_context(_health_only(process, settings.server.listen, certificate))
            _log.info("working", listen=settings.server.listen, version=__version__)
        else:
            server = await stack.enter_async_context(_registry(process, certificate))
        yield
        process.health.draining = True
        if server is not None:
            # Clients of kept connections hear of it while there is time: not with the request that would be cut.
            server.draining = True
        await asyncio.sleep(settings.server.drain_delay / SECOND)


@asynccontextmanager
async def _registry(process: Process, certificate: Certificate | None) -> AsyncIterator[RegistryServer]:
    settings = process.settings
    admin_app = make_admin_app(_admin_context(process, None if settings.metrics.listen else process.metrics))
    server = _server(process, admin_app)
    await admin_app.startup()
    if process.metrics:
        process.metrics.gauge("tenure_http_requests_in_flight", "Requests being worked on.", server.inflight)
        process.metrics.gauge("tenure_log_lines_lost", "Lines that could not be written.", lambda: Outlet.lost)
        process.metrics.gauge("tenure_http_connections", "Open connections.", lambda: len(server.connections))
    listener = await Listener.start(settings.server.listen, server, certificate.context if certificate else None)
    _announce(settings, listener.port)
    try:
        yield server
    finally:
        listener.stop()
        _log.info("draining", requests=server.inflight())
        cut = await drain(server, settings.server.drain / SECOND)
        if cut:
            _log.warning("requests cut at the end of the drain", requests=cut)
        await admin_app.cleanup()


def _server(process: Process, admin_app: web.Application) -> RegistryServer:
    settings, stores = process.settings, process.stores
    plane = Plane(stores.db, stores.driver, settings.push, settings.pull, settings.gc.trash, stores.room)
    observed: dict[str, Any] = {"observe": process.metrics.request} if process.metrics else {}
    return make_server(
        plane,
        admin_app=admin_app,
        limits=Limits(max_requests=settings.server.max_requests),
        access_log=access_log(settings.log),
        trusted_proxies=settings.server.trusted_proxies,
        external_url=settings.server.external_url,
        access=OpenAccess(),
        **observed,
    )


def _admin_context(process: Process, metrics: Metrics | None) -> AdminContext:
    """`metrics` None hides /metrics."""

    async def identify(request: web.BaseRequest) -> Origin:
        origin: Origin = request[ORIGIN]
        return origin

    return AdminContext(
        db=process.stores.db,
        driver=process.stores.driver,
        access=OpenAccess(),
        identify=identify,
        trash=process.settings.gc.trash,
        ready=process.health.report,
        metrics=(lambda: (metrics.render(), CONTENT_TYPE_LATEST)) if metrics else None,
        sever_children=process.settings.push.sever_children,
    )


@asynccontextmanager
async def _health_only(process: Process, listen: str, certificate: Certificate | None) -> AsyncIterator[None]:
    """/livez, /readyz and /metrics, and nothing else."""
    app = web.Application()
    add_health_routes(app, _admin_context(process, process.metrics))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    listener = await Listener.start(listen, runner.server, certificate.context if certificate else None)
    try:
        yield
    finally:
        listener.stop()
        await runner.cleanup()


def _announce(settings: Settings, port: int) -> None:
    print(banner(settings, port), flush=True)
    said = warning(settings)
    if said:
        _log.warning(said, listen=settings.server.listen)
    _log.info("serving", listen=settings.server.listen, role=settings.server.role, version=__version__)


def _certificate(settings: Settings) -> Certificate | None:
    server = settings.server
    return Certificate(Path(server.tls_cert), Path(server.tls_key)) if server.tls_cert else None


async def _end(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _raise_file_limit() -> None:
    """As many open files as the system lets this process have: each client and each file is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
