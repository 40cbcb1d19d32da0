"""A proxy on the loopback address that keeps what a client said to a registry, and what it heard.

async with recording_proxy(host, port) as proxy:
    proxy.operation = "push"
    ...                                # the client talks to proxy.address
    proxy.heard                        # in the order of the answers

Invariant: a request that depends on an answer comes after it in `heard`, however many connections there were.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

NONE, LENGTH, CHUNKED = "none", "length", "chunked"
#: the first byte of a TLS hello: clients try it on 127.0.0.1 before they speak plainly
_TLS = b"\x16"
_HEAD_LIMIT = 256 << 10
#: headers that the proxy's own reading replaces
_FRAMING = frozenset({"content-length", "transfer-encoding"})

Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Overheard:
    """One request as it was written, and its answer. Bodies are without their framing."""

    operation: str
    connection: int
    method: str
    target: str
    headers: Lines
    framing: str
    body: bytes
    status: int
    answer: Lines
    answer_body: bytes

    def answered(self, name: str) -> str | None:
        return next((value for key, value in self.answer if key.lower() == name.lower()), None)


@dataclass(slots=True)
class RecordingProxy:
    """Stands before the registry at `host`:`port`."""

    host: str
    port: int
    address: str = ""
    operation: str = ""
    heard: list[Overheard] = field(default_factory=list)
    #: what the proxy could not read, for whoever records
    troubles: list[str] = field(default_factory=list)
    _connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, with one to the registry behind it."""
        first = await reader.read(1)
        if first == _TLS:
            # What a registry without TLS says; clients take it as the word to speak plainly.
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        if not first or first == _TLS:
            return
        self._connections += 1
        number = self._connections
        upstream_reader, upstream = await asyncio.open_connection(self.host, self.port, limit=_HEAD_LIMIT)
        try:
            while head := first + await _head(reader):
                first = b""
                if not await self._exchange(number, head, (reader, writer), (upstream_reader, upstream)):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, which is its right
        finally:
            upstream.close()

    async def _exchange(
        self,
        number: int,
        head: bytes,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        registry: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> bool:
        """True when both connections go on."""
        operation = self.operation
        start, headers = parse_head(head)
        method, target, _ = start.split(" ", 2)
        if any(name.lower() == "expect" for name, _ in headers):
            client[1].write(b"HTTP/1.1 100 Continue\r\n\r\n")
        framing, body = await read_body(client[0], headers)
        registry[1].write(head + framed(framing, body))
        status, answer, raw = await _answer_head(registry[0])
        content = b"" if method == "HEAD" or status in (204, 304) else (await read_body(registry[0], answer))[1]
        kept = tuple((name, value) for name, value in headers if name.lower() not in _FRAMING)
        self.heard.append(Overheard(operation, number, method, target, kept, framing, body, status, answer, content))
        client[1].write(raw + content)
        await client[1].drain()
        return not any(name.lower() == "connection" and value.lower() == "close" for name, value in (*headers, *answer))


def parse_head(head: bytes) -> tuple[str, Lines]:
    """The first line, and the headers line by line."""
    start, *lines = head.decode("latin-1").split("\r\n")[:-2]
    pairs = (line.partition(":") for line in lines)
    return start, tuple((name, value.strip()) for name, _, value in pairs)


async def read_body(reader: asyncio.StreamReader, headers: Lines) -> tuple[str, bytes]:
    """How the body is framed, and the body."""
    for name, value in headers:
        if name.lower() == "transfer-encoding" and value.lower() == CHUNKED:
            return CHUNKED, await _chunks(reader)
        if name.lower() == "content-length":
            return LENGTH, await reader.readexactly(int(value))
    return NONE, b""


def framed(framing: str, body: bytes, piece: int = 32 << 10) -> bytes:
    """The body as it goes over the wire."""
    if framing != CHUNKED:
        return body
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)]
    return b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"


async def _head(reader: asyncio.StreamReader) -> bytes:
    """b"" at the end of the connection."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


async def _answer_head(reader: asyncio.StreamReader) -> tuple[int, Lines, bytes]:
    raw = await reader.readuntil(b"\r\n\r\n")
    while raw.startswith(b"HTTP/1.1 100"):
        raw = await reader.readuntil(b"\r\n\r\n")
    start, headers = parse_head(raw)
    return int(start.split()[1]), headers, raw


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    whole = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        whole += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return bytes(whole)


@asynccontextmanager
async def recording_proxy(host: str, port: int) -> AsyncIterator[RecordingProxy]:
    """The proxy on a free port of 127.0.0.1; `address` is its host and port."""
    proxy = RecordingProxy(host, port)
    running: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await proxy.serve(reader, writer)
        except (ValueError, asyncio.LimitOverrunError) as error:
            proxy.troubles.append(repr(error))
        except (ConnectionError, asyncio.CancelledError):
            pass  # the end of the proxy, or of the client
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=_HEAD_LIMIT)
    host_name, port_number = server.sockets[0].getsockname()[:2]
    proxy.address = f"{host_name}:{port_number}"
    try:
        yield proxy
    finally:
        server.close()
        left = set(running)
        for task in left:
            task.cancel()
        if left:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(left)
