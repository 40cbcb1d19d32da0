"""Ranges and conditions as pure functions: what is honoured, what is ignored, what is 416."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.core.errors import RangeNotSatisfiable
from tenure.registry.ranges import MAX_RANGES, Span, multipart_frame, names_etag, parse_range, range_applies

ETAG = '"sha256:aa"'


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-9", [(0, 10)]),
        ("bytes=90-", [(90, 10)]),
        ("bytes=90-1000", [(90, 10)]),
        ("bytes=-1", [(99, 1)]),
        ("bytes=-1000", [(0, 100)]),
        ("bytes = 5 - 6", [(5, 2)]),
        ("BYTES=5-6", [(5, 2)]),
        ("bytes=0-1,,4-5,", [(0, 2), (4, 2)]),
        ("bytes=50-59, 0-9, -5", [(50, 10), (0, 10), (95, 5)]),
        ("bytes=0-9,200-300", [(0, 10)]),
    ],
)
def test_ranges_are_read_in_the_order_asked(header: str, spans: list[tuple[int, int]]) -> None:
    assert parse_range(header, 100) == tuple(Span(*span) for span in spans)


@pytest.mark.parametrize(
    "header",
    [
        None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5", "bytes=0-1-2", "items=0-1",
        "bytes=0-1;2-3", "bytes=0x1-2", "bytes=+1-2", "bytes=\u0661-\u0662", "bytes=" + "9" * 40 + "-",
        "bytes=0-1,x", "bytes=0-99,0-99", "bytes=" + ",".join("0-0" for _ in range(MAX_RANGES + 1)),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_means_the_whole_blob(header: str | None) -> None:
    assert parse_range(header, 100) == ()


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=9-5", 100), ("bytes=5-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)],
)
def test_a_range_outside_or_backwards_says_how_long_the_blob_is(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable) as refusal:
        parse_range(header, size)
    assert refusal.value.headers["Content-Range"] == f"bytes */{size}"


@given(st.text(alphabet="bytes=0123456789-, ", max_size=40), st.integers(0, 50))
def test_whatever_is_asked_stays_inside_the_blob(header: str, size: int) -> None:
    try:
        spans = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    assert all(span.length > 0 and span.start >= 0 and span.start + span.length <= size for span in spans)


def test_if_range_takes_only_the_exact_strong_etag() -> None:
    assert range_applies(None, ETAG)
    assert range_applies(ETAG, ETAG)
    for other in (f"W/{ETAG}", '"sha256:bb"', "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert not range_applies(other, ETAG)


def test_etag_lists_and_stars_match() -> None:
    for header in (ETAG, f"W/{ETAG}", f'"x", {ETAG}', "*"):
        assert names_etag(header, ETAG)
    for header in ('"sha256:bb"', "sha256:aa", ""):
        assert not names_etag(header, ETAG)


def test_the_length_of_a_multipart_body_is_known_before_it_is_sent() -> None:
    content = bytes(range(100))
    spans = (Span(0, 1), Span(50, 10))
    heads, end, length = multipart_frame(spans, 100, "application/octet-stream", "edge")
    body = b"".join(
        head + content[span.start : span.start + span.length] for head, span in zip(heads, spans, strict=True)
    )
    assert len(body + end) == length
    assert b"Content-Range: bytes 50-59/100\r\n\r\n" + content[50:60] + b"\r\n--edge--" in body + end
