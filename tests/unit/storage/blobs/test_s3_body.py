"""The memory of a part: what goes in comes out, through botocore's hands and through aiohttp's."""

import hashlib

import pytest
from aiohttp.abc import AbstractStreamWriter
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tenure.storage.blobs.s3_body import Body, Buffer, sign_known_hashes

CONTENT = bytes(range(256)) * 4096


class Taken(AbstractStreamWriter):
    """A connection that keeps what it is given."""

    def __init__(self) -> None:
        self.content = b""

    async def write(self, chunk: bytes | memoryview) -> None:  # type: ignore[override]
        self.content += chunk

    async def write_eof(self, chunk: bytes = b"") -> None: ...

    async def drain(self) -> None: ...

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None: ...

    def enable_chunking(self) -> None: ...

    async def write_headers(self, status_line: str, headers: object) -> None: ...


def test_a_buffer_takes_what_fits_and_no_more() -> None:
    buffer = Buffer(100)
    buffer.expect_much()
    buffer.write(b"a" * 60)
    with pytest.raises(BufferError, match="41 bytes do not fit behind 60 of 100"):
        buffer.write(b"b" * 41)
    buffer.write(memoryview(b"c" * 40))
    assert bytes(buffer.content()) == b"a" * 60 + b"c" * 40
    with pytest.raises(TypeError, match="read-only"):
        buffer.content()[0] = 0


def test_a_body_is_a_file_that_can_be_read_twice() -> None:
    body = Body(memoryview(CONTENT))
    assert len(body) == body.size == len(CONTENT)
    assert body.read(10) + body.read() == CONTENT
    assert (body.tell(), body.read()) == (len(CONTENT), b"")
    assert (body.seek(5), body.seek(5, 1), body.seek(-1, 2)) == (5, 10, len(CONTENT) - 1)
    assert body.read() == CONTENT[-1:]


async def test_a_body_is_sent_whole_each_time_however_far_it_was_read() -> None:
    body = Body(memoryview(CONTENT))
    body.read(100)
    for _ in range(2):
        taken = Taken()
        await body.write(taken)
        assert taken.content == CONTENT
    await body.write_with_length(taken := Taken(), 300_000)
    assert taken.content == CONTENT[:300_000]


async def test_each_try_is_counted() -> None:
    body = await Body.hashed(memoryview(CONTENT))
    assert body.again().sha256 == body.again().sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert body.tries == 2


@pytest.mark.parametrize("known", [None, hashlib.sha256(CONTENT).hexdigest()], ids=["unknown", "known"])
def test_what_is_signed_is_the_hash_of_the_body(known: str | None) -> None:
    sign_known_hashes()
    request = AWSRequest("PUT", "http://store.test/bucket/key", data=Body(memoryview(CONTENT), known))
    signer = auth.AUTH_TYPE_MAPS["s3v4"](Credentials("key", "secret"), "s3", "us-east-1")
    signer.add_auth(request)
    assert request.headers["X-Amz-Content-SHA256"] == hashlib.sha256(CONTENT).hexdigest()
    assert "x-amz-content-sha256" in request.headers["Authorization"]
