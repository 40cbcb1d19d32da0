"""Requests of the data plane made by hand: what a server would hand to a handler, without a server."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass

from tenure.core.errors import ManifestTooLarge
from tenure.core.origin import Origin
from tenure.registry.http import Answer, ClientGone, File, Request, Result, Stream


@dataclass(slots=True)
class Sent:
    """A body as pieces. `gone`: the client closes after the last of them. `before` runs before piece number n."""

    pieces: Iterable[bytes] = ()
    length: int | None = None
    gone: bool = False
    before: Callable[[int], object] | None = None
    read_pieces: int = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        for number, piece in enumerate(self.pieces):
            if self.before is not None:
                waited = self.before(number)
                if hasattr(waited, "__await__"):
                    await waited
            self.read_pieces += 1
            yield piece
        if self.gone:
            raise ClientGone()

    async def read(self, limit: int) -> bytes:
        whole = b"".join(self.pieces)
        if len(whole) > limit:
            raise ManifestTooLarge()
        return whole


def body(content: bytes = b"", *, chunked: bool = False) -> Sent:
    """A whole body, in pieces of 64 KiB as a server hands them on."""
    pieces = [content[at : at + 65536] for at in range(0, len(content), 65536)]
    return Sent(pieces, None if chunked else len(content))


def request(
    method: str,
    name: str = "app",
    *,
    sent: Sent | None = None,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    **params: str,
) -> Request:
    """`params` are what else stood in the path: session, digest."""
    return Request(
        method=method,
        path=f"/v2/{name}/",
        name=name,
        params=params,
        query={key: [value] for key, value in (query or {}).items()},
        headers={key.lower(): [value] for key, value in (headers or {}).items()},
        body=sent or body(),
        origin=Origin(actor="tester", request_id="r1"),
        base_url="http://registry.test",
    )


async def content_of(result: Result) -> bytes:
    """The body that a server would send for a result."""
    if isinstance(result, Stream):
        content = b"".join([chunk async for chunk in result.chunks])
        assert len(content) == result.length
        return content
    if isinstance(result, File):
        content = result.path.read_bytes()[result.start : result.start + result.length]
        assert len(content) == result.length
        return content
    assert isinstance(result, Answer)
    return result.body
