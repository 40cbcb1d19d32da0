"""Writing one object into a bucket: one PUT when it is small, a multipart upload otherwise.

Order: the upload's id is journalled before its first part, part numbers are taken from the journal and never
used twice (a part of a writer that lost its claim can then replace nothing), a tail's key is journalled before
the tail is sent. Parts are whole `bytes` in memory, charged to the budget, so that a failed one is sent again.

Largest object: 10,000 parts, which start at `s3.part_size` and double every 200 part numbers up to the
`parts` share of the memory budget: about 890 GiB with the defaults (8 MiB, 128 MiB), in proportion to the
budget otherwise. An upload whose client sends chunks of 5 MiB in requests of their own ends at 48 GiB.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tenure.core.errors import BlobUnknown, SizeInvalid, StorageUnavailable, TenureError, UploadUnknown
from tenure.storage.blobs.budget import FIRST, Loan, MemoryBudget
from tenure.storage.blobs.driver import Journal, Part, Progress, Stored
from tenure.storage.blobs.s3_client import BucketClient

#: The least a part may hold unless it is the last, bytes (S3, multipart upload limits).
SMALLEST_PART = 5 << 20
MOST_PARTS = 10_000
#: A rest up to this stays in the database, bytes; a larger one becomes an object of its own.
LARGEST_TAIL = 256 << 10
_DOUBLE_EVERY = 200
# Part numbers taken at once: 1, 2, 4, 8, then 16. A request that sends one part uses up one number.
_LARGEST_BLOCK = 16


def part_size(number: int, smallest: int, largest: int) -> int:
    """How many bytes part `number` holds when there are enough."""
    size = max(SMALLEST_PART, smallest) << min(40, (number - 1) // _DOUBLE_EVERY)
    return max(SMALLEST_PART, min(size, largest))


class _UploadGone(UploadUnknown):
    """The store knows this multipart upload no more: completed or aborted."""


class S3Writer:
    """Fulfils Writer. `name` turns a key into the object's name; `fetch` reads [start, end) of a tail object back,
    into memory that is already charged."""

    def __init__(
        self,
        client: BucketClient,
        budget: MemoryBudget,
        progress: Progress,
        journal: Journal,
        *,
        name: Callable[[str], str],
        fetch: Callable[[str, int, int], AsyncIterator[bytes]],
    ) -> None:
        self._client = client
        self._budget = budget
        self._progress = progress
        self._journal = journal
        self._name = name
        self._fetch = fetch
        self._offset = progress.offset  # taken, not yet safe
        self._multipart_id = progress.multipart_id
        self._parts = list(progress.parts)
        self._next_number = progress.next_part
        self._numbers_end = progress.next_part  # numbers below it and from _next_number on are ours
        self._block = 1
        self._buffer = io.BytesIO()
        self._room = 0  # what the buffer may hold at the moment
        self._loan: Loan | None = None
        self._sending: set[asyncio.Task[Part]] = set()
        self._opened = False
        self._stored: Stored | None = None

    async def write(self, chunk: bytes) -> None:
        if not chunk:
            return
        if self._stored is not None:
            raise UploadUnknown()
        await self._open()
        view = memoryview(chunk)
        while view:
            room = self._room - self._buffer.tell()
            if room <= 0:
                await self._make_room()
                continue
            self._buffer.write(view[:room])
            self._offset += min(room, len(view))
            view = view[room:]

    async def suspend(self) -> Progress:
        if not self._opened:
            return self._progress
        if self._buffer.tell() >= SMALLEST_PART:
            await self._send_part()
        await self._settle()
        rest = self._buffer.getvalue()
        tail_key = None
        if len(rest) > LARGEST_TAIL:
            tail_key = await self._journal.tail_key()
            await self._put(tail_key, rest)
        await self.abandon()
        return replace(
            self._progress,
            offset=self._offset,
            multipart_id=self._multipart_id,
            next_part=self._numbers_end,
            parts=tuple(sorted(self._parts, key=lambda part: part.number)),
            tail=b"" if tail_key else rest,
            tail_key=tail_key,
        )

    async def complete(self) -> Stored:
        if self._stored is None:
            self._stored = await self._complete()
            await self.abandon()
        return self._stored

    async def abandon(self) -> None:
        for task in self._sending:
            task.cancel()
        if self._sending:
            await asyncio.wait(self._sending)
            for task in self._sending:
                if not task.cancelled():
                    task.exception()
        self._sending.clear()
        self._buffer = io.BytesIO()
        self._room = 0
        if self._loan is not None:
            self._loan.release()
            self._loan = None

    async def _complete(self) -> Stored:
        if not self._opened and not self._parts and self._progress.tail_key:
            # The tail is everything there is, and it is safe already.
            await self._abort_leftover()
            return Stored(self._progress.tail_key, self._offset)
        await self._open()
        key = self._progress.key
        if not self._parts and not self._sending:
            await self._abort_leftover()
            answer = await self._put(key, self._buffer.getvalue())
            return Stored(key, self._offset, answer.get("VersionId"))
        try:
            if self._buffer.tell():
                await self._send_part()
            await self._settle()
            return await self._join_parts()
        except _UploadGone:
            return await self._recover()

    async def _join_parts(self) -> Stored:
        size = sum(part.size for part in self._parts)
        if size != self._offset:
            raise TenureError(f"the parts of {self._progress.key} hold {size} bytes where {self._offset} were written")
        parts = sorted(self._parts, key=lambda part: part.number)
        answer = await self._client.call(
            "complete_multipart_upload",
            Key=self._name(self._progress.key),
            UploadId=self._multipart_id,
            MultipartUpload={"Parts": [{"PartNumber": part.number, "ETag": part.etag} for part in parts]},
        )
        if answer is None:
            raise _UploadGone()
        return Stored(self._progress.key, self._offset, answer.get("VersionId"))

    async def _recover(self) -> Stored:
        """An earlier try may have completed the upload without our hearing of it: then the whole object is there."""
        answer = await self._client.call("head_object", Key=self._name(self._progress.key))
        if answer is None or answer["ContentLength"] != self._offset:
            raise UploadUnknown()
        return Stored(self._progress.key, self._offset, answer.get("VersionId"), recovered=True)

    async def _open(self) -> None:
        """Take what the last request left over back into the buffer."""
        if self._opened:
            return
        stored = sum(part.size for part in self._progress.parts)
        left = self._offset - stored
        if left > FIRST:
            await self._make_room()
        await self._make_room()
        if self._progress.tail_key:
            with suppress(BlobUnknown):
                async for piece in self._fetch(self._progress.tail_key, 0, left):
                    self._buffer.write(piece)
        else:
            self._buffer.write(self._progress.tail)
        if self._buffer.tell() != left:
            raise UploadUnknown("bytes of this upload were lost on the way; begin a new one")
        self._opened = True

    async def _make_room(self) -> None:
        """Memory for the beginning of an object, then for a whole part; after that the part is sent."""
        if self._loan is None:
            self._loan = await self._budget.first.take(FIRST)
            self._room = FIRST
        elif self._room == FIRST:
            size = part_size(self._next_number, self._client.settings.part_size, self._budget.parts.limit)
            loan = await self._budget.parts.take(size)
            self._loan.release()
            self._loan, self._room = loan, size
        else:
            await self._send_part()

    async def _send_part(self) -> None:
        """Send the buffer in the background; waits while `s3.parts_in_flight` are on their way."""
        if self._multipart_id is None:
            await self._begin()
        number = await self._take_number()
        while len(self._sending) >= max(1, self._client.settings.parts_in_flight):
            done, _ = await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            self._collect(done)
        data, loan = self._buffer.getvalue(), self._loan
        self._buffer, self._loan, self._room = io.BytesIO(), None, 0
        task = asyncio.create_task(self._upload(number, data))
        if loan is not None:
            # Also when the task is cancelled before its first step.
            task.add_done_callback(lambda _: loan.release())
        self._sending.add(task)

    async def _upload(self, number: int, data: bytes) -> Part:
        answer = await self._client.call(
            "upload_part",
            Key=self._name(self._progress.key),
            UploadId=self._multipart_id,
            PartNumber=number,
            Body=data,
        )
        if answer is None:
            raise _UploadGone()
        return Part(number, answer["ETag"], len(data))

    async def _settle(self) -> None:
        while self._sending:
            done, _ = await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            self._collect(done)

    def _collect(self, done: set[asyncio.Task[Part]]) -> None:
        for task in done:
            part = task.result()
            self._sending.discard(task)
            self._parts.append(part)

    async def _begin(self) -> None:
        answer = await self._client.call(
            "create_multipart_upload", Key=self._name(self._progress.key), **self._client.encryption()
        )
        if answer is None:
            raise StorageUnavailable()
        begun = str(answer["UploadId"])
        try:
            await self._journal.multipart(begun)
        except TenureError:
            # Nobody will ever know of it; it holds no bytes yet.
            with suppress(StorageUnavailable):
                await self._abort(begun)
            raise
        self._multipart_id = begun

    async def _take_number(self) -> int:
        if self._next_number >= self._numbers_end:
            first = await self._journal.reserve_parts(self._block)
            self._next_number, self._numbers_end = first, first + self._block
            self._block = min(_LARGEST_BLOCK, self._block * 2)
        number = self._next_number
        if number > MOST_PARTS:
            raise SizeInvalid(
                f"this upload has used up its {MOST_PARTS} parts after {self._offset} bytes; send it in larger chunks"
            )
        self._next_number += 1
        return number

    async def _abort_leftover(self) -> None:
        """A multipart upload begun by a request that died before its first part was safe."""
        if self._multipart_id is not None:
            await self._abort(self._multipart_id)

    async def _abort(self, multipart_id: str) -> None:
        await self._client.call("abort_multipart_upload", Key=self._name(self._progress.key), UploadId=multipart_id)

    async def _put(self, key: str, data: bytes) -> dict[str, Any]:
        answer = await self._client.call("put_object", Key=self._name(key), Body=data, **self._client.encryption())
        if answer is None:
            raise StorageUnavailable()
        return answer
