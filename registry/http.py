"""Requests and answers of the data plane as plain values: handlers never see the HTTP server's types."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tenure.core.origin import Origin


class Body(Protocol):
    """The request's body, unread. Reading it answers `Expect: 100-continue` first."""

    #: Content-Length, or None for a chunked body
    length: int | None

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they arrive. Raises ClientGone when the client stops sending before the end.

        A client that sends nothing for `push.idle_timeout` counts as gone.
        """

    async def read(self, limit: int) -> bytes:
        """All of it; ManifestTooLarge when there is more than `limit`, however it was framed."""


class ClientGone(Exception):
    """The client closed, reset or stalled before its request was complete; nobody hears an answer."""


@dataclass(slots=True)
class Request:
    """One request, already routed. `name` is the repository, `params` what else stood in the path."""

    method: str
    path: str  # as on the wire, without the query
    name: str
    params: Mapping[str, str]
    query: Mapping[str, list[str]]  # decoded; every value of a repeated key
    headers: Mapping[str, list[str]]  # lower-case names; every line of a repeated header
    body: Body
    origin: Origin
    base_url: str  # scheme://host as the client sees it, through trusted proxies

    def header(self, name: str) -> str | None:
        """All lines of a header as one list value (RFC 9110 5.3), or None."""
        lines = self.headers.get(name)
        return ", ".join(lines) if lines else None

    def param(self, name: str) -> str | None:
        """The first value of a query parameter, or None."""
        values = self.query.get(name)
        return values[0] if values else None


@dataclass(frozen=True, slots=True)
class Answer:
    """A small answer. For HEAD, `headers` hold the Content-Length of the body that GET would send."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Stream:
    """`length` bytes from an iterator that verifies nothing more: blobs were verified when they came in."""

    status: int
    headers: Mapping[str, str]
    length: int
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class File:
    """A stretch of a local file, by sendfile."""

    status: int
    headers: Mapping[str, str]
    path: Path
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The client finds the bytes at another address (307)."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


Result = Answer | Stream | File | Elsewhere
