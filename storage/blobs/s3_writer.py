"""Writing one object into a bucket: one PUT when it is small, a multipart upload otherwise.

Order: the upload's id is journalled before its first part, part numbers are taken from the journal and never
used twice (a part of a writer that lost its claim can then replace nothing), a tail's key is journalled before
the tail is sent. Parts lie whole in memory, charged to the budget, so that a failed one is sent again.

One upload holds `s3.parts_in_flight` times `s3.part_size` at most, the part being filled included, and two
parts where they have grown beyond that.

Largest object: 10,000 parts, which start at `s3.part_size` and double every 320 part numbers up to the
`parts` share of the memory budget: about 850 GiB with the defaults (8 MiB, 128 MiB), in proportion to the
budget otherwise. An upload whose client sends chunks of 5 MiB in requests of their own ends at 48 GiB.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tenure.core.errors import BlobUnknown, SizeInvalid, StorageUnavailable, TenureError, UploadUnknown
from tenure.storage.blobs.budget import FIRST, Loan, MemoryBudget
from tenure.storage.blobs.driver import Journal, Part, Progress, Stored
from tenure.storage.blobs.s3_body import Body, Buffer
from tenure.storage.blobs.s3_client import BucketClient

#: The least a part may hold unless it is the last, bytes (S3, multipart upload limits).
SMALLEST_PART = 5 << 20
MOST_PARTS = 10_000
#: A rest up to this stays in the database, bytes; a larger one becomes an object of its own.
LARGEST_TAIL = 256 << 10
_DOUBLE_EVERY = 320
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
        self._buffer = Buffer(1)
        self._room = 0  # what the buffer may hold at the moment
        self._loan: Loan | None = None
        self._spare: tuple[Buffer, Loan] | None = None  # memory of a part that was sent, for the next one
        self._sending: dict[asyncio.Task[Part], int] = {}  # with the bytes of memory each holds
        self._opened = False
        self._gone = False
        self._stored: Stored | None = None

    async def write(self, chunk: bytes) -> None:
        if not chunk:
            return
        if self._stored is not None:
            raise UploadUnknown()
        await self._open()
        view = memoryview(chunk)
        while view and not self._gone:
            room = self._room - self._buffer.filled
            if room <= 0:
                await self._make_room_or_count()
                continue
            self._buffer.write(view[:room])
            self._offset += min(room, len(view))
            view = view[room:]
        self._offset += len(view)

    async def suspend(self) -> Progress:
        if self._gone:
            raise UploadUnknown()
        if not self._opened:
            return self._progress
        if self._buffer.filled >= SMALLEST_PART:
            await self._send_part()
        await self._settle()
        tail_key, tail = None, b""
        if self._buffer.filled > LARGEST_TAIL:
            tail_key = await self._journal.tail_key()
            await self._put(tail_key, self._buffer.content())
        else:
            tail = bytes(self._buffer.content())
        await self.abandon()
        return replace(
            self._progress,
            offset=self._offset,
            multipart_id=self._multipart_id,
            next_part=self._numbers_end,
            parts=tuple(sorted(self._parts, key=lambda part: part.number)),
            tail=tail,
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
        self._buffer, self._room = Buffer(1), 0
        self._drop_spare()
        if self._loan is not None:
            self._loan.release()
            self._loan = None

    async def _complete(self) -> Stored:
        if not self._opened and not self._parts and self._progress.tail_key:
            # The tail is everything there is, and it is safe already.
            await self._abort_leftover()
            return Stored(self._progress.tail_key, self._offset)
        await self._open()
        if self._gone:
            return await self._recover()
        key = self._progress.key
        if not self._parts and not self._sending:
            await self._abort_leftover()
            answer = await self._put(key, self._buffer.content())
            return Stored(key, self._offset, answer.get("VersionId"))
        try:
            if self._buffer.filled:
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
        await self._make_room()
        if self._room < left:
            await self._make_room()
        if self._progress.tail_key:
            with suppress(BlobUnknown):
                async for piece in self._fetch(self._progress.tail_key, 0, left):
                    self._buffer.write(piece)
        else:
            self._buffer.write(self._progress.tail)
        if self._buffer.filled != left:
            raise UploadUnknown("bytes of this upload were lost on the way; begin a new one")
        self._opened = True

    async def _make_room(self) -> None:
        """Memory for the beginning of an object, then for a whole part; after that the part is sent."""
        if self._loan is None:
            size = self._size_of_next()
            await self._settle(below=max(self._most(), 2 * size) - size)
            if self._take_spare(size):
                return
            self._buffer = Buffer(size)
            # Where one part was filled, there may well be another: not in two steps if it need not wait.
            loan = self._budget.parts.try_take(size) if self._parts or self._sending else None
            if loan is None:
                self._loan, self._room = await self._budget.first.take(FIRST), FIRST
            else:
                self._fill_whole(loan)
        elif self._room == FIRST:
            loan = await self._budget.parts.take(self._buffer.size)
            self._loan.release()
            self._fill_whole(loan)
        else:
            await self._send_part()

    async def _make_room_or_count(self) -> None:
        try:
            await self._make_room()
        except _UploadGone:
            # An earlier try of this request may have completed the object: the rest is only counted, and hashed by
            # the caller, until `complete` can look.
            self._gone = True
            await self.abandon()

    def _fill_whole(self, loan: Loan) -> None:
        self._loan, self._room = loan, self._buffer.size
        self._buffer.expect_much()

    def _size_of_next(self) -> int:
        return part_size(self._next_number, self._client.settings.part_size, self._budget.parts.limit)

    def _most(self) -> int:
        """What the parts of this upload may hold together, bytes."""
        settings = self._client.settings
        return max(1, settings.parts_in_flight) * max(SMALLEST_PART, settings.part_size)

    async def _send_part(self) -> None:
        """Send the buffer in the background."""
        if self._multipart_id is None:
            await self._begin()
        number = await self._take_number()
        buffer, loan = self._buffer, self._loan
        self._buffer, self._loan, self._room = Buffer(1), None, 0
        task = asyncio.create_task(self._upload(number, buffer))
        assert loan is not None
        # Also when the task is cancelled before its first step.
        task.add_done_callback(lambda done: self._sent(done, buffer, loan))
        self._sending[task] = buffer.size

    async def _upload(self, number: int, buffer: Buffer) -> Part:
        body = await self._client.body(buffer.content())
        answer = await self._client.call(
            "upload_part",
            Key=self._name(self._progress.key),
            UploadId=self._multipart_id,
            PartNumber=number,
            Body=body,
        )
        if answer is None:
            raise _UploadGone()
        # The connection of a try that failed may still hold a view of it.
        buffer.free = isinstance(body, Body) and body.tries == 1
        return Part(number, answer["ETag"], buffer.filled)

    def _sent(self, done: asyncio.Task[Part], buffer: Buffer, loan: Loan) -> None:
        """Keep the memory for the next part unless somebody waits for it: the system hands out new memory zeroed,
        which costs as much as copying into it."""
        if self._spare is not None or not buffer.free or done.cancelled() or self._budget.parts.waiting:
            loan.release()
            return
        self._spare = buffer, loan
        self._budget.parts.reclaim.add(self._drop_spare)

    def _take_spare(self, size: int) -> bool:
        if self._spare is None or self._spare[0].size != size:
            self._drop_spare()
            return False
        self._budget.parts.reclaim.discard(self._drop_spare)
        (self._buffer, self._loan), self._spare = self._spare, None
        self._buffer.filled, self._buffer.free, self._room = 0, False, size
        return True

    def _drop_spare(self) -> None:
        self._budget.parts.reclaim.discard(self._drop_spare)
        if self._spare is not None:
            self._spare[1].release()
            self._spare = None

    async def _settle(self, below: int = 0) -> None:
        """Wait until the parts on their way hold no more than `below` bytes."""
        while sum(self._sending.values()) > below:
            done, _ = await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            self._collect(done)

    def _collect(self, done: set[asyncio.Task[Part]]) -> None:
        for task in done:
            part = task.result()
            del self._sending[task]
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

    async def _put(self, key: str, data: memoryview) -> dict[str, Any]:
        body = await self._client.body(data)
        answer = await self._client.call("put_object", Key=self._name(key), Body=body, **self._client.encryption())
        if answer is None:
            raise StorageUnavailable()
        return answer
