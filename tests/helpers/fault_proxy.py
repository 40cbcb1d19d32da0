"""A proxy in front of an HTTP server that misbehaves on purpose: answers 503, loses answers, breaks off, waits.

async with fault_proxy(host, port) as proxy:
    proxy.plan(Fault.error(), match=b"PUT ")      # the next PUT is answered 503 and not passed on
    proxy.plan(Fault.lose_answer(), times=2)      # the next two requests are carried out, nobody hears of it
    proxy.dice = lambda head: ...                 # asked for a fault, or None, at every other request
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_PIECE = 64 << 10
#: instead of a length: longer than any body
_CHUNKED = 1 << 60


@dataclass(slots=True)
class Fault:
    """What goes wrong with one request."""

    #: answer with this status instead of passing the request on
    status: int = 0
    #: seconds before the request is passed on
    delay: float = 0.0
    #: the server acts, nobody hears of it
    silent: bool = False
    #: cut the connection after so many bytes of the answer's body
    reset_after: int | None = None
    #: cut the connection after so many bytes of the request, which the server never sees whole
    reset_request_after: int | None = None
    #: seconds of silence before a connection is cut
    stall: float = 0.0

    @classmethod
    def error(cls, status: int = 503) -> "Fault":
        return cls(status=status)

    @classmethod
    def lose_answer(cls) -> "Fault":
        return cls(silent=True)

    @property
    def kind(self) -> str:
        """What to count it as."""
        if self.status:
            return f"answered {self.status}"
        if self.silent:
            return "answer lost"
        if self.reset_after is None and self.reset_request_after is None:
            return "slow"
        side = "request" if self.reset_after is None else "answer"
        return f"{side} {'stalled, then cut' if self.stall else 'cut'}"


@dataclass(slots=True)
class _Plan:
    fault: Fault
    match: bytes
    times: int


@dataclass(slots=True)
class FaultProxy:
    """`struck` counts the requests that met a fault, `kinds` by kind; `requests` holds the first line of each.

    `host` and `port` may be changed: a server that comes back elsewhere.
    """

    host: str
    port: int
    endpoint: str = ""
    address: tuple[str, int] = ("", 0)
    struck: int = 0
    requests: list[str] = field(default_factory=list)
    #: refuse connections: the server is away
    down: bool = False
    dice: Callable[[bytes], Fault | None] | None = None
    kinds: Counter[str] = field(default_factory=Counter)
    _plans: list[_Plan] = field(default_factory=list)

    def plan(self, fault: Fault, *, match: bytes = b"", times: int = 1) -> None:
        """The next `times` requests whose head contains `match` meet this fault."""
        self._plans.append(_Plan(fault, match, times))

    def clear(self) -> None:
        self._plans.clear()

    def _meet(self, head: bytes) -> Fault | None:
        for plan in self._plans:
            if plan.times > 0 and plan.match in head:
                plan.times -= 1
                return self._strike(plan.fault)
        fault = self.dice(head) if self.dice else None
        return self._strike(fault) if fault else None

    def _strike(self, fault: Fault) -> Fault:
        self.struck += 1
        self.kinds[fault.kind] += 1
        return fault

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client: its requests one after the other, each on a connection of its own."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while not self.down:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head.partition(b"\r\n")[0].decode("latin-1"))
                if not await self._request(head, reader, writer):
                    break
        if not writer.is_closing():
            writer.transport.abort()

    async def _request(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """True when the connection is still in step."""
        fault = self._meet(head) or Fault()
        length = _length_of(head)
        await asyncio.sleep(fault.delay)
        expects = b"100-continue" in head.lower()
        if fault.status:
            if not expects:
                await _skip(reader, length)
            answer = b"HTTP/1.1 %d Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % fault.status
            writer.write(answer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            return False
        upstream_reader, upstream = await asyncio.open_connection(self.host, self.port)
        try:
            upstream.write(head)
            if fault.reset_request_after is not None:
                if expects:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await _pipe(reader, upstream, min(length, fault.reset_request_after))
                await asyncio.sleep(fault.stall)
                return False
            sending = asyncio.create_task(_send_on(reader, upstream, length))
            try:
                return await _answer(head, upstream_reader, writer, fault) and await sending
            finally:
                sending.cancel()
                await asyncio.wait({sending})
        finally:
            upstream.transport.abort()


async def _answer(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> bool:
    """Pass the answer on. What has no length ends with the connection."""
    answer = await reader.readuntil(b"\r\n\r\n")
    while answer.startswith(b"HTTP/1.1 100"):
        writer.write(answer)
        answer = await reader.readuntil(b"\r\n\r\n")
    bodiless = head.startswith(b"HEAD ") or answer[9:12] in (b"204", b"304")
    length = 0 if bodiless else _content_length(answer, default=-1)
    if fault.silent:
        return False
    if fault.reset_after is not None:
        writer.write(answer)
        await _pipe(reader, writer, fault.reset_after if length < 0 else min(length, fault.reset_after))
        await writer.drain()
        await asyncio.sleep(fault.stall)
        return False
    writer.write(answer)
    if length >= 0:
        return await _pipe(reader, writer, length)
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
        if b"chunked" in answer.lower() and piece.endswith(b"0\r\n\r\n"):
            return True
    return False


async def _send_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> bool:
    """The body of a request, with a length or chunked."""
    if length != _CHUNKED:
        return await _pipe(reader, writer, length)
    while line := await reader.readline():
        writer.write(line)
        size = int(line.split(b";")[0], 16)
        # A chunk's bytes and the line end behind them; after the last chunk, the empty line.
        if not await _pipe(reader, writer, size + 2):
            return False
        if size == 0:
            return True
    return False


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> bool:
    while length > 0:
        piece = await reader.read(min(_PIECE, length))
        if not piece:
            return False
        length -= len(piece)
        writer.write(piece)
        await writer.drain()
    await writer.drain()
    return True


async def _skip(reader: asyncio.StreamReader, length: int) -> None:
    if length == _CHUNKED:
        return
    while length > 0:
        length -= len(await reader.readexactly(min(_PIECE, length)))


def _length_of(head: bytes) -> int:
    """Of a request's body; _CHUNKED where the body says itself where it ends."""
    return _CHUNKED if b"\r\ntransfer-encoding: chunked" in head.lower() else _content_length(head)


def _content_length(head: bytes, default: int = 0) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return default


@asynccontextmanager
async def fault_proxy(host: str, port: int) -> AsyncIterator[FaultProxy]:
    """A proxy for HTTP on a free port of 127.0.0.1."""
    proxy = FaultProxy(host, port)
    running: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await proxy.serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the end of the proxy; the stream server would log it
        finally:
            running.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    proxy.address = server.sockets[0].getsockname()
    proxy.endpoint = f"http://{proxy.address[0]}:{proxy.address[1]}"
    try:
        yield proxy
    finally:
        server.close()
        left = set(running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
