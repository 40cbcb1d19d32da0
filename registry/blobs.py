"""Blobs: HEAD, GET and DELETE (distribution-spec, "Pulling blobs" and "Deleting blobs").

HEAD is answered from the database alone and is a promise: who may push gets the content kept for a lease.
GET sends a file, a redirect to the store, or a stream; never transformed, whatever Accept or
Accept-Encoding say.
"""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from functools import lru_cache

import structlog

from tenure.core.digest import Digest
from tenure.core.errors import BlobUnknown, PreconditionFailed
from tenure.registry.http import Answer, Elsewhere, File, Request, Result, Stream
from tenure.registry.plane import Plane
from tenure.registry.ranges import Span, multipart_frame, names_etag, neighbours, parse_range, range_applies
from tenure.storage.blobs.driver import BlobDriver, LocalFiles, Redirects
from tenure.storage.meta import blobs
from tenure.storage.meta.blobs import Blob

_MEDIA_TYPE = "application/octet-stream"
_log = structlog.get_logger(__name__)


async def head_blob(plane: Plane, request: Request) -> Answer:
    """200 with the headers of GET, or 404 BLOB_UNKNOWN. One database round trip; the store is never asked.

    On an open registry every caller may push, so a promise of which less than half is left is renewed: a
    client that hears "exists" will not send the bytes again.
    """
    blob = await _find(plane, request)
    if not await blobs.keep_promise(plane.db, blob, plane.push.lease):
        raise _unknown(blob.digest)
    there, unchanged = _head_answers(blob.digest, blob.size)
    return unchanged if _not_modified(request, there.headers["ETag"]) else there


async def get_blob(plane: Plane, request: Request) -> Result:
    """The bytes: 200, 206 for ranges (several as multipart/byteranges), 304, 307 to the store, 416.

    Where the row is there and the store says that the bytes are not, the answer is 404 BLOB_UNKNOWN with a
    sentence that says so, and an error in the log: no retry can help, which is what a 5xx would ask for, and
    clients with a mirror go on to the next one on a 404.
    """
    blob = await _find(plane, request)
    headers = _headers(blob.digest)
    etag = headers["ETag"]
    if _not_modified(request, etag):
        return Answer(304, headers)
    wanted = request.header("range") if range_applies(request.header("if-range"), etag) else None
    spans = parse_range(wanted, blob.size)
    if len(spans) > 1:
        return await _several(plane.driver, blob, headers, spans)
    headers["Content-Type"] = _MEDIA_TYPE
    if isinstance(plane.driver, Redirects):
        url = plane.driver.presign(blob.key, _MEDIA_TYPE)
        if url is not None:
            return Elsewhere(url, {"Docker-Content-Digest": str(blob.digest)})
    span = spans[0] if spans else Span(0, blob.size)
    if spans:
        headers["Content-Range"] = span.content_range(blob.size)
    status = 206 if spans else 200
    if blob.size == 0:
        return Answer(status, headers)
    if isinstance(plane.driver, LocalFiles):
        found = await plane.driver.stat(blob.key)
        if found is None or found.size != blob.size:
            raise _lost(blob)
        return File(status, headers, plane.driver.path(blob.key), span.start, span.length)
    return Stream(status, headers, span.length, await _begun(blob, _read(plane.driver, blob, span)))


async def delete_blob(plane: Plane, request: Request) -> Answer:
    """202; the blob is 404 in this repository at once, on every replica. 405 while a live manifest names it."""
    await blobs.unlink_blob(plane.db, request.name, Digest.parse(request.params["digest"]), request.origin)
    return Answer(202)


async def _find(plane: Plane, request: Request) -> Blob:
    digest = Digest.parse(request.params["digest"])
    blob = await blobs.find_blob(plane.db, request.name, digest)
    if blob is None:
        raise _unknown(digest)
    return blob


def _unknown(digest: Digest) -> BlobUnknown:
    return BlobUnknown(f"blob {digest} is not known in this repository", detail={"digest": str(digest)})


