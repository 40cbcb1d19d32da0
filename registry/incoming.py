"""What arrived, as values: addresses, headers, query, and a body that is read only when somebody asks for it."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TypeVar, overload
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy

from tenure.core.clock import SECOND
from tenure.core.errors import BadRequest, ManifestTooLarge
from tenure.core.origin import Origin
from tenure.registry.forwarding import Forwarding, Peer, valid_host
from tenure.registry.http import ClientGone, Request

T = TypeVar("T")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}\Z")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Bytes of a large body that are taken from its connection before anybody asks for them; the loop adds what it reads
#: at once, which is twice as much.
READ_AHEAD = 128 << 10
MAX_QUERY_FIELDS = 200
_NO_QUERY: Mapping[str, list[str]] = {}


class IncomingBody:
    """A request's body. Fulfils Body; `received` counts the bytes that were handed on."""

    __slots__ = ("_expects", "_http", "_idle", "coded", "length", "received", "stalled")

    def __init__(self, http: web.BaseRequest, idle: float) -> None:
        """`idle` in seconds."""
        headers = http.headers
        self._http = http
        self._idle = idle
        self.received = 0
        #: the client sent nothing for too long; its connection is still open
        self.stalled = False
        announced = headers.get("Content-Length")
        self.length: int | None = int(announced) if announced else (None if "Transfer-Encoding" in headers else 0)
        coding = headers.get("Transfer-Encoding")
        #: compressed on the way, which nobody here undoes: the bytes would be taken for the content
        self.coded = coding is not None and coding.strip().lower() != "chunked"
        self._expects = headers.get("Expect", "").lower() == "100-continue" and not http.content.is_eof()
        if self.length is None or self.length > READ_AHEAD:
            # Otherwise each read of a full socket is followed by a pause of the connection, which costs as much.
            http.content.set_read_chunk_size(READ_AHEAD)

    @property
    def unwanted(self) -> bool:
        """The client still waits for our word to send it, and will not get it."""
        return self._expects

    @property
    def left(self) -> int | None:
        """Bytes that were announced and have not arrived; None when nobody knows how many there are."""
        if self._http.content.is_eof():
            return 0
        return None if self.length is None else self.length - self._http.content.total_bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._expects:
            self._expects = False
            await self._send_continue()
        while chunk := await self._next():
            self.received += len(chunk)
            yield chunk

    async def read(self, limit: int) -> bytes:
        if self.length is not None and self.length > limit:
            raise ManifestTooLarge()
        whole = bytearray()
        async for chunk in self.chunks():
            whole += chunk
            if len(whole) > limit:
                raise ManifestTooLarge()
        return bytes(whole)

    async def _send_continue(self) -> None:
        try:
            await self._http.writer.write(_CONTINUE)
        except ConnectionError:
            raise ClientGone() from None
        # What counts as the answer has not begun: an error may still be sent.
        self._http.writer.output_size = 0

    async def _next(self) -> bytes:
        content = self._http.content
        try:
            # What is here needs no clock.
            if here := content.read_nowait():
                return here
            async with asyncio.timeout(self._idle):
                return await content.readany()
        except TimeoutError:
            self.stalled = True
            raise ClientGone() from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise BadRequest("the body does not follow its transfer encoding") from None
        # RuntimeError: the reader's own word for a connection that is closed.
        except (ConnectionError, RuntimeError):
            raise ClientGone() from None


class NoBody:
    """The body of a request that has none. Fulfils Body."""

    length: int | None = 0
    received = 0
    stalled = False
    coded = False
    unwanted = False
    left = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        return
        yield b""

    async def read(self, limit: int) -> bytes:
        return b""


NO_BODY = NoBody()


