"""HTTP/1.1 by hand, one connection a request: exactly the bytes that a client would send, odd ones too."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer. Header names in lower case; a repeated header is joined by commas."""

    status: int
    headers: dict[str, str]
    body: bytes

    def __getitem__(self, name: str) -> str:
        return self.headers[name.lower()]


async def exchange(
    base: str,
    method: str,
    target: str,
    headers: Headers = (),
    *,
    sent: bytes | None = None,
    chunks: Iterable[bytes] | None = None,
) -> Heard:
    """One request as docker and podman make it, alone on its connection.

    `target` is a path or a full address. `sent` goes with Content-Length, `chunks` with chunked encoding;
    neither: no body and no length header at all.
    """
    reader, writer = await connect(base)
    try:
        framing: Headers = ()
        if sent is not None:
            framing = [("Content-Length", str(len(sent)))]
        elif chunks is not None:
            framing = [("Transfer-Encoding", "chunked")]
        writer.write(head(base, method, target, [*headers, *framing]))
        if sent is not None:
            writer.write(sent)
        elif chunks is not None:
            for chunk in chunks:
                writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        return await hear(reader, method)
    finally:
        writer.close()


async def connect(base: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(base)
    return await asyncio.open_connection(parts.hostname, parts.port)


def head(base: str, method: str, target: str, headers: Headers) -> bytes:
    """Request line and headers, with the names as given."""
    if target.startswith("http"):
        target = target.removeprefix(base)
    lines = [f"{method} {target} HTTP/1.1", f"Host: {urlsplit(base).netloc}", *(f"{k}: {v}" for k, v in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def hear(reader: asyncio.StreamReader, method: str) -> Heard:
    """Read one answer, framed by its length or by the end of the connection."""
    status = int((await reader.readline()).split()[1])
    headers: dict[str, str] = {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        name = name.lower()
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    body = b""
    if method != "HEAD" and status not in (204, 304):
        assert "chunked" not in headers.get("transfer-encoding", ""), "answers say how long they are"
        length = headers.get("content-length")
        body = await reader.read() if length is None else await reader.readexactly(int(length))
    return Heard(status, headers, body)
