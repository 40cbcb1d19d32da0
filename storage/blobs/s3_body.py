"""The memory of a part, from the first byte copied into it to the last one sent: filled, hashed and sent in place.

A part's memory is a mapping of its own and not the allocator's: buffers of many sizes that come and go there
leave holes, and a process that moves large layers then stays as large as all of them together.
"""

import asyncio
import hashlib
import mmap
from typing import Self

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from botocore import auth
from botocore.awsrequest import AWSRequest

#: Bytes handed to the connection at once: about what its socket takes.
_PIECE = 256 << 10


class Buffer:
    """Room for `size` bytes. The system gives memory to what is written, so that an empty one costs nothing."""

    __slots__ = ("_memory", "filled", "free", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.filled = 0
        #: whoever was shown the content is done with it, so that other content may take its place
        self.free = False
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def expect_much(self) -> None:
        """What follows will fill it: large pages save most of the page faults, a tenth of all the work."""
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)

    def write(self, data: bytes | memoryview) -> None:
        """Append; BufferError when there is no room."""
        end = self.filled + len(data)
        if end > self.size:
            raise BufferError(f"{len(data)} bytes do not fit behind {self.filled} of {self.size}")
        self._memory[self.filled : end] = data
        self.filled = end

    def content(self) -> memoryview:
        """What was written; keeps the memory alive."""
        return memoryview(self._memory)[: self.filled].toreadonly()


class Body(Payload):
    """Bytes in memory as botocore wants them (a file that it reads and seeks) and as aiohttp does (a payload).

    aiohttp's own payload for files reads in a thread, 256 KiB a hop, which costs more than sending them.
    """

    _autoclose = True

    def __init__(self, content: memoryview, sha256: str | None = None) -> None:
        """`sha256` in hex where it is known."""
        super().__init__(content)
        self._size = len(content)
        self._content = content
        self._at = 0
        self.sha256 = sha256
        #: how often it was begun to be sent
        self.tries = 0

    @classmethod
    async def hashed(cls, content: memoryview) -> Self:
        """With its hash, made in a thread: botocore would make it in the loop, which stops everybody else."""
        return cls(content, await asyncio.get_running_loop().run_in_executor(None, _sha256, content))

    def again(self) -> Self:
        """The same for one more try."""
        self.tries += 1
        return type(self)(self._content, self.sha256)

    def __len__(self) -> int:
        return len(self._content)

    def read(self, size: int = -1) -> bytes:
        start = self._at
        self._at = len(self) if size < 0 else min(len(self), start + size)
        return bytes(self._content[start : self._at])

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self))[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self._content).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        end = len(self) if content_length is None else min(len(self), content_length)
        for at in range(0, end, _PIECE):
            await writer.write(self._content[at : min(end, at + _PIECE)])


class _Signer(auth.S3SigV4Auth):  # type: ignore[misc]
    """botocore's, which takes the hash of a Body where one is needed and known."""

    def payload(self, request: AWSRequest) -> str:
        known = request.body.sha256 if isinstance(request.body, Body) else None
        if known is None or self._is_streaming_checksum_payload(request):
            return str(super().payload(request))
        return str(known) if self._should_sha256_sign_payload(request) else str(auth.UNSIGNED_PAYLOAD)


def sign_known_hashes() -> None:
    """For every client of this process: botocore looks its signers up in one table."""
    auth.AUTH_TYPE_MAPS["s3v4"] = _Signer


def _sha256(content: memoryview) -> str:
    return hashlib.sha256(content).hexdigest()