class Headers(Mapping[str, list[str]]):
    """Every line of each header under its lower-case name, read when asked for: most requests need few of them."""

    __slots__ = ("_lines",)

    def __init__(self, lines: "CIMultiDictProxy[str]") -> None:
        self._lines = lines

    def __getitem__(self, name: str) -> list[str]:
        return [_readable(line) for line in self._lines.getall(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name in self._lines))

    def __len__(self) -> int:
        return len({name.lower() for name in self._lines})

    @overload
    def get(self, name: str, /) -> list[str] | None: ...

    @overload
    def get(self, name: str, default: list[str] | T, /) -> list[str] | T: ...

    def get(self, name: str, default: object = None, /) -> object:
        return self[name] if name in self._lines else default


@dataclass(slots=True)
class Arrival:
    """A request before it is routed. `path` as on the wire; `query` not yet decoded; `scheme` of the connection."""

    method: str
    path: str
    query: str
    headers: "CIMultiDictProxy[str]"
    scheme: str
    peer: Peer
    origin: Origin
    body: IncomingBody | NoBody


class Incoming:
    """Reads requests as this installation's place in the network asks for.

    `external_url` is the address clients use ("" to go by each request); `idle_timeout` in microseconds.
    """

    def __init__(self, forwarding: Forwarding, external_url: str, idle_timeout: int) -> None:
        self._forwarding = forwarding
        self._external_url = external_url.rstrip("/")
        self._idle = idle_timeout / SECOND
        self._prefix = secrets.token_hex(6)
        self._numbers = count(1)

    def arrive(self, http: web.BaseRequest) -> Arrival:
        path, _, query = path_of(http.raw_path).partition("?")
        # A Unix socket has no address.
        peer, origin = self._from(http.remote or None, http.headers)
        body = IncomingBody(http, self._idle)
        return Arrival(http.method, path, query, http.headers, http.scheme, peer, origin, body)

    def arrive_bodiless(
        self, method: str, target: str, headers: "CIMultiDictProxy[str]", address: str | None, scheme: str
    ) -> Arrival:
        """The same from its parts: what the parser read, and the other end of the connection."""
        path, _, query = path_of(target).partition("?")
        peer, origin = self._from(address, headers)
        return Arrival(method, path, query, headers, scheme, peer, origin, NO_BODY)

    def stranger(self, address: str | None) -> Origin:
        """Who sent something that cannot be read."""
        return Origin("anonymous", address, f"{self._prefix}{next(self._numbers):x}")

    def origin(self, http: web.BaseRequest) -> Origin:
        """Who sent a request, for an application that reads the rest of it itself."""
        return self._from(http.remote or None, http.headers)[1]

    def request(self, arrival: Arrival, name: str, params: Mapping[str, str]) -> Request:
        """BadRequest for a query that cannot be read."""
        return Request(
            arrival.method,
            arrival.path,
            name,
            params,
            _query(arrival.query) if arrival.query else _NO_QUERY,
            Headers(arrival.headers),
            arrival.body,
            arrival.origin,
            self._base_url(arrival),
        )

    def _from(self, address: str | None, headers: "CIMultiDictProxy[str]") -> tuple[Peer, Origin]:
        # Only a proxy that is known speaks for others.
        peer = self._forwarding.read(address, headers)
        request_id = headers.get("X-Request-Id")
        if request_id is None or not _REQUEST_ID.match(request_id):
            request_id = f"{self._prefix}{next(self._numbers):x}"
        return peer, Origin("anonymous", peer.address, request_id, _readable(headers.get("User-Agent", ""))[:512])

    def _base_url(self, arrival: Arrival) -> str:
        if self._external_url:
            return self._external_url
        host = arrival.peer.host or valid_host(arrival.headers.get("Host")) or "localhost"
        return f"{arrival.peer.scheme or arrival.scheme}://{host}"


def path_of(target: str) -> str:
    """Path and query as on the wire; of the absolute form that proxies use, what follows the authority."""
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return _readable(target)


def _readable(text: str) -> str:
    """Bytes that are not UTF-8 arrive as lone surrogates, which neither JSON nor a database takes."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _query(text: str) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise BadRequest(f"a query has {MAX_QUERY_FIELDS} parameters at most") from None
    for key, value in pairs:
        if "\0" in value:
            raise BadRequest("a query parameter cannot hold a NUL")
        found.setdefault(key, []).append(value)
    return found
