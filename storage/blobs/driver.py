"""What a store of bytes must do, and what a caller may and may not conclude.

Keys are opaque, written once and never reused (core/ids.py). A driver knows no digests, no repositories and
no database: the caller journals a key before the first byte and before the first delete. A driver hides
hiccups of its store (retries with back-off within its budget) and raises StorageUnavailable when they last.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

#: Told of every call to the store: operation (a name out of a small closed set), seconds, outcome (ok, absent,
#: retried, failed). Called from any thread.
Observe = Callable[[str, float, str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """One stored part of a multipart upload."""

    number: int
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Progress:
    """All that must be remembered of an unfinished object between two requests, on any replica.

    `offset` bytes are safe: the first `sum(part.size)` in parts, the rest in `tail` or under `tail_key`
    (never both). The folder driver needs only `offset`. `next_part` is the first part number that nobody
    has ever been given.
    """

    key: str
    offset: int = 0
    multipart_id: str | None = None
    next_part: int = 1
    parts: tuple[Part, ...] = ()
    tail: bytes = b""
    tail_key: str | None = None


@dataclass(frozen=True, slots=True)
class Journal:
    """How a writer makes the database remember what it is about to do; each call is committed when it returns.

    All raise UploadUnknown when this writer is no longer the owner of the session: it must stop at once.
    """

    #: a multipart upload was begun under this id
    multipart: Callable[[str], Awaitable[None]]
    #: take `count` part numbers that nobody else will ever use; the first of them. 0 only asks for ownership
    reserve_parts: Callable[[int], Awaitable[int]]
    #: a key for a tail object, journalled as UPLOADING
    tail_key: Callable[[], Awaitable[str]]


class Writer(Protocol):
    """Writes one object, in order, from where `Progress` says. Used by one task at a time.

    Memory comes from the driver's budget: `write` waits while it is used up, which holds the client back.
    """

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes; they are safe only after `suspend` or `complete`."""

    async def suspend(self) -> Progress:
        """Make every byte written so far survive this process; what to remember."""

    async def complete(self) -> "Stored":
        """Make the object whole and durable. After it the bytes can be read under `Stored.key`.

        May be called again for the same Progress after a crash: a store that says the multipart upload is
        gone is asked whether the whole object is there with the right length.
        """

    async def abandon(self) -> None:
        """Release memory and handles; leaves what is stored to whoever deletes the key."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A finished object: `key` may be the tail's key when the tail was everything."""

    key: str
    size: int
    version_id: str | None = None
    #: an earlier try had finished the object already: its bytes may differ from those just written, so they
    #: must be read back before anybody trusts a digest computed on the way
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    size: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the start-up self-test found; informs the operator, never correctness."""

    found: dict[str, bool] = field(default_factory=dict)


class BlobDriver(Protocol):
    """One store, open."""

    name: str

    def writer(self, progress: Progress, journal: Journal) -> Writer: ...

    def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """The bytes [start, start + length), in pieces. Resumes by itself after a broken connection.

        Raises BlobUnknown when there is no such object; StorageUnavailable when the store does not answer;
        both before the first piece where possible.
        """

    async def stat(self, key: str) -> ObjectInfo | None:
        """Size of a finished object, or None when the store says it has none."""

    async def delete(self, key: str, multipart_id: str | None = None, version_id: str | None = None) -> None:
        """Remove everything under this key: object, unfinished file, multipart upload. Absent is success."""

    def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """All finished objects in key order. A positive signal only: absence here proves nothing."""

    async def check(self) -> Capabilities:
        """Prove by doing that every right needed is there; StorageUnavailable says which one is missing."""

    async def close(self) -> None: ...


@runtime_checkable
class LocalFiles(Protocol):
    """A driver whose objects are files of this machine: served by sendfile."""

    def path(self, key: str) -> Path: ...


@runtime_checkable
class Redirects(Protocol):
    """A driver that can send clients to the store itself."""

    def presign(self, key: str, media_type: str | None = None) -> str | None:
        """A URL for GET that lives at least 20 minutes and never longer than the credentials behind it.

        None when redirects are off, or the credentials would end too soon: stream instead.
        """
