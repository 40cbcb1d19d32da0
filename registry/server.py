"""The server: `/v2` from the table of routes, everything else from the application beside it, on one port.

Built on aiohttp's low-level server: an Application's router, middlewares and body handling cost as much as
a whole small answer, decode paths, and answer errors as text.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from tenure.auth.access import Access, OpenAccess
from tenure.core.errors import CodingUnsupported, NotFound, RequestTimeout, TenureError, TooManyRequests
from tenure.core.origin import Origin
from tenure.obs.log import request_id
from tenure.registry.answering import COMMON, gone, send, small_answer
from tenure.registry.connection import Connection, DirectAnswer
from tenure.registry.errors_answer import error_answer
from tenure.registry.forwarding import Forwarding
from tenure.registry.http import Answer, ClientGone, Result
from tenure.registry.incoming import Arrival, Incoming
from tenure.registry.plane import Plane
from tenure.registry.routes import Match, find_route, is_ours, small_route

#: `request[ORIGIN]` in the application beside the data plane: who sent it, through trusted proxies
ORIGIN = web.RequestKey("tenure_origin", Origin)

#: an unread rest of a body up to this is read away to keep the connection; beyond it the connection ends
_WORTH_READING = 64 << 10
#: addresses that probes ask every few seconds: no access line while all is well
_PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
_log = structlog.get_logger(__name__)

Observe = Callable[[str, str, int, float, int, int], None]


class WriteAccessLine(Protocol):
    """obs.log.AccessLog."""

    def __call__(
        self, method: str, path: str, status: int, seconds: float, *, received: int, sent: int, origin: Origin
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process takes on. Sizes in bytes, times in seconds."""

    #: requests of `/v2` worked on at once; one more is answered 429 before anything of it is read
    max_requests: int = 512
    line: int = 16 << 10
    #: one header with its value: large enough for a bearer token with many scopes
    field: int = 64 << 10
    #: how long an idle connection is kept; longer than the load balancers in front keep theirs
    keep_alive: float = 630.0
    #: how long the head of a request may take from its first byte to its last
    head: float = 60.0
    #: how long the rest of a body that nobody wants is read away before the connection ends
    linger: float = 2.0
    #: bytes of a body that wait in memory for whoever reads it, for each connection
    read_buffer: int = 64 << 10


def _unobserved(label: str, method: str, status: int, seconds: float, received: int, sent: int) -> None:
    return


def make_server(
    plane: Plane,
    *,
    admin_app: web.Application | None = None,
    limits: Limits | None = None,
    observe: Observe = _unobserved,
    access_log: WriteAccessLine | None = None,
    trusted_proxies: Sequence[str] = (),
    external_url: str = "",
    access: Access | None = None,
) -> "RegistryServer":
    """A protocol factory for `loop.create_server`; call it inside the running loop.

    `observe` gets (route label, method, status, seconds, bytes of body in, bytes of body out) for each request;
    `trusted_proxies` are networks as CIDR. Whoever calls starts and cleans up `admin_app`.
    """
    incoming = Incoming(Forwarding(trusted_proxies), external_url, plane.push.idle_timeout)
    return RegistryServer(plane, incoming, access or OpenAccess(), limits or Limits(), observe, access_log, admin_app)