def _lost(blob: Blob) -> BlobUnknown:
    _log.error("blob.bytes_missing", digest=str(blob.digest), key=blob.key, size=blob.size)
    return BlobUnknown(
        f"the bytes of blob {blob.digest} are missing from the store; tell the operator, or push it again",
        detail={"digest": str(blob.digest)},
    )


@lru_cache(maxsize=4096)
def _head_answers(digest: Digest, size: int) -> tuple[Answer, Answer]:
    """200 and 304. Kept: they follow from nothing else, and popular blobs are asked for again and again."""
    headers = _headers(digest)
    there = {**headers, "Content-Type": _MEDIA_TYPE, "Content-Length": str(size)}
    return Answer(200, there), Answer(304, headers)


def _headers(digest: Digest) -> dict[str, str]:
    """What every answer about a blob carries. Content under a digest never changes."""
    return {
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
        "Cache-Control": "max-age=31536000, immutable",
        "Accept-Ranges": "bytes",
    }


def _not_modified(request: Request, etag: str) -> bool:
    """Conditions in the order of RFC 9110 13.2.2. PreconditionFailed for an If-Match that does not fit."""
    if_match = request.header("if-match")
    if if_match is not None and not names_etag(if_match, etag):
        raise PreconditionFailed(f"If-Match does not name this blob, whose ETag is {etag}")
    if_none_match = request.header("if-none-match")
    return if_none_match is not None and names_etag(if_none_match, etag)


async def _several(driver: BlobDriver, blob: Blob, headers: dict[str, str], spans: Sequence[Span]) -> Stream:
    """All stretches in one multipart/byteranges body. Never redirected: stores ignore a list of ranges."""
    boundary = secrets.token_hex(16)
    headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
    heads, end, length = multipart_frame(spans, blob.size, _MEDIA_TYPE, boundary)

    async def body() -> AsyncIterator[bytes]:
        framed = iter(heads)
        for near in neighbours(spans):
            whole = Span(near[0].start, near[-1].end - near[0].start)
            reading = _read(driver, blob, whole)
            pieces = _cut(reading, whole.start, near, framed)
            try:
                async for piece in pieces:
                    yield piece
            finally:
                await pieces.aclose()
                await _close(reading)
        yield end

    return Stream(206, headers, length, body())


async def _cut(
    reading: AsyncIterator[bytes], at: int, spans: Sequence[Span], heads: Iterator[bytes]
) -> AsyncGenerator[bytes]:
    """Stretches in rising order, each behind its head, out of one reading that begins at byte `at`."""
    chunk = b""
    for span in spans:
        yield next(heads)
        start = span.start
        while start < span.end:
            if start >= at + len(chunk):
                at += len(chunk)
                chunk = await anext(reading, b"")
                if not chunk:
                    return  # the store gave less than there is: the length was promised, the answer breaks off
                continue
            piece = chunk[start - at : span.end - at]
            yield piece
            start += len(piece)


def _read(driver: BlobDriver, blob: Blob, span: Span) -> AsyncIterator[bytes]:
    return driver.read(blob.key, span.start, span.length)


async def _begun(blob: Blob, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, with the first piece fetched before the status line is sent: a store that fails can
    still be answered for."""
    try:
        first = await anext(chunks)
    except BlobUnknown:
        raise _lost(blob) from None
    return _Begun(first, chunks)


class _Begun:
    """An iterator whose first piece is at hand. Close it when it is not read to the end."""

    def __init__(self, first: bytes, rest: AsyncIterator[bytes]) -> None:
        self._first: bytes | None = first
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await anext(self._rest)

    async def aclose(self) -> None:
        await _close(self._rest)


async def _close(chunks: AsyncIterator[bytes]) -> None:
    """Give back what a reader holds (a connection, memory) without waiting for the garbage collector."""
    if isinstance(chunks, AsyncGenerator):
        await chunks.aclose()
