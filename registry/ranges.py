"""Conditions and ranges of blob requests (RFC 9110 parts 13 and 14), as pure functions of header values.

Clients that matter: containerd resumes with `bytes=N-`, lazy pullers ask for single ranges, zstd:chunked
asks for hundreds of ranges at once and reads `multipart/byteranges`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tenure.core.errors import RangeNotSatisfiable

#: As many as containers/image ever puts into one request; beyond that the whole blob is sent.
MAX_RANGES = 1024
#: bytes between two stretches that are cheaper to read and drop than to ask the store again
_NEAR = 256 << 10

_RANGE = re.compile(r"([0-9]{0,19})\s*-\s*([0-9]{0,19})\Z")


@dataclass(frozen=True, slots=True)
class Span:
    """`length` bytes from `start`; never empty, always inside the blob."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.length

    def content_range(self, size: int) -> str:
        """The value of Content-Range for this stretch of `size` bytes."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def parse_range(header: str | None, size: int) -> tuple[Span, ...]:
    """The stretches asked for, in the order asked; empty means the whole blob.

    What does not parse is ignored, as RFC 9110 14.2 asks; so are more than MAX_RANGES and ranges that
    overlap so much that they ask for more than the blob. RangeNotSatisfiable (416, with Content-Range) when
    every range lies outside or runs backwards.
    """
    if header is None:
        return ()
    unit, _, listed = header.partition("=")
    if unit.strip().lower() != "bytes":
        return ()
    texts = [text.strip() for text in listed.split(",") if text.strip()]
    if not texts or len(texts) > MAX_RANGES:
        return ()
    spans: list[Span] = []
    for text in texts:
        match = _RANGE.match(text)
        if match is None or not (match[1] or match[2]):
            return ()
        span = _span(match[1], match[2], size)
        if span is not None:
            spans.append(span)
    if not spans:
        raise RangeNotSatisfiable(
            f"the range lies outside the blob, which has {size} bytes", headers={"Content-Range": f"bytes */{size}"}
        )
    if len(spans) > 1 and sum(span.length for span in spans) > size:
        return ()
    return tuple(spans)


def _span(first: str, last: str, size: int) -> Span | None:
    if not first:
        length = min(int(last), size)
        return Span(size - length, length) if length else None
    start = int(first)
    # A range that runs backwards selects nothing: RFC 9110 15.5.17 lets 416 say so, and the OCI suite asks for it.
    if start >= size or (last and int(last) < start):
        return None
    end = min(int(last), size - 1) if last else size - 1
    return Span(start, end - start + 1)


def neighbours(spans: Sequence[Span]) -> list[list[Span]]:
    """The stretches in their order, those together that one reading gives: rising, with little between them.

    Lazy pullers ask for hundreds of small ranges of one blob; a store takes a round trip for each reading.
    """
    groups: list[list[Span]] = []
    for span in spans:
        if groups and 0 <= span.start - groups[-1][-1].end <= _NEAR:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def range_applies(if_range: str | None, etag: str) -> bool:
    """Whether a Range is to be honoured: no If-Range, or exactly our strong ETag (RFC 9110 13.1.5).

    Blobs carry no Last-Modified, so a date never matches.
    """
    return if_range is None or if_range.strip() == etag


def names_etag(header: str, etag: str) -> bool:
    """Whether an If-Match or If-None-Match value is `*` or lists this ETag; weak ones count, content is fixed."""
    listed = [text.strip().removeprefix("W/") for text in header.split(",")]
    return "*" in listed or etag in listed


def multipart_frame(spans: Sequence[Span], size: int, media_type: str, boundary: str) -> tuple[list[bytes], bytes, int]:
    """What stands around the stretches in a multipart/byteranges body (RFC 9110 14.6).

    Returns the head before each stretch, the end after the last, and the length of the whole body in bytes.
    """
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {span.content_range(size)}\r\n\r\n".encode()
        for span in spans
    ]
    end = f"\r\n--{boundary}--\r\n".encode()
    return heads, end, sum(map(len, heads)) + sum(span.length for span in spans) + len(end)