class RegistryServer(web.Server):
    """Makes the protocol of each connection and answers its requests."""

    def __init__(
        self,
        plane: Plane,
        incoming: Incoming,
        access: Access,
        limits: Limits,
        observe: Observe,
        access_log: WriteAccessLine | None,
        admin_app: web.Application | None,
    ) -> None:
        self._protocol_options: dict[str, Any] = {
            "head_limit": limits.head,
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": limits.keep_alive,
            "lingering_time": limits.linger,
            "max_field_size": limits.field,
            "max_line_size": limits.line,
            "read_bufsize": limits.read_buffer,
        }
        super().__init__(self._answer, request_factory=self._choose)
        self._plane = plane
        self._incoming = incoming
        self._access = access
        self._max_requests = limits.max_requests
        self._observe = observe
        self._access_log = access_log
        self._running = 0
        #: set it and each answer asks its client to close the connection
        self.draining = False
        self._admin = _beside(admin_app, self) if admin_app is not None else None

    def __call__(self) -> RequestHandler:
        return Connection(self, self, **self._protocol_options)

    def inflight(self) -> int:
        """Requests being worked on, on `/v2` and beside it."""
        return self._running

    def _choose(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        path = message.path
        if self._admin is None or is_ours(message.url.raw_path if path[:1] != "/" else path.partition("?")[0]):
            return web.BaseRequest(message, payload, protocol, writer, task, self._loop)
        return self._admin.request_factory(message, payload, protocol, writer, task)

    async def _answer(self, http: web.BaseRequest) -> web.StreamResponse:
        if self._admin is not None and isinstance(http, web.Request):
            return await self._answer_beside(self._admin, http)
        started = time.perf_counter()
        arrival = self._incoming.arrive(http)
        request_id.set(arrival.origin.request_id)
        self._running += 1
        try:
            label, result = await self._decide(arrival)
            response: web.StreamResponse
            if result is None:
                response, sent = gone(http), 0
            else:
                common = {**COMMON, "X-Request-Id": arrival.origin.request_id}
                response, sent = await send(http, result, common, close=self._must_close(arrival))
        finally:
            self._running -= 1
        self._report(label, http.method, arrival.path, response.status, started, arrival.body.received, sent,
                     arrival.origin)  # fmt: skip
        return response

    def directly(self, message: RawRequestMessage, address: str | None, scheme: str) -> DirectAnswer | None:
        """Fulfils Direct."""
        match = small_route(message.method, message.path)
        if match is None or self._running >= self._max_requests:
            return None
        arrival = self._incoming.arrive_bodiless(message.method, message.path, message.headers, address, scheme)
        return self._answer_directly(arrival, match)

    def refused(self, status: int, sent: int, address: str | None) -> str:
        """Fulfils Direct."""
        origin = self._incoming.stranger(address)
        self._report("unknown", "other", "-", status, time.perf_counter(), 0, sent, origin)
        return origin.request_id

    async def _answer_directly(self, arrival: Arrival, match: Match) -> tuple[bytes, bool]:
        started = time.perf_counter()
        method, origin = arrival.method, arrival.origin
        request_id.set(origin.request_id)
        self._running += 1
        try:
            label, result = await self._decide(arrival, match)
        finally:
            self._running -= 1
        if not isinstance(result, Answer):
            result = error_answer(TenureError())
        try:
            written = small_answer(method, result, origin.request_id, close=self.draining)
        except ValueError:
            _log.exception("request failed", method=method, path=arrival.path)
            result = error_answer(TenureError())
            written = small_answer(method, result, origin.request_id, close=self.draining)
        sent = 0 if method == "HEAD" else len(result.body)
        self._report(label, method, arrival.path, result.status, started, 0, sent, origin)
        return written, self.draining

    async def _decide(self, arrival: Arrival, match: Match | None = None) -> tuple[str, Result | None]:
        """The route's label, and what to answer; None when there is nobody to hear it."""
        label = "unknown"
        try:
            if self._running > self._max_requests:
                raise TooManyRequests(retry_after=1)
            if arrival.body.coded:
                raise CodingUnsupported()
            if not is_ours(arrival.path):
                raise NotFound()
            match = match or find_route(arrival.method, arrival.path)
            label = match.route.label
            self._access.check(arrival.origin, match.route.action, match.name or None)
            request = self._incoming.request(arrival, match.name, match.params)
            return label, await match.route.handler(self._plane, request)
        except TenureError as error:
            return label, error_answer(error)
        except ClientGone:
            return label, error_answer(RequestTimeout()) if arrival.body.stalled else None
        except Exception:
            _log.exception("request failed", method=arrival.method, path=arrival.path)
            return label, error_answer(TenureError(detail={"requestId": arrival.origin.request_id}))

    def _must_close(self, arrival: Arrival) -> bool:
        body = arrival.body
        if self.draining or body.stalled or body.unwanted or body.coded:
            return True
        left = body.left
        return left is None or left > _WORTH_READING

    async def _answer_beside(self, admin: web.Server, http: web.Request) -> web.StreamResponse:
        started = time.perf_counter()
        origin = self._incoming.origin(http)
        http[ORIGIN] = origin
        request_id.set(origin.request_id)
        self._running += 1
        status, sent = 500, 0
        try:
            response = await admin.request_handler(http)
            status, sent = response.status, response.content_length or 0
            return response
        except web.HTTPException as answer:
            status, sent = answer.status, answer.content_length or 0
            raise
        finally:
            self._running -= 1
            received = http.content.total_bytes if http.body_exists else 0
            self._report("admin", http.method, http.raw_path.partition("?")[0], status, started, received, sent, origin)

    def _report(
        self, label: str, method: str, path: str, status: int, started: float, received: int, sent: int, origin: Origin
    ) -> None:
        seconds = time.perf_counter() - started
        self._observe(label, method, status, seconds, received, sent)
        if self._access_log is not None and (status >= 400 or path not in _PROBES):
            self._access_log(method, path, status, seconds, received=received, sent=sent, origin=origin)


def _beside(app: web.Application, server: RegistryServer) -> web.Server:
    """An aiohttp application as something that answers requests of our connections.

    The one place that uses aiohttp's private names: what `AppRunner` does to get its server.
    """

    async def finish_headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Server"] = COMMON["Server"]
        if server.draining:
            response.headers["Connection"] = "close"
            response.force_close()

    app.on_response_prepare.append(finish_headers)
    return app._make_handler(loop=asyncio.get_running_loop())
