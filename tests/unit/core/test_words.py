"""Digests, names, units, pages, chains, times, ids."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.core.chain import chain_ids
from tenure.core.clock import DAY, HOUR, SECOND, from_rfc3339, to_rfc3339
from tenure.core.digest import Digest
from tenure.core.errors import BadRequest, DeleteDenied, DigestInvalid, NameInvalid, PageInvalid, TagInvalid
from tenure.core.ids import new_object_key, new_session, new_ulid
from tenure.core.names import check_repository, check_tag
from tenure.core.page import MAX_PAGE, PageRequest, decode_cursor, encode_cursor, next_link
from tenure.core.units import format_duration, format_size, parse_duration, parse_size


@given(st.binary(max_size=100), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_survives_text_and_database(content: bytes, algorithm: str) -> None:
    digest = Digest.of(content, algorithm)
    assert Digest.parse(str(digest)) == digest == Digest.unpack(digest.packed)


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha512:" + "a" * 64, "md5:" + "a" * 32,
     "sha256:../../etc", "sha256:" + "a" * 64 + "\n", "blake3:" + "a" * 64, "x" * 5000],
)  # fmt: skip
def test_digests_are_parsed_strictly(text: str) -> None:
    with pytest.raises(DigestInvalid):
        Digest.parse(text)


@pytest.mark.parametrize("name", ["a", "a/b/c", "a.b_c__d-e---f", "0/1", "x" * 255])
def test_good_names(name: str) -> None:
    assert check_repository(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "a//b", "/a", "a/", "a/../b", "a..b", "-a", "a_", "a\n", "a b", "a%2Fb", "a\0", "x" * 256, "ä"]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(NameInvalid):
        check_repository(name)


def test_tags() -> None:
    assert check_tag("V1.2_3-x") and check_tag("_") and check_tag("a" * 128)
    for bad in ("", ".a", "-a", "a" * 129, "a/b", "a:b", "a\n"):
        with pytest.raises(TagInvalid):
            check_tag(bad)


@pytest.mark.parametrize(("text", "value"), [("90s", 90 * SECOND), ("1h30m", HOUR * 3 // 2), ("7d", 7 * DAY), ("0", 0)])
def test_durations(text: str, value: int) -> None:
    assert parse_duration(text) == value
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(("text", "value"), [("10GiB", 10 << 30), ("1 MB", 10**6), ("7", 7)])
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text) == value


def test_units_say_what_they_accept() -> None:
    for bad in ("", "7", "1y", "-1s"):
        with pytest.raises(ValueError, match="36h"):
            parse_duration(bad)
    with pytest.raises(ValueError, match="8MiB"):
        parse_size("many")
    assert format_size(1536) == "1.5 KiB" and format_size(3) == "3 B"


def test_pages() -> None:
    assert PageRequest.parse(None, None).n == MAX_PAGE
    assert PageRequest.parse("0", None).n == 0
    assert PageRequest.parse("9" * 12, "x") == PageRequest(MAX_PAGE, "x")
    for bad in ("-1", "abc", "", "1.5", "٣", "9" * 40):
        with pytest.raises(PageInvalid):
            PageRequest.parse(bad, None)
    assert next_link("/v2/a/tags/list", PageRequest(2), "a b&c") == '</v2/a/tags/list?n=2&last=a%20b%26c>; rel="next"'


def test_cursors_come_back_and_forged_ones_are_refused() -> None:
    assert decode_cursor(encode_cursor(["a", 7])) == ["a", 7]
    for forged in ("", "!!", "e30", "a" * 1000, "W1"):
        with pytest.raises(BadRequest):
            decode_cursor(forged)


@given(st.integers(min_value=0, max_value=4_000_000_000 * SECOND))
def test_times_survive_text(moment: int) -> None:
    assert from_rfc3339(to_rfc3339(moment)) == moment


def test_chain_ids_follow_the_image_spec() -> None:
    first, second = Digest.of(b"1"), Digest.of(b"2")
    config = f'{{"rootfs":{{"diff_ids":["{first}","{second}"]}}}}'.encode()
    assert chain_ids(config) == (first, Digest.of(f"{first} {second}".encode()))
    for unreadable in (b"", b"{}", b"[" * 100000, b'{"rootfs":{"diff_ids":[1]}}', b'{"rootfs":{"diff_ids":"x"}}'):
        assert chain_ids(unreadable) == ()


def test_ids_sort_by_time_and_keys_are_opaque() -> None:
    assert len({new_ulid() for _ in range(100)}) == 100
    assert re.fullmatch(r"b/[0-9a-f]{2}/[0-9A-Z]{26}", new_object_key())
    assert len(new_session()) >= 22


def test_an_error_says_its_docstring_unless_told_otherwise() -> None:
    assert DeleteDenied().message == DeleteDenied.__doc__
    assert DeleteDenied("because", reasons=["x"]).reasons == ("x",)
    assert (DeleteDenied.status, DeleteDenied.api_status) == (405, 409)
